"""Two detectors on the same images: differences of their figures, with intervals and p."""

import numpy as np

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers, Statistic
from mim.evaluation.box_pairs import pair_boxes
from mim.evaluation.coco import coco_names, coco_statistic
from mim.evaluation.detection import OPERATING_RATE, RULES, choose_detection_threshold, operating_statistics
from mim.evaluation.detections import Detections, Lesions, join
from mim.evaluation.froc import RATES, HitRule, find_hits, froc_statistic
from mim.evaluation.metrics import Settings
from mim.evaluation.paired import PairedDifference, paired_measure


def compare_detections(
    first: Detections,
    second: Detections,
    lesions: Lesions,
    settings: Settings,
    *,
    rule: HitRule = RULES["iou"],
    rate: float = OPERATING_RATE,
) -> dict[str, PairedDifference]:
    """Compare AP, AP50, AP75, the FROC score, and what happens at each detector's own threshold.

    Args:
        first: Validation and test images with what the first detector found.
        second: The same test images with what the second found.
        lesions: What is there.
        settings: How intervals are made.
        rule: When a mark hits a lesion.
        rate: False positives an image at which thresholds are chosen on the validation images.

    Raises:
        MimError: The test images differ, or lesions of images that were not searched.
    """
    second = _in_order(second, first)
    both = [join(own, lesions).of("test") for own in (first, second)]
    statistics: dict[str, tuple[Statistic, Statistic]] = {}
    figures = [coco_statistic(own) for own in both]
    for name in ("ap", "ap50", "ap75"):
        place = coco_names().index(name)
        statistics[name] = (_column(figures[0], place), _column(figures[1], place))
    hits = [find_hits(own, pair_boxes(own), rule) for own in both]
    scores = [_column(froc_statistic(own), len(RATES)) for own in hits]
    statistics["froc"] = (scores[0], scores[1])
    thresholds = [
        choose_detection_threshold(join(own, lesions).of("val"), rule=rule, rate=rate).value for own in (first, second)
    ]
    if thresholds[0] is not None and thresholds[1] is not None:
        one = operating_statistics(both[0], hits[0], thresholds[0])
        other = operating_statistics(both[1], hits[1], thresholds[1])
        for name in ("lesion_sensitivity", "false_positives_per_image"):
            statistics[name] = (one[name], other[name])
    patients = both[0].detections.patient_id
    return paired_measure(statistics, patients, settings, reason="there are no test images with lesions")


def _in_order(table: Detections, like: Detections) -> Detections:
    """Put the test images of a table in the order of another's.

    Raises:
        MimError: The test images or their patients differ.
    """
    one, other = ({name: own.patient_id[place] for place, name in enumerate(own.image_id) if own.split[place] == "test"}
                  for own in (like, table))  # fmt: skip
    if one != other:
        alone = sorted(one.keys() ^ other.keys()) or sorted(name for name in one if one[name] != other[name])
        raise MimError(
            f"comparison: the runs are of different splits: {len(alone)} test images are in one of them only, or of "
            f"another patient (such as {alone[0]}); evaluate both runs on the same split"
        )
    wanted = {name: place for place, name in enumerate(one)}
    rank = [wanted.get(name, len(wanted)) for name in table.image_id]
    order = np.argsort(rank, kind="stable")
    place: Integers = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    columns = (table.image_id, table.patient_id, table.split)
    image, patient, split = ([column[row] for row in order.tolist()] for column in columns)
    return Detections(image, patient, split, place[table.image], table.boxes, table.score, table.label)


def _column(statistic: Statistic, place: int) -> Statistic:
    def chosen(weights: Integers) -> Floats:
        result: Floats = statistic(weights)[:, place]
        return result

    return chosen
