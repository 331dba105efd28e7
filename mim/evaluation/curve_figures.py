"""The figures that are drawn against the number of labels: of each run one, on the same test films."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers, Statistic, auroc_statistic
from mim.evaluation.class_means import mean_of_classes
from mim.evaluation.class_metrics import mean_auroc_statistic
from mim.evaluation.coco import coco_names, coco_statistic
from mim.evaluation.detections import Detections, Lesions, join
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.predictions import Predictions
from mim.evaluation.segmentation import overlap_statistics
from mim.evaluation.segmentation_classes import SegmentedClasses


@dataclass(frozen=True)
class CurveFigure:
    """What is drawn.

    Attributes:
        name: As in tables and JSON.
        title: As a reader calls it.
        short: As a line of the summary has it.
        chance: Its value for a model that knows nothing; None = there is no such value.
        undefined: Why it may have no value.
    """

    name: str
    title: str
    short: str
    chance: float | None
    undefined: str


AUROC = CurveFigure("auroc", "AUROC", "AUC", 0.5, "the films are of one class only, so there is no ROC curve")
MEAN_AUROC = CurveFigure(
    "mean_auroc", "Mean AUROC", "mean AUC", 0.5, "no class or label has films with it and films without it"
)
AP50 = CurveFigure("ap50", "AP50", "AP50", None, "the films hold no lesion, so there is no precision over recall")

LESION_DICE = CurveFigure(
    "lesion_dice", "Dice, mean over lesions", "Dice of a lesion", None, "the films hold no lesion of which to draw one"
)


@dataclass(frozen=True, eq=False)
class OnTest:
    """The figure of one run on its test films, which stand in the order of their names.

    Attributes:
        figure: Which.
        image_id: N names.
        patient_id: N names.
        truth: N values, one a film, in which runs on the same films agree.
        label: (N,) of 0 and 1 where resamples of one class say nothing; else None.
        statistic: From weights (R, N) of the films to R values.
    """

    figure: CurveFigure
    image_id: tuple[str, ...]
    patient_id: tuple[str, ...]
    truth: tuple[object, ...]
    label: npt.NDArray[np.int64] | None
    statistic: Statistic


def auroc_on_test(predictions: Predictions) -> OnTest:
    """AUROC of the scores of the test films."""
    test = predictions.of("test")
    order = np.argsort(np.array(test.image_id, dtype=str), kind="stable")
    own = test.rows(order)
    label = np.asarray(own.label, dtype=np.int64)
    images, patients = tuple(own.image_id), tuple(own.patient_id)
    return OnTest(AUROC, images, patients, tuple(label.tolist()), label, auroc_statistic(label, own.score))


def mean_auroc_on_test(predictions: LabelPredictions) -> OnTest:
    """Mean AUROC of several classes against the rest, of cuts between grades, or of several labels."""
    test = predictions.of("test")
    own = test.rows(np.argsort(np.array(test.image_id, dtype=str), kind="stable"))
    truth = tuple(str(row) for row in own.label.tolist())
    return OnTest(MEAN_AUROC, tuple(own.image_id), tuple(own.patient_id), truth, None, mean_auroc_statistic(own))


def ap50_on_test(detections: Detections, lesions: Lesions) -> OnTest:
    """COCO's average precision at an IoU of 0.5, mean over the classes, of the boxes found on the test films."""
    searched = join(detections, lesions).of("test")
    images = np.array(searched.detections.image_id, dtype=str)
    order = np.argsort(images, kind="stable")
    rank = np.argsort(order, kind="stable")
    figures, column = coco_statistic(searched), coco_names().index(AP50.name)

    def statistic(weights: Integers) -> Floats:
        return figures(np.take(weights, rank, axis=1))[:, column]

    there: list[list[str]] = [[] for _ in images]
    for place, name in zip(searched.lesion_image.tolist(), searched.lesions.label, strict=True):
        there[place].append(name)
    patients = [searched.detections.patient_id[place] for place in order.tolist()]
    truth = tuple(tuple(sorted(there[place])) for place in order.tolist())
    return OnTest(AP50, tuple(images[order].tolist()), tuple(patients), truth, None, statistic)


def lesion_dice_on_test(images: SegmentedClasses) -> OnTest:
    """Dice of the lesions of the test films; of several classes their mean."""
    test = images.of("test")
    own = test.take(np.argsort(np.array(test.image_id, dtype=str), kind="stable").tolist())
    each = [overlap_statistics(one.overlaps) for one in own.images]
    there = [own.of_image(place) for place in range(len(own))]
    truth = tuple(str([sorted(lesion.area for lesion in one.lesions) for one in classes]) for classes in there)
    statistic = mean_of_classes(each, len(own))[LESION_DICE.name]
    return OnTest(LESION_DICE, tuple(own.image_id), tuple(own.patient_id), truth, None, statistic)


def require_same_test(runs: Sequence[OnTest]) -> None:
    """Refuse runs whose test films, their patients or what is known of them differ.

    Raises:
        MimError: In one line, what differs and what to do.
    """
    known = [dict(zip(run.image_id, zip(run.patient_id, run.truth, strict=True), strict=True)) for run in runs]
    for other in known[1:]:
        if known[0].keys() != other.keys():
            alone = sorted(known[0].keys() ^ other.keys())
            raise MimError(
                f"label efficiency: the runs are of different splits: {len(alone)} test films are not in all of them "
                f"(such as {alone[0]}); evaluate all runs on the same split"
            )
        if changed := sorted(image for image in other if other[image] != known[0][image]):
            raise MimError(
                f"label efficiency: {len(changed)} test films (such as {changed[0]}) have another patient or label in "
                "some runs; train and evaluate all on the same labels"
            )
