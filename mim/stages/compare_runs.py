"""Two runs on the same test films: `evaluate.py RUN_A RUN_B`."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import PairedDifference, Section, Table, comparison_section
from mim.evaluation.page import write_page
from mim.files import write_atomically
from mim.stages.common import logger, require_writable, write_lines, writing
from mim.stages.compare_labels import compare_labels
from mim.stages.compare_masks import compare_masks
from mim.stages.comparisons import Compare, Side, compare_boxes, compare_scores, settings_of
from mim.stages.measured_run import STORING, FinishedRun, Measure

COMPARISONS: Mapping[str, Compare] = MappingProxyType(
    {"classify": compare_scores, "study": compare_scores, "detect": compare_boxes, "segment": compare_masks}
)
SUMMARY = MappingProxyType(
    {
        "auroc": "AUC",
        "auprc": "AUPRC",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "ap50": "AP50",
        "ap": "AP",
        "froc": "FROC score",
        "lesion_sensitivity": "sensitivity for lesions",
        "dice": "Dice, mean over films",
        "surface": "normalised surface distance, mean over films",
        "lesion_dice": "Dice, mean over lesions",
        "lesions_found": "the share of lesions found",
    }
)
COLUMNS = ("figure", "first", "second", "difference", "low", "high", "p", "reason")


def compare_runs(config: EvaluateConfig, measure: Measure) -> Path:
    """Compares two runs; each is evaluated first where it has not been.

    Args:
        config: `run`, `second_run` and `output` say what and where; the rest is as in an evaluation.
        measure: evaluates one run.

    Returns:
        The folder with report.html, metrics.json, comparison.csv and the tables of both.

    Raises:
        MimError: a run is missing or not finished, the runs are of other films, classes or tasks, or the folder is
            that of a run, in one line.
    """
    if not config.run:
        raise MimError("which runs? give two folders of finetune.py: evaluate.py runs/<one> runs/<other>")
    paths = Path(config.run), Path(str(config.second_run))
    runs = FinishedRun.read(paths[0]), FinishedRun.read(paths[1])
    output = Path(config.output) if config.output else beside(*paths)
    require_free(output)
    require_writable(output)
    for run in runs:  # whatever else differs, no other pair of such runs would do
        if run.settings.task not in COMPARISONS:
            raise MimError(
                f"{run.path}: runs with task={run.settings.task} cannot be compared; give runs with task="
                + " or ".join(COMPARISONS)
            )
    require_comparable(*runs)
    compare = COMPARISONS[runs[0].settings.task] if runs[0].labels == "two" else compare_labels
    compared = compare(runs, config, measure)
    first, second = compared.sides
    warnings = [*compared.notes, *describe_films(first, second)]
    names = call_them(*paths)
    made = f"Measured on {compared.counted}; intervals come from {config.bootstrap} resamples of the patients."
    section = comparison_section(compared.found, names, settings_of(config), compared.titles)
    section = replace(section, text=(made, *section.text))
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "comparison.csv", to_csv(compared.found))
        compared.save(output, section, warnings)
        title = f"Comparison of two runs: {second.header['target']}"
        write_page(output / "report.html", title, [section, about_both((first, second), names)], warnings)
    for warning in warnings:
        logger.warning("%s", warning)
    write_lines(
        f"{names[1]} less {names[0]}: {compared.counted}",
        *summarise(compared.found, config.confidence, {**SUMMARY, **compared.summary}),
        f"report: {output / 'report.html'}",
    )
    return output


def require_free(output: Path) -> None:
    """Refuses a folder whose files another report would replace.

    Raises:
        MimError: it is that of a run.
    """
    if (output / "config.yaml").exists():
        raise MimError(f"{output}: is a run, whose report this would replace; give output=another folder")


def require_comparable(first: FinishedRun, second: FinishedRun) -> None:
    """Refuses runs that do not answer the same question about the same films.

    Raises:
        MimError: naming what differs and the way out.
    """
    if first.path.resolve() == second.path.resolve():
        raise MimError(f"{second.path}: a run cannot be compared with itself; give two runs")
    if first.settings.task != second.settings.task:
        raise MimError(
            f"{second.path}: was trained with task={second.settings.task}, {first.path} with "
            f"task={first.settings.task}; give two runs of the same task"
        )
    asked = [(run.settings.data.target, run.description.classes) for run in (first, second)]
    if asked[0] != asked[1]:
        marked = "pixels" if first.settings.task == "segment" else "boxes"
        one, other = (f"{target or marked} ({', '.join(classes)})" for target, classes in asked)
        raise MimError(
            f"{second.path}: its classes are of {other}, those of {first.path} of {one}; give two runs of one target"
        )
    if first.labels != second.labels:
        raise MimError(
            f"{second.path}: was trained with data.label_kind={second.settings.data.label_kind}, {first.path} with "
            f"data.label_kind={first.settings.data.label_kind}; give two runs of the same"
        )
    films, others = first.split("test"), second.split("test")
    if films == others:
        return
    images = {film[0] for film in films}, {film[0] for film in others}
    if images[0] == images[1]:
        raise MimError(
            f"{second.path}: {len(others - films)} of its {len(others)} test films have another patient or label than "
            f"in {first.path}; train and evaluate both on the same labels"
        )
    raise MimError(
        f"{second.path}: is of another split than {first.path}: {len(images[0] & images[1])} test films are in both, "
        f"{len(images[0] ^ images[1])} in one of them only; give two runs with the same data.path, data.labels, "
        "data.split_seed and fractions"
    )


def describe_films(first: Side, second: Side) -> Iterator[str]:
    """What a reader must know about films that are not quite the same.

    Raises:
        MimError: films of the same names hold other pixels.
    """
    for one in (first, second):
        if not one.whole:
            yield f"{one.run.path.name}: some have no score; only what both runs could score is compared."
    if first.header["data"] == second.header["data"]:
        return
    if first.run.split("val") != second.run.split("val"):
        yield "The validation films differ: each threshold is chosen on other films."
        return
    stored = [one.run.settings.data for one in (first, second)]
    other = [
        f"data.{key} {getattr(stored[0], key)} and {getattr(stored[1], key)}"
        for key in STORING
        if getattr(stored[0], key) != getattr(stored[1], key)
    ]
    if other:
        yield f"The films were not stored alike ({', '.join(other)}): the difference is also one of what was seen."
    elif first.whole and second.whole:
        raise MimError(
            f"{second.run.path}: its films have the names of those of {first.run.path} and other pixels (data hashes "
            f"{second.header['data']} and {first.header['data']}); evaluate both again, on the same films"
        )


def about_both(runs: tuple[Side, Side], names: tuple[str, str]) -> Section:
    """What was compared, side by side."""
    sides: list[dict[str, str]] = []
    for one in runs:
        header = one.header
        height, width = header["image_size"]
        rows = [row for row in one.run.rows if row.split == "train"]
        sides.append(
            {
                "Target": header["target"],
                "Training films": f"{len(rows)} of {len({row.patient_id for row in rows})} patients",
                "Seed of the training": str(header["seed"]),
                "Resolution": f"{height} x {width} pixels (height x width)",
                "Data, hash": header["data"],
                "Split, hash": header["split"],
                "Checkpoint, hash": header["checkpoint"],
                "Version of mim": header["version"],
                **header["more"],
            }
        )
    titles = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows_of_both = tuple((title, *(side.get(title, "–") for side in sides)) for title in titles)
    return Section(
        name="runs", title="What was compared", tables=(Table("The two runs", ("", *names), rows_of_both),)
    )  # fmt: skip


def call_them(first: Path, second: Path) -> tuple[str, str]:
    """Names of two runs that tell them apart: that of the folder, with those above it as far as needed."""
    one, other = first.resolve().parts, second.resolve().parts
    for depth in range(1, min(len(one), len(other))):
        if one[-depth:] != other[-depth:]:
            return "/".join(one[-depth:]), "/".join(other[-depth:])
    return "first run", "second run"


def beside(first: Path, second: Path) -> Path:
    """Where a comparison goes by default: beside the second run."""
    one, other = (name.replace("/", "-") for name in call_them(first, second))
    return second.resolve().parent / f"{other}-against-{one}"


def to_csv(found: Mapping[str, PairedDifference]) -> str:
    """comparison.csv: a row a figure; what cannot be computed is empty and has a reason."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, row in found.items():
        numbers = (row.first, row.second, row.difference.value, row.difference.low, row.difference.high, row.p)
        written = ("" if number is None else json.dumps(number) for number in numbers)
        writer.writerow((name, *written, row.difference.reason or ""))
    return text.getvalue()


def summarise(found: Mapping[str, PairedDifference], confidence: float, titles: Mapping[str, str]) -> Iterator[str]:
    """The differences that a reader wants first, a line each."""
    for name, title in titles.items():
        if name not in found:
            continue
        row = found[name]
        if row.difference.value is None:
            yield f"difference of {title}: none ({row.difference.reason})"
        elif row.difference.low is None or row.p is None:
            yield f"difference of {title} {row.difference.value:+.3f} ({row.difference.reason})"
        else:
            p = "p below 0.001" if row.p < 0.001 else f"p {row.p:.3f}"
            between = f"{row.difference.low:+.3f} to {row.difference.high:+.3f}"
            yield f"difference of {title} {row.difference.value:+.3f} ({confidence * 100:g} % interval {between}, {p})"
