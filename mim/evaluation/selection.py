"""What a selection of features came to: a table, figures with intervals, and a drawing.

Keys of `selection.json`: `schema_version`; `header`; `rows`, `patients`, `positives`; `features`; `selections`, how
many training sets there were; `stability` and `stability_l1` (`value`, `low`, `high`, `reason`); `selected`, the mean
number of features kept, and `selected_l1`; `auroc` by model (`masker`, `all`, `l1`: `value`, `low`, `high`) and
`auroc_difference`, the masker less each peer; `settings`; `warnings`.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing

from mim.errors import MimError
from mim.evaluation.bootstrap import auroc_statistic, percentile_interval, resample_patients
from mim.evaluation.comparison import paired_difference
from mim.evaluation.stability import Stability, selection_stability
from mim.files import write_atomically

SCHEMA_VERSION = 1
COLUMNS = ("feature", "frequency", "chance", "weight", "frequency_l1", "missing")
TITLES: Mapping[str, str] = {"masker": "feature masker", "all": "all features, L2", "l1": "L1"}
SHOWN = 30
EXCELLENT, POOR = 0.75, 0.4
"""Stability above and below which Nogueira et al. speak of excellent and of poor agreement beyond chance."""


@dataclass(frozen=True)
class Interval:
    """A value with its interval over resamples of patients."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Selection:
    """Features and how they were chosen; arrays of F features.

    Attributes:
        names: of the features.
        frequency: share of the training sets on which the masker kept each.
        chance: mean chance of its gate to be open.
        weight: mean weight in the linear head, in units of the feature's deviation; 0 where it was not kept.
        frequency_l1: share of the training sets on which L1 left it a weight.
        missing: share of the rows in which it is missing.
        figures: what goes into `selection.json`.
    """

    names: tuple[str, ...]
    frequency: npt.NDArray[np.float64]
    chance: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    frequency_l1: npt.NDArray[np.float64]
    missing: npt.NDArray[np.float64]
    figures: Mapping[str, Any]

    def order(self) -> npt.NDArray[np.int64]:
        """Places of the features, the most often selected first, then by the chance of their gates."""
        return np.lexsort((np.arange(len(self.names)), -self.chance, -self.frequency))

    def save(self, folder: Path) -> None:
        """Writes features.csv, selection.json and selection.svg."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for place in self.order():
            numbers = (getattr(self, name)[place] for name in COLUMNS[1:])
            writer.writerow((self.names[place], *(f"{number:.6g}" for number in numbers)))
        write_atomically(folder / "features.csv", text.getvalue())
        content = json.dumps(self.figures, indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(folder / "selection.json", content + "\n")
        write_atomically(folder / "selection.svg", selection_plot(self))


def measure_selection(
    names: Sequence[str],
    values: npt.NDArray[np.float32],
    label: npt.NDArray[np.int64],
    patient: Sequence[str],
    selected: npt.NDArray[np.bool_],
    chance: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    lasso: npt.NDArray[np.bool_],
    score: Mapping[str, npt.NDArray[np.float64]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    header: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Selection:
    """Puts figures and intervals to what came of M training sets.

    Args:
        names: F names.
        values: (N, F), NaN where missing.
        label: (N,) of 0 and 1.
        patient: N names, one a row.
        selected: (M, F) what the masker kept.
        chance: (M, F) chance of an open gate.
        weight: (M, F) weights of the linear head.
        lasso: (M, F) what L1 kept.
        score: by model `masker`, `all` and `l1`: (N,) scores of rows whose patient the model never met.
        resamples: resamples of patients.
        confidence: level of the intervals.
        seed: what the resamples follow from.
        header: what the figures belong to.
        settings: how they were made.
    """
    if set(score) != set(TITLES):
        raise MimError(f"selection: scores of {', '.join(sorted(score))}; expected {', '.join(TITLES)}")
    auroc = _aurocs(label, patient, score, resamples, confidence, seed)
    differences = _differences(label, patient, score, resamples, confidence, seed)
    stability, stability_l1 = (selection_stability(table, confidence) for table in (selected, lasso))
    figures = {
        "schema_version": SCHEMA_VERSION,
        "header": dict(header),
        "rows": len(label),
        "patients": len(set(patient)),
        "positives": int(label.sum()),
        "features": len(names),
        "selections": len(selected),
        "stability": asdict(stability),
        "stability_l1": asdict(stability_l1),
        "selected": float(selected.sum(axis=1).mean()),
        "selected_l1": float(lasso.sum(axis=1).mean()),
        "auroc": {name: asdict(own) for name, own in auroc.items()},
        "auroc_difference": {name: asdict(own) for name, own in differences.items()},
        "settings": dict(settings),
        "warnings": list(_doubts(stability, auroc["masker"], differences)),
    }
    return Selection(
        tuple(names),
        selected.mean(axis=0),
        chance.mean(axis=0),
        weight.mean(axis=0),
        lasso.mean(axis=0),
        np.isnan(values).mean(axis=0),
        figures,
    )


def _aurocs(
    label: npt.NDArray[np.int64],
    patient: Sequence[str],
    score: Mapping[str, npt.NDArray[np.float64]],
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """AUROC of each model."""
    statistics = {name: auroc_statistic(label, own) for name, own in score.items()}
    resampled = resample_patients(label, patient, statistics, resamples=resamples, seed=seed)
    whole = np.ones((1, len(label)), dtype=np.int64)
    found = {}
    for name in TITLES:
        low, high = percentile_interval(resampled.values[name], confidence) or (None, None)
        found[name] = Interval(float(statistics[name](whole)[0]), low, high)
    return found


def _differences(
    label: npt.NDArray[np.int64],
    patient: Sequence[str],
    score: Mapping[str, npt.NDArray[np.float64]],
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """AUROC of the masker less that of each peer."""
    differences = {}
    for name in ("all", "l1"):
        found = paired_difference(
            label, patient, score[name], score["masker"], resamples=resamples, confidence=confidence, seed=seed
        )
        differences[name] = Interval(float(found.value or 0.0), found.low, found.high)
    return differences


def _doubts(stability: Stability, auroc: Interval, differences: Mapping[str, Interval]) -> Sequence[str]:
    """What a reader must know before he believes in the list."""
    said = []
    if auroc.low is not None and auroc.low <= 0.5:
        said.append("The AUROC of the selected features is not above chance: the list says nothing.")
    if stability.value is None:
        said.append(f"The stability cannot be given: {stability.reason}.")
    elif stability.value < EXCELLENT:
        word = "poor" if stability.value < POOR else "moderate"
        said.append(
            f"The stability of the selection is {word} ({stability.value:.2f}): other patients would give another list."
        )
    for name, own in differences.items():
        if own.high is not None and own.high < 0:
            said.append(f"The selected features do worse than a logistic regression ({TITLES[name]}).")
    return said


def selection_plot(selection: Selection) -> str:
    """Draws how often features were selected, and the AUROC beside that of the peers, as SVG."""
    order = selection.order()[:SHOWN]
    places = np.arange(len(order))[::-1]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "mim", "svg.fonttype": "none", "font.size": 9.0})
        drawing = Drawing(figsize=(9, 1.6 + 0.2 * max(len(order), 8)), layout="constrained")
        FigureCanvasSVG(drawing)
        left, right = drawing.subplots(1, 2, width_ratios=(3, 2))
        left.barh(places, selection.frequency[order], color="#0b5c78", label="feature masker")
        left.plot(selection.frequency_l1[order], places, "D", color="#b34700", markersize=4, label="L1")
        left.set_yticks(places, [_short(selection.names[place]) for place in order])
        left.set(xlim=(0, 1.02), xlabel="share of the training sets on which it is selected")
        left.set_title(_stability_line(selection.figures["stability"]), fontsize=9)
        left.legend(loc="lower right")
        for place, (name, title) in enumerate(TITLES.items()):
            own = selection.figures["auroc"][name]
            right.plot(own["value"], -place, "o", color="#0b5c78")
            if own["low"] is not None:
                right.plot((own["low"], own["high"]), (-place, -place), color="#0b5c78")
            right.text(own["value"], -place + 0.12, f"{title} {own['value']:.3f}", ha="center")
        right.axvline(0.5, color="#6b6b6b", linestyle=":")
        right.set(ylim=(-2.6, 0.6), yticks=(), xlabel="AUROC, patients never met")
        file = io.StringIO()
        drawing.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue()


def _stability_line(stability: Mapping[str, Any]) -> str:
    if stability["value"] is None:
        return "no stability"
    return f"stability {stability['value']:.2f} ({stability['low']:.2f} to {stability['high']:.2f})"


def _short(name: str) -> str:
    """A name as the drawing can hold it; a dollar sign would begin a formula."""
    return (name if len(name) <= 28 else f"{name[:27]}…").replace("$", r"\$")
