"""Which patients go where: draws by patient, by site or by date, that depend on nothing but the seed and the films.

scikit-learn's StratifiedGroupKFold gives other folds when the rows come in another order, and breaks ties by the names
of the groups, which are salted hashes here. These draws depend on neither, so that another machine draws the same.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set

from mim.data.copies import FLAT_CONTENTS
from mim.data.labels import LabelledFilm
from mim.data.seed import derive_seed
from mim.data.tables import Split
from mim.errors import MimError


def group_patients(films: Sequence[LabelledFilm]) -> dict[str, str]:
    """Name the group of each patient: patients who share a film are one, since copies must not be drawn apart.

    Films of one even grey say nothing about who is on them and link nobody.

    Returns:
        For each patient id the path of the first of the group's films: unlike the id, that is the same whatever the
        salt.
    """
    leader: dict[str, str] = {film.patient_id: film.patient_id for film in films}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            leader[patient] = leader[leader[patient]]
            patient = leader[patient]
        return patient

    owner: dict[str, str] = {}
    for film in films:
        if film.content not in FLAT_CONTENTS:
            leader[find(film.patient_id)] = find(owner.setdefault(film.content, film.patient_id))
    names: dict[str, str] = {}
    for film in films:
        root = find(film.patient_id)
        names[root] = min(film.image, names.get(root, film.image))
    return {patient: names[find(patient)] for patient in leader}


def labels_by_group(films: Sequence[LabelledFilm], groups: Mapping[str, str]) -> dict[str, int]:
    """Give each group the highest of its films' labels."""
    labels: dict[str, int] = {}
    for film in films:
        name = groups[film.patient_id]
        labels[name] = max(film.label, labels.get(name, film.label))
    return labels


def assign_splits(
    labels: Mapping[str, int], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """Draw a split for each patient, with the same shares in every class.

    The result depends on the seed and the patients' names only, not on their order. Of three or more patients of a
    class, each split whose share is not 0 gets at least one.

    Args:
        labels: Class of each patient, by name.
        val_fraction: Share of patients for validation.
        test_fraction: Share of patients for the test.
        seed: Of the draw.

    Raises:
        MimError: The two shares leave nothing for training.
    """
    if val_fraction + test_fraction >= 1:
        raise MimError(
            f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} leave no patients for training"
        )
    split_of: dict[str, Split] = {}
    for stratum in strata(labels, seed).values():
        test = _share(len(stratum), test_fraction, room=len(stratum) - 1)
        val = _share(len(stratum), val_fraction, room=len(stratum) - 1 - test)
        for place, name in enumerate(stratum):
            split_of[name] = "test" if place < test else "val" if place < test + val else "train"
    return split_of


def assign_folds(labels: Mapping[str, int], folds: int, seed: int) -> dict[str, int]:
    """Draw a fold for each patient; folds differ by at most one patient, in all and of each class.

    Args:
        labels: Class of each patient, by name.
        folds: How many.
        seed: Of the draw.

    Raises:
        MimError: There are more folds than patients.
    """
    if folds > len(labels):
        raise MimError(f"data.folds {folds} is more than the {len(labels)} patients there are: lower it")
    order = [name for stratum in strata(labels, seed).values() for name in stratum]
    return {name: place % folds for place, name in enumerate(order)}


def site_folds(sites: Mapping[str, Set[str]], folds: int, seed: int) -> dict[str, int]:
    """Divide whole sites into folds of about as many patients each: the largest first, each to the emptiest fold.

    Args:
        sites: Patients of each site.
        folds: How many.
        seed: Decides among sites of one size.

    Raises:
        MimError: There are more folds than sites.
    """
    if folds > len(sites):
        raise MimError(f"data.folds {folds} is more than the {len(sites)} sites there are (data.split_by): lower it")
    order = sorted(sites, key=lambda site: (-len(sites[site]), derive_seed(seed, "site", site), site))
    filled = [0] * folds
    fold_of: dict[str, int] = {}
    for site in order:
        fold_of[site] = filled.index(min(filled))
        filled[fold_of[site]] += len(sites[site])
    return fold_of


def held_out_sites(sites: Mapping[str, Set[str]], fraction: float, seed: int) -> set[str]:
    """Draw whole sites for the test, as long as each brings the share of patients nearer to `fraction`; at least one.

    Args:
        sites: Patients of each site.
        fraction: Share of patients wanted.
        seed: Of the order in which sites are drawn.

    Raises:
        MimError: There is only one site.
    """
    if len(sites) < 2:
        raise MimError("data.split_by=site needs films of two sites or more: the labels name one")
    wanted = fraction * len(set().union(*sites.values()))
    held: set[str] = set()
    patients: set[str] = set()
    for site in sorted(sites, key=lambda site: (derive_seed(seed, "site", site), site))[:-1]:
        more = patients | sites[site]
        if not held or abs(len(more) - wanted) < abs(len(patients) - wanted):
            held.add(site)
            patients = more
    return held


def newest(dates: Mapping[str, str], fraction: float) -> set[str]:
    """Take the patients with the newest dates; those of one day stay together, so no training film is newer.

    Args:
        dates: Date of each patient's newest film, as text that sorts by time.
        fraction: Share of patients wanted.

    Raises:
        MimError: Every patient has the same date.
    """
    order = sorted(dates.values(), reverse=True)
    wanted = _share(len(order), fraction, room=len(order) - 1)
    if not wanted:
        return set()
    if order[wanted - 1] == order[-1]:
        raise MimError("data.split_by=date: the oldest day alone would be the test too; use data.split_by=patient")
    return {name for name, date in dates.items() if date >= order[wanted - 1]}


def strata(labels: Mapping[str, int], seed: int) -> dict[int, list[str]]:
    """List the patients of each class in an order drawn by seed; who comes before whom depends on those two only."""
    found: dict[int, list[str]] = defaultdict(list)
    for name in sorted(labels, key=lambda name: (derive_seed(seed, "patient", name), name)):
        found[labels[name]].append(name)
    return dict(sorted(found.items()))


def first_of_each_class(labels: Mapping[str, int], fraction: float, seed: int) -> set[str]:
    """Draw a share of the patients of each class, at least one; a larger share holds all that a smaller one holds."""
    return {
        name
        for stratum in strata(labels, seed).values()
        for name in stratum[: _share(len(stratum), fraction, room=len(stratum))]
    }


def interleave(classes: Mapping[int, Sequence[str]]) -> list[str]:
    """Merge classes in proportion, after one patient of each."""
    places = [
        (place > 0, (place + 0.5) / len(names), label, name)
        for label, names in classes.items()
        for place, name in enumerate(names)
    ]
    return [name for *_, name in sorted(places)]


def _share(count: int, fraction: float, room: int) -> int:
    wanted = max(1, int(count * fraction + 0.5)) if fraction > 0 else 0
    return max(0, min(wanted, room))
