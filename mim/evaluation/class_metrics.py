"""Figures of more than two classes, of grades and of several labels, with patient-clustered intervals.

Each question of yes or no (`mim.evaluation.label_questions`) is measured as two classes are, with a threshold of its
own from the validation films. Beside them, over all test films:

- `mean_auroc`: mean of the AUROCs of the questions that have one; for classes that is the macro average, one against
  the rest.
- Classes and grades: `accuracy`, `balanced_accuracy` (mean share of each class that is called rightly, over the
  classes there are), `brier` (sum over the classes of the squared error, from 0 to 2; Brier 1950) and `ece`
  (calibration error of the probability of the likeliest class, in ten bins of equal width; Guo et al. 2017). A film is
  called the class with the highest score.
- Grades: `kappa` (quadratic weights), `mae` (mean number of grades that a call is off) and `within_one` (share of calls
  at most one grade off). A film is called the median grade (`mim.evaluation.ordinal`).
- `keep_rate`: mean share of the cells that the network was allowed to see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from mim.evaluation.bootstrap import Floats, Integers, Statistic, auroc_statistic, mean_statistic
from mim.evaluation.calibration import bins_of, calibration_error_statistic
from mim.evaluation.figures import Figure, SplitMetrics, measure_split
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import LabelKind, answers, scores
from mim.evaluation.measuring import as_json, measure
from mim.evaluation.metrics import Settings
from mim.evaluation.ordinal import median_grade, quadratic_kappa_statistic
from mim.evaluation.strata import FEW
from mim.evaluation.threshold import Threshold, choose_threshold

TITLES: Mapping[str, str] = {
    "mean_auroc": "Mean AUROC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "kappa": "Kappa, quadratic weights",
    "mae": "Mean absolute error, in grades",
    "within_one": "At most one grade off",
    "brier": "Brier score, summed over the classes",
    "ece": "Calibration error of the most likely class",
    "keep_rate": "Share of cells seen",
}


@dataclass(frozen=True)
class Question:
    """What was found of one class against the rest, of one cut between grades, or of one label.

    Attributes:
        name: What is asked for.
        threshold: Chosen on the validation films.
        test: All figures of two classes.
        unknown: Test films of which the answer is not known.
        val: Validation films with a score of which the answer is known, and how many of them are positive.
    """

    name: str
    threshold: Threshold
    test: SplitMetrics
    unknown: int
    val: tuple[int, int]

    @property
    def few(self) -> bool:
        """Whether there are fewer than ten test films of either kind."""
        return min(self.test.positives, self.test.negatives) < FEW


@dataclass(frozen=True)
class LabelMetrics:
    """All figures of an evaluation.

    Attributes:
        kind: What the labels are.
        names: Of the classes, grades or labels.
        settings: How thresholds and intervals are made.
        films: Test films with a score.
        patients: Their patients.
        overall: Figures over all questions.
        questions: In the order of their names.
        confusion: (K, K) test films by what they are (rows) and what they are called; None of several labels.
    """

    kind: LabelKind
    names: tuple[str, ...]
    settings: Settings
    films: int
    patients: int
    overall: Mapping[str, Figure]
    questions: tuple[Question, ...]
    confusion: Integers | None

    def to_json(self) -> dict[str, Any]:
        """What `metrics.json` says, in the block `labels`."""
        questions = []
        for question in self.questions:
            content = asdict(question.test)
            questions.append(
                {
                    "name": question.name,
                    "few": question.few,
                    "unknown": question.unknown,
                    "threshold": question.threshold.value,
                    "threshold_reason": question.threshold.reason,
                    "val": {"films": question.val[0], "positives": question.val[1]},
                    "test": content | content.pop("figures"),
                }
            )
        return {
            "kind": self.kind,
            "names": list(self.names),
            "films": self.films,
            "patients": self.patients,
            "overall": {name: as_json(figure) for name, figure in self.overall.items()},
            "questions": questions,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }


def called_class(predictions: LabelPredictions) -> Integers:
    """(N,) what each film is called: the class with the highest score, or the median grade."""
    if predictions.kind == "ordered":
        return median_grade(predictions.score)
    highest: Integers = predictions.score.argmax(axis=1)
    return highest


def measure_labels(predictions: LabelPredictions, settings: Settings) -> LabelMetrics:
    """Compute every figure that the test films allow; the others are None with the reason.

    Args:
        predictions: Validation and test films; those without scores are left out.
        settings: How thresholds and intervals are made.
    """
    predictions = predictions.rows(predictions.is_scored)
    test = predictions.of("test")
    questions = tuple(_ask(predictions, place, settings) for place in range(len(predictions.questions)))
    exclusive = predictions.kind != "several"
    confusion = None
    if exclusive:
        places = list(range(len(test.names)))
        confusion = (
            np.asarray(confusion_matrix(test.label, called_class(test), labels=places), dtype=np.int64)
            if len(test)
            else np.zeros((len(places), len(places)), dtype=np.int64)
        )
    statistics = {"mean_auroc": mean_auroc_statistic(test)}
    if exclusive and len(test):
        statistics |= call_statistics(test)
    statistics["keep_rate"] = mean_statistic(test.keep_rate)
    none = "there are no test films" if not len(test) else ""
    why = {"mean_auroc": none or "no question has test films of both answers", "keep_rate": none}
    overall = measure(statistics, test.patient_id, settings, reasons=why)
    if exclusive and not len(test):
        overall |= {name: Figure(None, None, None, none) for name in ("accuracy", "balanced_accuracy", "brier", "ece")}
    people = len(set(test.patient_id))
    return LabelMetrics(test.kind, test.names, settings, len(test), people, overall, questions, confusion)


def _ask(predictions: LabelPredictions, place: int, settings: Settings) -> Question:
    films = predictions.question(place)
    val, test = films.of("val"), films.of("test")
    threshold = choose_threshold(val, settings.specificity)
    found = measure_split(
        test,
        "test",
        threshold.value,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    counts = len(val), int(val.label.sum())
    return Question(predictions.questions[place], threshold, found, predictions.of("test").unknown(place), counts)


def mean_auroc_statistic(films: LabelPredictions) -> Statistic:
    """Mean AUROC over the questions that have one on these films, under integer weights.

    A resample in which one of them has none, as it holds no film of a class, has no mean.
    """
    truth = answers(films.label, len(films.names), films.kind)
    said = scores(films.score, films.kind)
    parts: list[tuple[Integers, Statistic]] = []
    for own, score in zip(truth.T, said.T, strict=True):
        known = np.flatnonzero(own >= 0)
        if 0 < own[known].sum() < len(known):
            parts.append((known, auroc_statistic(own[known], score[known])))

    def statistic(weights: Integers) -> Floats:
        if not parts:
            return np.full(len(weights), np.nan)
        found: Floats = np.mean([area(np.take(weights, known, axis=1)) for known, area in parts], axis=0)
        return found

    return statistic


def balanced_accuracy_statistic(label: Integers, called: Integers) -> Statistic:
    """Mean over the classes there are of the share of their films that is called rightly, under integer weights."""
    shares = [mean_statistic(called == label, label == own) for own in np.unique(label)]

    def statistic(weights: Integers) -> Floats:
        found: Floats = np.mean([share(weights) for share in shares], axis=0)
        return found

    return statistic


def call_statistics(test: LabelPredictions) -> dict[str, Statistic]:
    """Figures of what films are called, and of how sure, under integer weights; of classes and grades only.

    Args:
        test: Films that have scores; at least one.
    """
    called = called_class(test)
    off = np.abs(called - test.label)
    truth = np.eye(len(test.names))[test.label]
    likeliest, confidence = test.score.argmax(axis=1), test.score.max(axis=1)
    statistics = {
        "accuracy": mean_statistic(off == 0),
        "balanced_accuracy": balanced_accuracy_statistic(test.label, called),
    }
    if test.kind == "ordered":
        statistics |= {
            "kappa": quadratic_kappa_statistic(test.label, called),
            "mae": mean_statistic(off),
            "within_one": mean_statistic(off <= 1),
        }
    right = (likeliest == test.label).astype(np.int64)
    return statistics | {
        "brier": mean_statistic(((test.score - truth) ** 2).sum(axis=1)),
        "ece": calibration_error_statistic(right, confidence, bins_of(confidence, "width")),
    }


def describe_gaps(metrics: LabelMetrics) -> Sequence[str]:
    """What a reader must know before anything else: what the test films lack."""
    lines = []
    for question in metrics.questions:
        if not question.test.films:
            lines.append(f"There is no test film of which “{question.name}” is known: nothing of it can be measured.")
        elif not question.test.positives:
            lines.append(f"The test set has no film of “{question.name}”: what needs one is not given for it.")
        elif not question.test.negatives:
            lines.append(f"All test films are of “{question.name}”: what needs others is not given for it.")
    if few := [question.name for question in metrics.questions if question.few and question.test.positives]:
        lines.append(
            f"Fewer than {FEW} test films with or without “{'”, “'.join(few)}”: hardly more than an anecdote (†)."
        )
    return lines


def describe_giveaways(metrics: LabelMetrics) -> Sequence[str]:
    """Say of which classes or labels the share of cells seen alone tells something: there the mask may tell them."""
    told = []
    for question in metrics.questions:
        rate = question.test.figures["keep_rate_auroc"]
        if rate.low is not None and rate.high is not None and not rate.low <= 0.5 <= rate.high:
            told.append(f"{question.name} (AUROC {rate.value:.3f}, {rate.low:.3f} to {rate.high:.3f})")
    if not told:
        return []
    return [f"The share of cells seen is itself related to {', '.join(told)}: the mask may give the answer away."]
