"""Who is on which film, where a table says it of some films and headers say it of others."""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import TypeVar

from mim.errors import MimError

Film = TypeVar("Film", bound=Hashable)


def join_patients(written: Mapping[Film, str], in_header: Mapping[Film, str]) -> dict[Film, str]:
    """Give each film one patient, so that the films of one person cannot end up under two ids.

    A film of which the table says nothing is of the patient whom the table names for other films with the same patient
    in their header; where it names none, of the patient in its header.

    Args:
        written: Hashed patient of each film in the table; empty where the table does not say.
        in_header: Hashed patient of each of these films in its header; empty where there is none.

    Returns:
        The patient of each film; empty where nobody knows.

    Raises:
        MimError: The table names several patients for films with one patient in their headers, and says nothing of
            another such film.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for film, patient in written.items():
        if patient and in_header[film]:
            names[in_header[film]].add(patient)
    joined: dict[Film, str] = {}
    for film, patient in written.items():
        known = names.get(in_header[film], set())
        if not patient and len(known) > 1:
            raise MimError(
                "patient_id is empty for a film whose header names the same patient as those of films that the table "
                f"gives {len(known)} different ones: fill in patient_id for all films, or for none"
            )
        joined[film] = patient or next(iter(known), in_header[film])
    return joined
