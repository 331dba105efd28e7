"""Labels of drawn films: a table with a split by patient, and every lesion in COCO's form."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mim.data.phantom.clinical import CLINICAL_COLUMNS, draw_clinical
from mim.data.phantom.dicom import FilmIdentity
from mim.data.phantom.lesions import GRADES, KINDS, Kind
from mim.data.phantom.settings import PhantomSettings, random_stream

SPLITS = {"train": 0.5, "val": 0.2, "test": 0.3}


@dataclass(frozen=True)
class FilmJob:
    """One film to draw."""

    identity: FilmIdentity
    path: str  # relative to the output
    caries_fraction: float | None = None  # None = as for all films


@dataclass(frozen=True)
class DrawnLesion:
    """One lesion as it goes to COCO."""

    kind: Kind
    grade: str
    box: tuple[int, int, int, int]
    counts: tuple[int, ...]  # run lengths of its mask
    area: int


def run_lengths(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Give COCO's uncompressed run lengths: column by column, beginning with the zeros."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return tuple(int(count) for count in (counts if counts[-1] else counts[:-1]))


def split_patients(jobs: Sequence[FilmJob], drawn: Sequence[tuple[DrawnLesion, ...]], seed: int) -> dict[int, str]:
    """Share the patients out over the splits, those with caries and those without apart, largest need first."""
    films: dict[int, list[bool]] = {}
    for job, lesions in zip(jobs, drawn, strict=True):
        films.setdefault(job.identity.patient, []).append(bool(lesions))
    order = random_stream(seed, 7).permutation(sorted(films))
    taken = {name: np.zeros(2) for name in SPLITS}
    splits = {}
    for patient in order:
        size = np.array([films[patient].count(False), films[patient].count(True)], float)
        need = {name: float((size * taken[name]).sum() / (size.sum() * share)) for name, share in SPLITS.items()}
        splits[int(patient)] = name = min(need, key=lambda key: need[key])
        taken[name] += size
    return splits


def write_labels(
    folder: Path,
    jobs: Sequence[FilmJob],
    drawn: Sequence[tuple[DrawnLesion, ...]],
    settings: PhantomSettings,
    seed: int,
) -> None:
    """Write labels.csv and lesions.coco.json."""
    splits = split_patients(jobs, drawn, seed)
    carious: dict[int, bool] = {}
    for job, lesions in zip(jobs, drawn, strict=True):
        carious[job.identity.patient] = carious.get(job.identity.patient, False) or bool(lesions)
    clinical = draw_clinical(carious, seed)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "patient_id", "split", "caries", "grade", "lesions", *CLINICAL_COLUMNS])
        for job, lesions in zip(jobs, drawn, strict=True):
            grade = max((GRADES.index(lesion.grade) + 1 for lesion in lesions), default=0)
            patient = job.identity
            table.writerow(
                [
                    Path(job.path).name,
                    patient.patient_id,
                    splits[patient.patient],
                    int(bool(lesions)),
                    grade,
                    len(lesions),
                    *clinical[patient.patient].cells,
                ]
            )
    (folder / "lesions.coco.json").write_text(json.dumps(coco(jobs, drawn, settings)) + "\n")


def coco(
    jobs: Sequence[FilmJob], drawn: Sequence[tuple[DrawnLesion, ...]], settings: PhantomSettings
) -> dict[str, Any]:
    """Give all lesions in COCO's form."""
    size = {"height": settings.height, "width": settings.width}
    images = [{"id": number + 1, "file_name": Path(job.path).name, **size} for number, job in enumerate(jobs)]
    annotations: list[dict[str, Any]] = []
    for number, lesions in enumerate(drawn):
        for lesion in lesions:
            x0, y0, x1, y1 = lesion.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": KINDS.index(lesion.kind) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": lesion.area,
                    "segmentation": {"size": [settings.height, settings.width], "counts": list(lesion.counts)},
                    "iscrowd": 0,
                    "attributes": {"grade": lesion.grade},
                }
            )
    categories = [{"id": i + 1, "name": f"{kind} caries", "supercategory": "caries"} for i, kind in enumerate(KINDS)]
    info = {"description": "drawn by a program, not patients"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
