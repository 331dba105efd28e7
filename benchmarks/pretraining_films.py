"""The films of `benchmarks/pretraining.py`: who is pretrained on, who has a label, who is tested on."""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mim.data import PreparedDataset, derive_seed
from mim.errors import MimError
from mim.files import write_atomically

Row = dict[str, str]


@dataclass(frozen=True)
class Benchmark:
    """A folder of films, a question that is asked of them, and settings that the question needs.

    Attributes:
        folder: under the folder of shared data.
        question: what is told apart, for the heading.
        label: class of a row of labels.csv, 0 or 1; None = no label.
        settings: of pretraining: the size of the network's input, for all arms, and what mim rebuilds.
        tuning: of fine-tuning, for all arms.
        runs: of three seeds, the fold that is the test, or None where labels.csv has a split of its own.
        train_labels: so many films have a label, whole patients, drawn by seed; None = all that may be trained on.
    """

    folder: str
    question: str
    label: Callable[[Row], int | None]
    settings: tuple[str, ...]
    tuning: tuple[str, ...]
    runs: tuple[tuple[int, int | None], ...]
    train_labels: int | None


BENCHMARKS = {
    "chest": Benchmark(
        folder="chest",
        question="virus against bacteria, 200 labels, tested on the patients of the validation split",
        label=lambda row: {"bacteria": 0, "virus": 1}.get(row["class"]),
        settings=("input.image_size=[160,160]",),
        tuning=("training.epochs=50", "training.batch_size=32"),
        runs=((0, None), (1, None), (2, None)),
        train_labels=200,
    ),
    "panoramic": Benchmark(
        folder="panoramic",
        question="restoration, all labels of the training folds, every fold tested on once, three seeds",
        label=lambda row: int(row["restoration"]) if row["restoration"] else None,
        settings=("input.image_size=[224,224]", "target.normalize_pixels=false"),
        tuning=("training.epochs=16", "training.batch_size=16"),
        runs=((0, 0), (1, 1), (2, 2), (0, 3), (1, 4)),
        train_labels=None,
    ),
}


@dataclass(frozen=True)
class Labelled:
    """Some films: numbers in the prepared dataset, classes, and whose they are (a number a patient)."""

    index: list[int]
    label: list[int]
    patient: list[int]


@dataclass(frozen=True)
class Trial:
    """One seed and test: all arms meet the same films in it.

    Attributes:
        name: `seed-0`, or `seed-0-fold-3`.
        seed: of drawing labels, of weights and of batches.
        source: the folder of films.
        settings: of pretraining.
        tuning: settings of fine-tuning.
        exclude: CSV whose test split pretraining leaves out.
        train: films with labels.
        test: films that are measured, of patients that neither pretraining nor training meets.
    """

    name: str
    seed: int
    source: Path
    settings: tuple[str, ...]
    tuning: tuple[str, ...]
    exclude: Path
    train: Labelled
    test: Labelled


def with_labels(benchmark: Benchmark, labels: int | None) -> Benchmark:
    """The same question with so many labels; None = as many as it has."""
    if labels is None:
        return benchmark
    asked, tested = benchmark.question.split(", ")[0], benchmark.question.split(", ", 2)[2]
    return replace(benchmark, question=f"{asked}, {labels} labels, {tested}", train_labels=labels)


def find_shared_data() -> Path:
    """The folder of real X-rays.

    Raises:
        MimError: it is not there.
    """
    root = Path(os.environ.get("MIM_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not (root / "README.md").is_file():
        raise MimError(f"{root}: the real X-rays are not there; set MIM_SHARED_DATA to the folder that holds them")
    return root


def read_trials(
    benchmark: Benchmark, source: Path, films: PreparedDataset, seeds: list[int], output: Path
) -> list[Trial]:
    """Divides the films for each of the seeds asked for, and writes down who is tested on."""
    with (source / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {row.image: number for number, row in enumerate(films.rows)}
    patients = {name: number for number, name in enumerate(sorted({row["patient_id"] for row in rows}))}
    trials = []
    for seed, fold in benchmark.runs:
        if seed not in seeds:
            continue
        name = f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold}"
        test = [row["split"] == "val" if fold is None else row["fold"] == str(fold) for row in rows]
        exclude = output / name / "split.csv"
        lines = [
            f"{row['image']},{row['patient_id']},{'test' if out else 'train'}"
            for row, out in zip(rows, test, strict=True)
        ]
        exclude.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(exclude, "\n".join(["image,patient_id,split", *lines, ""]))

        def take(chosen: list[Row]) -> Labelled:
            labelled = [(row, label) for row in chosen if (label := benchmark.label(row)) is not None]
            return Labelled(
                [numbers[row["image"]] for row, _ in labelled],
                [label for _, label in labelled],
                [patients[row["patient_id"]] for row, _ in labelled],
            )

        train = take([row for row, out in zip(rows, test, strict=True) if not out])
        tested = take([row for row, out in zip(rows, test, strict=True) if out])
        drawn = train if benchmark.train_labels is None else draw_patients(train, benchmark.train_labels, seed)
        trials.append(Trial(name, seed, source, benchmark.settings, benchmark.tuning, exclude, drawn, tested))
    return trials


def draw_patients(films: Labelled, count: int, seed: int) -> Labelled:
    """Takes whole patients in an order drawn by seed, as long as they fit."""
    order = sorted(set(films.patient), key=lambda patient: derive_seed(seed, "label", patient))
    place = {patient: number for number, patient in enumerate(order)}
    kept: list[int] = []
    for patient in sorted(place, key=place.__getitem__):
        own = [number for number, whose in enumerate(films.patient) if whose == patient]
        if len(kept) + len(own) <= count:
            kept.extend(own)
        if len(kept) == count:
            break
    chosen = np.array(sorted(kept))
    return Labelled(*(np.asarray(column)[chosen].tolist() for column in (films.index, films.label, films.patient)))
