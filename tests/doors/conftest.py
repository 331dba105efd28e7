import csv
from pathlib import Path

import pytest
from door_calls import TINY, succeed

from mim.data.phantom.__main__ import main as draw_phantom


@pytest.fixture(autouse=True)
def _work_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a door writes by default goes under the folder it was started in: not into the project."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films as DICOM: `unlabelled`, and `labelled` with labels.csv."""
    folder = tmp_path_factory.mktemp("doors") / "phantom"
    counts = ["--unlabelled", "12", "--labelled", "40", "--height", "96", "--width", "128", "--workers", "1"]
    assert draw_phantom(["--output", str(folder), *counts]) == 0
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where films are prepared: once for all tests."""
    return f"data.cache={tmp_path_factory.mktemp('prepared')}"


@pytest.fixture(scope="session")
def unlabelled(phantom: Path, cache: str) -> tuple[str, ...]:
    """Settings of a brief pretraining."""
    return (*TINY, cache, f"data.path={phantom / 'unlabelled'}")


@pytest.fixture(scope="session")
def labelled(phantom: Path, cache: str) -> tuple[str, ...]:
    """Settings that name labelled films."""
    return (cache, f"data.path={phantom / 'labelled'}", "data.labels=labels.csv", "data.target=caries")


@pytest.fixture(scope="session")
def boxed(phantom: Path, cache: str) -> tuple[str, ...]:
    """Settings that name the same films with the boxes of their lesions."""
    return (cache, f"data.path={phantom / 'labelled'}", "data.labels=labels.csv", "data.boxes=lesions.coco.json")


@pytest.fixture(scope="session")
def studies(phantom: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name the same films, with a label and a split for each patient: his films are one study."""
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        films = [(row["image"], row["patient_id"]) for row in csv.DictReader(file)]
    patients = sorted({patient for _, patient in films})
    table = tmp_path_factory.mktemp("studies") / "studies.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "patient_id", "split", "sick", "age", "site"))
        for image, patient in films:
            place = patients.index(patient)
            split = ("train", "train", "val", "test")[place // 2 % 4]
            writer.writerow((image, patient, split, place % 2, 20 + 7 * place % 50, f"clinic {place % 3}"))
    return (cache, f"data.path={phantom / 'labelled'}", f"data.labels={table}", "data.target=sick")


@pytest.fixture(scope="session")
def graded(phantom: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name the same films with a grade each, all grades in all splits."""
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        films = [(row["image"], row["patient_id"]) for row in csv.DictReader(file)]
    patients = sorted({patient for _, patient in films})
    table = tmp_path_factory.mktemp("grades") / "grades.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "patient_id", "split", "grade"))
        for number, (image, patient) in enumerate(films):
            split = ("train", "train", "val", "test")[patients.index(patient) % 4]
            writer.writerow((image, patient, split, number % 3))
    return (cache, f"data.path={phantom / 'labelled'}", f"data.labels={table}", "data.target=grade")


@pytest.fixture(scope="session")
def pretrained(unlabelled: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of train.py."""
    folder = tmp_path_factory.mktemp("doors") / "pretrained"
    succeed("train", *unlabelled, f"output={folder}")
    return folder


@pytest.fixture(scope="session")
def panoramics(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty real panoramics: `images`, and beside it labels.csv with both classes of `restoration` in each split."""
    source = shared_data / "panoramic"
    folder = tmp_path_factory.mktemp("doors") / "panoramic"
    (folder / "images").mkdir(parents=True)
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = []
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for restoration in "01":
            fitting = [row for row in rows if (row["split"], row["restoration"]) == (split, restoration)]
            chosen += fitting[:count]
    for row in chosen:
        (folder / row["image"]).symlink_to(source / row["image"])
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return folder
