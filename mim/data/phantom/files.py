"""A folder of drawn films: DICOM files, labels, boxes and pixels, written whole or not at all."""

import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from mim.data.phantom.dicom import FilmIdentity, film_dataset
from mim.data.phantom.draw import draw_film
from mim.data.phantom.labels import DrawnLesion, FilmJob, run_lengths, write_labels
from mim.data.phantom.lesions import GRADES
from mim.data.phantom.settings import PhantomSettings, random_stream
from mim.errors import MimError

VERSION = 2  # raise it when what is written changes, so that an older phantom is not taken for the same
LARGEST_PATIENT = 4  # films
CARIOUS_SHARE = 0.25  # of the films of a patient with caries, where each patient has a whole series
README = """These radiographs are drawn by a program (python -m mim.data.phantom). They show no patient.

unlabelled/             films without labels
labelled/               films of other patients than those above
labelled/labels.csv     one row a film: image, patient_id, split, caries (0 or 1), grade (0 none, then {grades}:
                        the worst on the film), lesions (how many), and of the patient: age and snacks (sweet ones
                        a day, some not known), which are higher where the patient has caries on any film, and site
                        and shoe_size, which are noise
labelled/lesions.coco.json  boxes (x, y, width, height) and pixels (uncompressed run lengths) of every lesion
phantom.json            the settings they were drawn with

{studies}They are for trying out and testing software. Nothing measured on them says anything about patients.
"""
STUDIES = """Each patient has one study of {} to {} films, in the order of their Instance Numbers. Not every film of a
patient with caries shows it.

"""


@dataclass(frozen=True)
class PhantomSummary:
    """What was written, or found."""

    output: Path
    films: int
    kept: bool  # True where the same phantom stood there already


def write_phantom(
    output: Path | str,
    settings: PhantomSettings | None = None,
    *,
    unlabelled: int = 800,
    labelled: int = 400,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
    films_per_study: tuple[int, int] | None = None,
) -> PhantomSummary:
    """Write a set of drawn films; the same arguments give the same bytes, whatever the number of workers.

    Args:
        output: Folder to write; it appears when it is complete.
        settings: Size, look and difficulty; None takes the defaults.
        unlabelled: Films without labels.
        labelled: Films with labels, of other patients.
        seed: Seed of everything drawn.
        workers: Processes that draw.
        progress: Show a progress bar.
        films_per_study: Fewest and most films of a patient, all of one study and in order. Studies are whole, so there
            may be some films more than asked for. `caries_fraction` is then the share of the patients with caries, of
            whose films one at random and about a quarter of the others show it. None = one to four films a patient,
            each with caries or without.

    Raises:
        MimError: The folder holds something else, or a number is out of range.
    """
    output, settings = Path(output), settings or PhantomSettings()
    if unlabelled < 0 or labelled < 0 or unlabelled + labelled == 0 or seed < 0 or workers < 1:
        raise MimError("phantom: unlabelled, labelled and seed must not be negative, workers and films at least 1")
    if films_per_study is not None and not 1 <= films_per_study[0] <= films_per_study[1]:
        raise MimError("phantom: films_per_study must be two numbers of films, at least 1, the smaller first")
    plan = partial(plan_films, seed=seed, films_per_study=films_per_study, settings=settings)
    jobs = plan("unlabelled", unlabelled, first_patient=1)
    labelled_jobs = plan(
        "labelled", labelled, first_patient=jobs[-1].identity.patient + 1 if jobs else 1, first_number=len(jobs)
    )
    films = len(jobs) + len(labelled_jobs)
    recipe = {
        "phantom": VERSION,
        "seed": seed,
        "unlabelled": unlabelled,
        "labelled": labelled,
        "films_per_study": None if films_per_study is None else list(films_per_study),
        **asdict(settings),
    }
    if already_there(output, recipe):
        return PhantomSummary(output, films, kept=True)
    with written_beside(output) as folder:
        drawn = draw_all(jobs + labelled_jobs, folder, settings, workers, progress)
        write_labels(folder / "labelled", labelled_jobs, drawn[len(jobs) :], settings, seed)
        (folder / "README.txt").write_text(
            README.format(
                grades=", ".join(f"{i + 1} {name}" for i, name in enumerate(GRADES)),
                studies="" if films_per_study is None else STUDIES.format(*films_per_study),
            )
        )
        (folder / "phantom.json").write_text(json.dumps(recipe, indent=2) + "\n")
    return PhantomSummary(output, films, kept=False)


def already_there(output: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether the output holds this very phantom; refuse whatever else is there."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    note = output / "phantom.json"
    if not note.is_file():
        raise MimError(f"{output}: holds something that is not a phantom; give --output another folder")
    try:
        found = json.loads(note.read_text())
    except ValueError as error:
        raise MimError(f"{note}: cannot be read ({error}); delete the folder or give --output another one") from error
    if found == recipe:
        return True
    if isinstance(found, dict) and found.get("phantom") != recipe["phantom"]:
        raise MimError(
            f"{output}: holds a phantom of another version of mim; delete the folder or give --output another one"
        )
    differing = sorted(key for key in recipe if not isinstance(found, dict) or found.get(key) != recipe[key])
    raise MimError(
        f"{output}: holds a phantom with other settings ({', '.join(differing)}); give --output another folder"
    )


@contextmanager
def written_beside(output: Path) -> Iterator[Path]:
    """Give a folder beside the output that takes its place when all went well, and goes when not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        for name in ("unlabelled", "labelled"):
            (folder / name).mkdir()
        yield folder
        folder.chmod(0o755)
        folder.replace(output)
    except OSError as error:
        raise MimError(f"{output}: cannot be written ({error.strerror}); give --output another folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def plan_films(
    folder: str,
    films: int,
    *,
    seed: int,
    first_patient: int,
    settings: PhantomSettings,
    films_per_study: tuple[int, int] | None = None,
    first_number: int = 0,
) -> list[FilmJob]:
    """Give each patient films, one to four or a whole study, until there are enough."""
    jobs: list[FilmJob] = []
    low, high = films_per_study or (1, LARGEST_PATIENT)
    patient = first_patient
    while len(jobs) < films:
        count = int(random_stream(seed, patient, 6).integers(low, high + 1))
        if films_per_study is None:
            fractions: list[float | None] = [None] * min(count, films - len(jobs))
        else:
            fractions = study_fractions(settings, seed, patient, count)
        for film, fraction in enumerate(fractions):
            number = first_number + len(jobs)
            path = f"{folder}/film-{number + 1:06d}.dcm"
            jobs.append(FilmJob(FilmIdentity(seed, patient, film, number), path, fraction))
        patient += 1
    return jobs


def study_fractions(settings: PhantomSettings, seed: int, patient: int, films: int) -> list[float | None]:
    """Chance of caries for each film of a study: none, or where the patient has caries one film for certain."""
    rng = random_stream(seed, patient, 8)
    if rng.random() >= settings.caries_fraction:
        return [0.0] * films
    certain = int(rng.integers(films))
    return [1.0 if film == certain else CARIOUS_SHARE for film in range(films)]


def draw_all(
    jobs: Sequence[FilmJob], folder: Path, settings: PhantomSettings, workers: int, progress: bool
) -> list[tuple[DrawnLesion, ...]]:
    """Draw and save every film; give its lesions in the order of the jobs."""
    work = partial(draw_and_save, folder=folder, settings=settings)
    bar = partial(tqdm, total=len(jobs), desc="drawing", unit="film", disable=not progress)
    if workers == 1:
        return list(bar(map(work, jobs)))
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(bar(pool.map(work, jobs, chunksize=4)))


def draw_and_save(job: FilmJob, folder: Path, settings: PhantomSettings) -> tuple[DrawnLesion, ...]:
    """Draw one film, save it, and give its lesions."""
    if job.caries_fraction is not None:
        settings = replace(settings, caries_fraction=job.caries_fraction)
    drawn = draw_film(settings, job.identity.seed, job.identity.patient, job.identity.film)
    film_dataset(drawn.pixels, job.identity, settings.pixel_mm).save_as(folder / job.path, enforce_file_format=True)
    return tuple(
        DrawnLesion(lesion.kind, lesion.grade, lesion.box, run_lengths(lesion.mask), int(lesion.mask.sum()))
        for lesion in drawn.lesions
    )
