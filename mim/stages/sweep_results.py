"""What a sweep writes: a row a run, a row a point, a plot and a page."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mim.evaluation import Section, Settings, Table
from mim.evaluation.curve_figures import CurveFigure
from mim.evaluation.label_efficiency import Point, Trial, measure_label_efficiency
from mim.evaluation.label_efficiency_plot import efficiency_file, efficiency_picture
from mim.evaluation.label_efficiency_section import label_efficiency_section
from mim.evaluation.page import write_page
from mim.files import write_atomically
from mim.stages.sweep_curves import Curve, Swept
from mim.stages.sweep_plan import SCRATCH, PlannedRun, SweepRequest

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class SweptRun:
    """What became of a run: what was measured, or the reason why there are none; neither = it was not begun yet."""

    planned: PlannedRun
    measured: Swept | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        """`done`, `failed` or `waiting`."""
        return "done" if self.measured else "failed" if self.reason else "waiting"


def write_runs(request: SweepRequest, curve: Curve, swept: Sequence[SweptRun]) -> None:
    """Writes sweep.csv, a row a run."""
    rows = [run_row(request, curve, run) for run in swept]
    write_atomically(request.output / "sweep.csv", to_csv(tuple(rows[0]), (list(row.values()) for row in rows)))


def write_results(request: SweepRequest, curve: Curve, swept: Sequence[SweptRun]) -> list[str]:
    """Writes everything about the runs that are done, of which there must be one.

    Returns:
        Lines for the reader.
    """
    settings = Settings(request.bootstrap, request.confidence)
    inits = list(dict.fromkeys(run.planned.init for run in swept))
    baseline = SCRATCH if SCRATCH in inits and len(inits) > 1 else None
    done = [(run.planned, run.measured) for run in swept if run.measured is not None]
    trials = [Trial(run.init, run.fraction, run.seed, count_labels(own)[0], curve.on_test(own)) for run, own in done]
    found = measure_label_efficiency(trials, inits, settings, baseline=baseline)
    section = label_efficiency_section(found, settings, baseline)
    warnings = [*doubts(swept, done)]
    content = {
        "schema_version": SCHEMA_VERSION,
        "header": {key: done[0][1].header[key] for key in ("target", "data", "version")},
        "settings": {"bootstrap": request.bootstrap, "confidence": request.confidence, "seed": settings.seed},
        "runs": [run_row(request, curve, run) for run in swept],
        **section.figures,
        "warnings": warnings,
    }
    output = request.output
    write_atomically(output / "sweep.json", json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    points = [point_row(point, found.figure) for point in found.points]
    csv_rows = (list(point.values()) for point in points)
    write_atomically(output / "label_efficiency.csv", to_csv(tuple(points[0]), csv_rows))
    for plot in section.plots:
        write_atomically(output / "label_efficiency.svg", efficiency_file(found, plot.caption))
        write_atomically(output / "label_efficiency.png", efficiency_picture(found))
    sections = [section, runs_section(request, curve, swept)]
    write_page(output / "report.html", f"Label efficiency: {content['header']['target']}", sections, warnings)
    return [*(f"warning: {line}" for line in warnings), *section.summary, f"report: {output / 'report.html'}"]


def run_row(request: SweepRequest, curve: Curve, run: SweptRun) -> dict[str, Any]:
    """One run, a row of sweep.csv; what is not known is null."""
    planned = run.planned
    columns = ("init", "fraction", "seed", "state", "labels", "patients", *curve.columns, "run", "reason")
    row: dict[str, Any] = dict.fromkeys(columns)
    row |= {"init": planned.init, "fraction": planned.fraction, "seed": planned.seed, "state": run.state}
    row |= {"run": planned.folder.relative_to(request.output).as_posix(), "reason": run.reason}
    if run.measured is not None:
        row["labels"], row["patients"] = count_labels(run.measured)
        row |= curve.figures(json.loads((planned.folder / "metrics.json").read_text(encoding="utf-8")))
    return row


def count_labels(measured: Swept) -> tuple[int, int]:
    """Labelled films that a run was trained on, and of how many patients."""
    training = [row for row in measured.run.rows if row.split == "train"]
    return len(training), len({row.patient_id for row in training})


def point_row(point: Point, figure: CurveFigure) -> dict[str, Any]:
    """A point, a row of label_efficiency.csv."""
    less = point.difference
    return {
        "init": point.init,
        "fraction": point.fraction,
        "labels": point.labels,
        "seeds": len(point.seeds),
        figure.name: point.mean.value,
        "low": point.mean.low,
        "high": point.mean.high,
        "difference": less and less.value,
        "difference_low": less and less.low,
        "difference_high": less and less.high,
        "difference_seeds": less and less.seeds,
    }


def doubts(swept: Sequence[SweptRun], done: Sequence[tuple[PlannedRun, Swept]]) -> Iterator[str]:
    """What a reader must know before he believes in the curve."""
    if failed := sum(run.state == "failed" for run in swept):
        yield f"{failed} of {len(swept)} runs failed and are not in the figures; the table of runs says why."
    if len({own.header["data"] for _, own in done}) > 1:
        yield "The runs were not all measured on the same pixels: films changed, or were stored anew, in between."
    for init in dict.fromkeys(planned.init for planned, _ in done):
        met = max(own.run.description.met_in_pretraining for planned, own in done if planned.init == init)
        if met:
            yield f"{init}: {met} test films, or others of their patients, were met in pretraining (without labels)."
    networks: dict[str, str] = {}
    for planned, own in done:
        spec = own.run.description.encoder
        networks[planned.init] = (
            f"{spec.name}, hidden {spec.hidden}, {spec.image_size[0]} x {spec.image_size[1]} pixels"
        )
    if len(set(networks.values())) > 1:
        each = "; ".join(f"{init}: {network}" for init, network in networks.items())
        yield f"Not all start with the same network, so differences are not of the weights alone ({each})."


def runs_section(request: SweepRequest, curve: Curve, swept: Sequence[SweptRun]) -> Section:
    """All runs, for the page."""
    figure = curve.figure
    rows = []
    for run in swept:
        row = run_row(request, curve, run)
        value = "–" if row[figure.name] is None else f"{row[figure.name]:.3f}"
        labels = "–" if row["labels"] is None else str(row["labels"])
        said = run.state if run.reason is None else f"{run.state} (sweep.csv says why)"  # reasons name paths
        rows.append((run.planned.init, f"{run.planned.fraction:g}", str(run.planned.seed), labels, value, said))
    columns = ("started from", "share of the labels", "seed", "labelled films", figure.title, "state")
    return Section(name="runs", title="The runs", tables=(Table("Every run of the sweep", columns, tuple(rows)),))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; null is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
