"""How severe a lesion is: grades in their order, the mildest first."""

from collections.abc import Iterable, Sequence

SCALES: tuple[tuple[str, ...], ...] = (
    ("E0", "E1", "E2", "D1", "D2", "D3"),  # radiographic depth: halves of the enamel, thirds of the dentine
    ("0", "RA1", "RA2", "RA3", "RB4", "RC5", "RC6"),  # radiographic scoring of ICCMS (Pitts et al. 2014)
    ("initial", "moderate", "extensive"),  # ICCMS, merged
    ("mild", "moderate", "severe"),
)


def order_grades(found: Iterable[str], given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Put grades in order, the mildest first.

    Args:
        found: Grades of lesions; empty ones do not count.
        given: The order, where somebody has said it (`data.grades`).

    Returns:
        `given`; else the grades found, by size where all are numbers (such as ICDAS), or in the order of the scale of
        `SCALES` that knows them all, capitals aside; nothing where the order is not known.

    Raises:
        ValueError: A grade was found that `given` does not name.
    """
    grades = {grade for grade in found if grade}
    if given is not None:
        unknown = sorted(grades - set(given))
        if unknown:
            raise ValueError(f"the grade {unknown[0]!r} is not among those given ({', '.join(given)})")
        return tuple(given)
    if all(_is_number(grade) for grade in grades):
        return tuple(sorted(grades, key=lambda grade: (float(grade), grade)))
    for scale in SCALES:
        places = {name.casefold(): place for place, name in enumerate(scale)}
        if all(grade.casefold() in places for grade in grades):
            return tuple(sorted(grades, key=lambda grade: (places[grade.casefold()], grade)))
    return ()


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
