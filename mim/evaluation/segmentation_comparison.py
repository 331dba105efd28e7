"""Two segmenters on the same images: differences of their figures, with intervals and p."""

from collections.abc import Mapping, Sequence

from mim.errors import MimError
from mim.evaluation.bootstrap import Statistic
from mim.evaluation.class_means import CLASS_MEAN, mean_of_classes
from mim.evaluation.metrics import Settings
from mim.evaluation.paired import PairedDifference, paired_measure
from mim.evaluation.segmentation import overlap_statistics
from mim.evaluation.segmentation_classes import SegmentedClasses
from mim.evaluation.segmentation_section import TITLES


def compare_segmentations(
    first: SegmentedClasses, second: SegmentedClasses, settings: Settings
) -> dict[str, PairedDifference]:
    """Compare all figures of the test images that both could draw.

    Args:
        first: Validation and test images with the masks of the first segmenter.
        second: The same with those of the second.
        settings: How intervals are made.

    Returns:
        By the name of the figure; of several classes the mean over those that have it, and as `figure: class` each one.

    Raises:
        MimError: The classes, the patients or the lesions of the test images differ.
    """
    one, other = drawn_by_both(first, second)
    sides = [[overlap_statistics(own.overlaps) for own in table.images] for table in (one, other)]
    statistics: dict[str, tuple[Statistic, Statistic]] = {}
    means = [mean_of_classes(side, len(one)) for side in sides]
    for name in TITLES:
        statistics[name] = (means[0][name], means[1][name])
    if len(one.classes) > 1:
        for place, label in enumerate(one.classes):
            statistics |= {of_class(name, label): (sides[0][place][name], sides[1][place][name]) for name in TITLES}
    reason = "there are no test images with what it is measured on"
    return paired_measure(statistics, one.patient_id, settings, reason=reason)


def drawn_by_both(first: SegmentedClasses, second: SegmentedClasses) -> tuple[SegmentedClasses, SegmentedClasses]:
    """Take the test images that both tables have, in the order of the first.

    Raises:
        MimError: They are of other classes or patients, or were measured against other lesions.
    """
    one, other = first.of("test"), second.of("test")
    if one.classes != other.classes:
        raise MimError(
            f"comparison: the runs are of other classes ({', '.join(one.classes)}; {', '.join(other.classes)}); "
            "give two runs of the same"
        )
    places = {name: place for place, name in enumerate(other.image_id)}
    shared = [place for place, name in enumerate(one.image_id) if name in places]
    one, other = one.take(shared), other.take([places[one.image_id[place]] for place in shared])
    differing = [
        name
        for place, name in enumerate(one.image_id)
        if one.patient_id[place] != other.patient_id[place] or _areas(one, place) != _areas(other, place)
    ]
    if differing:
        raise MimError(
            f"comparison: {len(differing)} test images have another patient or other lesions in the second table (such "
            f"as {differing[0]}); evaluate both runs on the same pixels"
        )
    return one, other


def of_class(name: str, label: str) -> str:
    """What a figure of one of several classes is called."""
    return f"{name}: {label}"


def comparison_titles(classes: Sequence[str]) -> Mapping[str, str]:
    """How the figures of a comparison are called in its report."""
    if len(classes) == 1:
        return TITLES
    means = {name: f"{title}: {CLASS_MEAN}" for name, title in TITLES.items()}
    return means | {of_class(name, label): f"{title}: {label}" for label in classes for name, title in TITLES.items()}


def _areas(table: SegmentedClasses, place: int) -> list[list[int]]:
    """Pixels of the lesions of an image, by class."""
    return [[own.area, *sorted(lesion.area for lesion in own.lesions)] for own in table.of_image(place)]
