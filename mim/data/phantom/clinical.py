"""What is known of an invented patient beside the films: some of it goes with caries, some is noise."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields

from mim.data.phantom.settings import random_stream

SITES = ("north", "east", "south")
UNKNOWN_SNACKS = 0.15  # share of the patients whose habits nobody asked for


@dataclass(frozen=True)
class Clinical:
    """Columns of labels.csv.

    Attributes:
        age: Years; higher where the patient has caries.
        site: Where the films were taken; noise.
        snacks: Sweet ones a day, more where the patient has caries; None = not known.
        shoe_size: Noise.
    """

    age: int
    site: str
    snacks: int | None
    shoe_size: int

    @property
    def cells(self) -> tuple[object, ...]:
        """The cells of a row."""
        return tuple("" if value is None else value for value in astuple(self))


CLINICAL_COLUMNS = tuple(field.name for field in fields(Clinical))


def draw_clinical(carious: Mapping[int, bool], seed: int) -> dict[int, Clinical]:
    """Draw the columns of each patient.

    Args:
        carious: Which patients have caries on any film.
        seed: Seed of everything drawn.
    """
    drawn = {}
    for patient, has_caries in carious.items():
        rng = random_stream(seed, patient, 9)
        age = rng.normal(50 if has_caries else 34, 11)
        site = SITES[int(rng.integers(len(SITES)))]
        snacks = int(rng.poisson(4.0 if has_caries else 1.5))
        known = rng.random() >= UNKNOWN_SNACKS
        shoe_size = int(rng.integers(35, 48))
        drawn[patient] = Clinical(int(min(max(age, 8), 90)), site, snacks if known else None, shoe_size)
    return drawn
