"""What a sweep writes: a row a run, a row a point, a plot and a page."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mim.evaluation import Section, Settings, Table
from mim.evaluation.label_efficiency import Trial, measure_label_efficiency
from mim.evaluation.label_efficiency_plot import efficiency_file, efficiency_picture
from mim.evaluation.label_efficiency_section import label_efficiency_section, point_figures
from mim.evaluation.page import write_page
from mim.files import write_atomically
from mim.stages.measured_run import MeasuredRun
from mim.stages.sweep_plan import SCRATCH, PlannedRun, SweepRequest

SCHEMA_VERSION = 1
FIGURES = ("auroc", "auprc", "sensitivity", "specificity", "brier")
RUN_COLUMNS = ("init", "fraction", "seed", "state", "labels", "patients", *FIGURES, "run", "reason")
POINT_COLUMNS = (
    "init", "fraction", "labels", "seeds", "auroc", "low", "high",
    "difference", "difference_low", "difference_high", "difference_seeds",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SweptRun:
    """What became of a run: its predictions, or the reason why there are none; neither = it was not begun yet."""

    planned: PlannedRun
    measured: MeasuredRun | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        """`done`, `failed` or `waiting`."""
        return "done" if self.measured else "failed" if self.reason else "waiting"


def write_runs(request: SweepRequest, swept: Sequence[SweptRun]) -> None:
    """Writes sweep.csv, a row a run."""
    rows = ([row[column] for column in RUN_COLUMNS] for row in (run_row(request, run) for run in swept))
    write_atomically(request.output / "sweep.csv", to_csv(RUN_COLUMNS, rows))


def write_results(request: SweepRequest, swept: Sequence[SweptRun]) -> list[str]:
    """Writes everything about the runs that are done, of which there must be one.

    Returns:
        Lines for the reader.
    """
    settings = Settings(request.bootstrap, request.confidence)
    inits = list(dict.fromkeys(run.planned.init for run in swept))
    baseline = SCRATCH if SCRATCH in inits and len(inits) > 1 else None
    done = [(run.planned, run.measured) for run in swept if run.measured is not None]
    trials = [Trial(run.init, run.fraction, run.seed, count_labels(own)[0], own.predictions) for run, own in done]
    found = measure_label_efficiency(trials, inits, settings, baseline=baseline)
    section = label_efficiency_section(found, settings, baseline)
    warnings = [*doubts(swept, done)]
    content = {
        "schema_version": SCHEMA_VERSION,
        "header": {key: done[0][1].header[key] for key in ("target", "data", "version")},
        "settings": {"bootstrap": request.bootstrap, "confidence": request.confidence, "seed": settings.seed},
        "runs": [run_row(request, run) for run in swept],
        **section.figures,
        "warnings": warnings,
    }
    output = request.output
    write_atomically(output / "sweep.json", json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    points = [point_figures(point) for point in found.points]
    write_atomically(output / "label_efficiency.csv", to_csv(POINT_COLUMNS, map(point_row, points)))
    for plot in section.plots:
        write_atomically(output / "label_efficiency.svg", efficiency_file(found, plot.caption))
        write_atomically(output / "label_efficiency.png", efficiency_picture(found))
    sections = [section, runs_section(request, swept)]
    write_page(output / "report.html", f"Label efficiency: {content['header']['target']}", sections, warnings)
    return [*(f"warning: {line}" for line in warnings), *section.summary, f"report: {output / 'report.html'}"]


def run_row(request: SweepRequest, run: SweptRun) -> dict[str, Any]:
    """One run, by RUN_COLUMNS; what is not known is null."""
    planned = run.planned
    row: dict[str, Any] = dict.fromkeys(RUN_COLUMNS)
    row |= {"init": planned.init, "fraction": planned.fraction, "seed": planned.seed, "state": run.state}
    row |= {"run": planned.folder.relative_to(request.output).as_posix(), "reason": run.reason}
    if run.measured is not None:
        row["labels"], row["patients"] = count_labels(run.measured)
        figures = json.loads((planned.folder / "metrics.json").read_text(encoding="utf-8"))["test"]
        row |= {name: figures[name]["value"] for name in FIGURES}
    return row


def count_labels(measured: MeasuredRun) -> tuple[int, int]:
    """Labelled films that a run was trained on, and of how many patients."""
    training = [row for row in measured.run.rows if row.split == "train"]
    return len(training), len({row.patient_id for row in training})


def point_row(point: Mapping[str, Any]) -> list[Any]:
    """A point, by POINT_COLUMNS."""
    mean, less = point["auroc"], point["difference"] or dict.fromkeys(("value", "low", "high", "seeds"))
    return [
        *(point["init"], point["fraction"], point["labels"], len(point["seeds"])),
        *(mean["value"], mean["low"], mean["high"]),
        *(less["value"], less["low"], less["high"], less["seeds"]),
    ]


def doubts(swept: Sequence[SweptRun], done: Sequence[tuple[PlannedRun, MeasuredRun]]) -> Iterator[str]:
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


def runs_section(request: SweepRequest, swept: Sequence[SweptRun]) -> Section:
    """All runs, for the page."""
    rows = []
    for run in swept:
        row = run_row(request, run)
        auroc = "–" if row["auroc"] is None else f"{row['auroc']:.3f}"
        labels = "–" if row["labels"] is None else str(row["labels"])
        said = run.state if run.reason is None else f"{run.state} (sweep.csv says why)"  # reasons name paths
        rows.append((run.planned.init, f"{run.planned.fraction:g}", str(run.planned.seed), labels, auroc, said))
    columns = ("started from", "share of the labels", "seed", "labelled films", "AUROC", "state")
    return Section(name="runs", title="The runs", tables=(Table("Every run of the sweep", columns, tuple(rows)),))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; null is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
