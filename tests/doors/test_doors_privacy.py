from pathlib import Path

import pydicom
import pytest
from door_calls import TINY, succeed

NAME, PATIENT, FILE_STEM = "Lovelace^Augusta", "PATIENT-4711-XYZ", "Lovelace_Augusta_18151210"
PHYSICIAN, BIRTH_DATE = "Babbage^Charles", "18151210"
HEADER = (NAME, "Lovelace", "Augusta", PATIENT, PHYSICIAN, "Babbage", BIRTH_DATE)


def plant(source: Path, target: Path, *, number: int) -> None:
    """Copies a film, with a name, an id and a date in its header."""
    dataset = pydicom.dcmread(source)
    dataset.PatientName, dataset.ReferringPhysicianName = NAME, PHYSICIAN
    dataset.PatientID = f"{PATIENT}-{number}"
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.save_as(target)


def found_in(folder: Path, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Which words stand in the names or the bytes of which files, whatever their case."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.relative_to(folder).as_posix().encode() + b"\n" + path.read_bytes()
        found += [(path.name, word) for word in words if word.lower().encode() in content.lower()]
    return found


@pytest.fixture
def films(phantom: Path, tmp_path: Path) -> Path:
    """Films that name a patient in the header and in the file's name."""
    folder = tmp_path / "films"
    (folder / "labelled").mkdir(parents=True)
    rows = (phantom / "labelled" / "labels.csv").read_text().splitlines()
    lines = [rows[0].replace("patient_id", "written_id")]
    for number, row in enumerate(rows[1:]):
        image, rest = row.split(",", 1)
        name = f"{FILE_STEM}_{number:02d}.dcm"
        patient = int(rest.split(",")[0].rpartition("-")[2])
        plant(phantom / "labelled" / image, folder / "labelled" / name, number=patient)
        lines.append(f"{name},{rest}")
    (folder / "labelled" / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labelled"


def test_nothing_of_a_header_or_a_file_name_reaches_a_run(films: Path, tmp_path: Path) -> None:
    runs, cache = tmp_path / "runs", tmp_path / "prepared"
    tracked = ("tracking.tensorboard=true", "tracking.wandb=offline", f"data.path={films}", f"data.cache={cache}")
    settings = tuple(setting for setting in TINY if not setting.startswith("tracking"))
    labels = ("data.labels=labels.csv", "data.target=caries", f"init={runs / 'pretrained'}")
    tuning = tuple(setting for setting in settings if not setting.startswith(("decoder", "encoder", "input")))
    said = [
        succeed("train", *settings, *tracked, f"output={runs / 'pretrained'}"),
        succeed("finetune", *tuning, *tracked, *labels, f"output={runs / 'finetuned'}"),
        succeed("evaluate", runs / "finetuned", "bootstrap=100"),
    ]
    assert list(runs.glob("*/wandb/offline-run-*/*.wandb"))
    names = {path.name for path in runs.glob("*/tensorboard/*")}
    assert names == {"events.out.tfevents.0000000000.mim"}, "no name of a machine in it"
    assert (runs / "finetuned" / "report.html").is_file()

    assert found_in(runs, (*HEADER, FILE_STEM)) == []
    assert found_in(films, (PATIENT,)), "what is looked for is found where it stands"
    spoken = "".join(each.out + each.err for each in said).lower()
    assert [word for word in (*HEADER, FILE_STEM) if word.lower() in spoken] == []

    outside = str(tmp_path)
    named = {name for name, _ in found_in(runs, (outside,))}
    assert named <= {"config.yaml"}, "only config.yaml may say where the films are"

    secrets = (NAME, PATIENT, PHYSICIAN, "Babbage")
    assert found_in(cache, secrets) == [], "file names may stand in the prepared dataset, headers not"
    assert {name for name, _ in found_in(cache, (FILE_STEM,))} <= {"manifest.csv", "report.json"}
