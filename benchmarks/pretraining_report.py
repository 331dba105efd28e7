"""Tables of `benchmarks/pretraining.py`: AUROC of each arm and differences between arms, with intervals."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from mim.evaluation.bootstrap import auroc_statistic, percentile_interval, resample_patients

Floats = npt.NDArray[np.float64]
METHODS = {"knn": "k-NN", "linear": "linear probe", "finetuned": "fine-tuned"}
AT_EQUAL_FILMS = ("mim-light-decoder", "mim-published-decoder")  # they took different times to meet them
RESAMPLES = 2000
Runs = dict[str, dict[str, Any]]  # results of one arm by trial
Arms = dict[str, Runs]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, sign: str = "") -> str:
        """The figure with its bounds; `sign` is "+" for differences."""
        return f"{self.value:{sign}.3f} ({self.low:{sign}.3f} to {self.high:{sign}.3f})"


def report(output: Path) -> None:
    """Prints what is finished under a folder and writes it as compare.json."""
    content: dict[str, Any] = {}
    for folder in sorted(path for path in output.iterdir() if path.is_dir()):
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*/*.json"))]
        if results:
            content[folder.name] = one_dataset(folder.name, results)
    (output / "compare.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"{output / 'compare.json'}")


def one_dataset(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints and returns the figures of one folder of films."""
    absent = {result["arm"]: result["absent"] for result in results if "absent" in result}
    arms: Arms = {}
    for result in results:
        if "absent" not in result:
            arms.setdefault(result["arm"], {})[result["trial"]] = result
    content: dict[str, Any] = {"absent": absent, "arms": {}, "differences": {}}
    if not arms:
        return content
    first = next(iter(next(iter(arms.values())).values()))
    films = {trial: len(result["label"]) for runs in arms.values() for trial, result in runs.items()}
    print(f"\n## {name}: {first['question']}\n")
    print(f"{len(films)} runs, test films {', '.join(map(str, films.values()))}; {first['machine']}\n")
    heading = ["arm", "runs", "pretraining, s", "films met", *METHODS.values()]
    print(f"| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for arm, runs in arms.items():
        figures = {method: auroc(runs, method) for method in METHODS}
        seconds = np.mean([result.get("pretrain_seconds", 0.0) for result in runs.values()])
        met = np.mean([result.get("pretrain_films", 0) for result in runs.values()])
        cells = [arm, str(len(runs)), f"{seconds:.0f}", f"{met:.0f}", *(figure.text() for figure in figures.values())]
        print(f"| {' | '.join(cells)} |")
        content["arms"][arm] = {
            "seconds": seconds,
            "films": met,
            **{method: vars(figure) for method, figure in figures.items()},
        }
    for arm, reason in absent.items():
        print(f"| {arm} | 0 | {reason} |{' |' * (len(heading) - 3)}")
    if any(arm.startswith("mim") for arm in arms):
        print_differences(arms, content["differences"])
    return content


def print_differences(arms: Arms, content: dict[str, Any]) -> None:
    """Prints how much better each arm of mim is than each other arm, on the runs that both have."""
    print(f"\n| AUROC of | minus that of | {' | '.join(METHODS.values())} |\n|---|---|{'---|' * len(METHODS)}")
    for ours, other in compared(arms):
        figures = {method: difference(arms[other], arms[ours], method) for method in METHODS}
        shown = [figure.text("+") if figure else "no run in common" for figure in figures.values()]
        print(f"| {ours} | {other} | {' | '.join(shown)} |")
        content[f"{ours} - {other}"] = {method: vars(figure) if figure else None for method, figure in figures.items()}


def compared(arms: Iterable[str]) -> list[tuple[str, str]]:
    """Which arms are held against which: each of mim against each other at equal time, decoders at equal films."""
    at_equal_time = [arm for arm in arms if arm not in AT_EQUAL_FILMS]
    ours = [arm for arm in at_equal_time if arm.startswith("mim")]
    pairs = [(mine, other) for mine in ours for other in at_equal_time if not other.startswith("mim")]
    return [*pairs, AT_EQUAL_FILMS] if set(AT_EQUAL_FILMS) <= set(arms) else pairs


def auroc(runs: Runs, method: str) -> Interval:
    """Mean over runs of the AUROC, with an interval over patients and seeds."""
    values = [roc_auc_score(result["label"], result["scores"][method]) for result in runs.values()]
    return interval(values, {trial: resampled(result, method) for trial, result in runs.items()}, runs)


def difference(others: Runs, ours: Runs, method: str) -> Interval | None:
    """Mean over runs of the difference, each on the same resamples of patients for both; None without common runs."""
    common = {trial: result for trial, result in ours.items() if trial in others}
    if not common:
        return None
    values, draws = [], {}
    for trial, result in common.items():
        other = others[trial]
        assert other["label"] == result["label"], f"{trial}: the arms were tested on different films"
        label = result["label"]
        values.append(roc_auc_score(label, result["scores"][method]) - roc_auc_score(label, other["scores"][method]))
        draws[trial] = resampled(result, method) - resampled(other, method)
    return interval(values, draws, common)


def resampled(result: dict[str, Any], method: str) -> Floats:
    """AUROC over resamples of the patients of one run; the patients drawn are the same for all arms and methods."""
    label = np.array(result["label"])
    # folds draw from streams of their own; seeds that share their test films share the draws
    stream = sum(result["patient"])
    drawn = resample_patients(
        label,
        [str(patient) for patient in result["patient"]],
        {"auroc": auroc_statistic(label, result["scores"][method])},
        resamples=RESAMPLES,
        seed=stream,
    )
    return drawn.values["auroc"]


def interval(values: list[float], draws: dict[str, Floats], runs: Runs) -> Interval:
    """Mean with a percentile interval.

    Runs that were tested on the same films differ by their seed, which is drawn with replacement too, as in
    `mim.evaluation.difference_over_seeds`; the folds of a cross-validation are parts of one test and stay all.
    """
    count = min(len(values) for values in draws.values())  # a resample of one class is dropped
    stacked = np.stack([own[:count] for own in draws.values()])  # (runs, resamples)
    same_films = len({tuple(result["patient"]) for result in runs.values()}) == 1
    if same_films:
        drawn = np.random.default_rng(0).integers(len(stacked), size=stacked.shape)
        stacked = np.take_along_axis(stacked, drawn, axis=0)
    bounds = percentile_interval(stacked.mean(axis=0), 0.95)
    assert bounds is not None
    return Interval(float(np.mean(values)), *bounds)
