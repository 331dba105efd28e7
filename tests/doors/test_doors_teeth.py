import csv
import json
from pathlib import Path

import pytest
from door_calls import BRIEF, CONFIGS, call, succeed

from mim.errors import MimError
from mim.evaluation import Predictions
from mim.predict import main as predict

FILE = CONFIGS / "finetune" / "classify_scratch_resnet.yaml"
SMALL = (*BRIEF, "input.image_size=[64,64]", "encoder.timm_args={layers: [1, 1, 1, 1]}")
NAMES = ("17", "16", "47", "46")


@pytest.fixture(scope="module")
def toothed(phantom: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name the drawn films with four tooth boxes each: their quarters."""
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    wide, high = content["images"][0]["width"] / 2, content["images"][0]["height"] / 2
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    content["annotations"] = [
        {"image_id": image["id"], "category_id": n, "bbox": [n % 2 * wide, n // 2 * high, wide, high]}
        for image in content["images"]
        for n in range(4)
    ]
    file = tmp_path_factory.mktemp("teeth") / "teeth.json"
    file.write_text(json.dumps(content))
    return (
        *(cache, f"data.path={phantom / 'labelled'}", "data.labels=labels.csv", f"data.crops={file}"),
        *("data.target=null", "data.boxes=lesions.coco.json"),
    )


@pytest.fixture(scope="module")
def run(toothed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teeth") / "run"
    succeed("finetune", FILE, *SMALL, *toothed, f"output={folder}")
    return folder


def test_teeth_are_trained_on_and_every_row_of_the_evaluation_is_a_tooth(
    run: Path, phantom: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    said = succeed("evaluate", run, "bootstrap=100", "accelerator=cpu", f"output={output}")
    assert "test AUC" in said.out
    table = Predictions.load(output / "predictions.csv")
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        films = [row for row in csv.DictReader(file) if row["split"] in ("val", "test")]
    assert len(table) == 4 * len(films)
    assert {name.rpartition("-")[2] for name in table.image_id} == set(NAMES)
    film_of = [name.rpartition("-")[0] for name in table.image_id]
    assert len(set(film_of)) == len(films)
    assert len(set(table.patient_id)) == len({row["patient_id"] for row in films}), "intervals resample patients"
    patients = dict(zip(film_of, table.patient_id, strict=True))
    assert all(patients[film] == patient for film, patient in zip(film_of, table.patient_id, strict=True))
    carious = {film for film, label in zip(film_of, table.label, strict=True) if label}
    assert len(carious) == sum(row["caries"] == "1" for row in films), "each carious film has a carious tooth"
    assert 0 < sum(table.label) < 2 * len(carious) + 4
    report = (output / "report.html").read_text()
    assert "lesion" in report


def test_a_run_on_teeth_does_not_answer_for_whole_films(run: Path, phantom: Path, tmp_path: Path) -> None:
    film = next((phantom / "labelled").rglob("*.dcm"))
    with pytest.raises(MimError, match=r"it was trained on teeth \(data\.crops\)"):
        predict([str(run), str(film), "--output", str(tmp_path / "out")])
    assert not list(tmp_path.glob("out/*.json"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("data.boxes=null",), "data.crops: teeth need labels"),
        (("data.labels=null",), "data.labels is not set"),
        (("data.target=caries",), "there is no column 'tooth'"),
        (("data.label_kind=ordered",), "data.label_kind=ordered: by the lesions of data.boxes"),
        (("data.tile=64",), "data.crops cuts teeth out of whole films"),
        (("data.crops=null", "data.target=caries", "data.crop_margin=0.3"), "data.crop_margin says nothing without"),
        (("data.crops=none.json",), "(data.crops is relative to data.path)"),
        (("task=study",), "data.crops is read only with task=classify"),
        (("task=detect",), "data.crops is read only with task=classify"),
    ],
)
def test_what_teeth_cannot_have_is_told_in_a_line(
    changed: tuple[str, ...], said: str, toothed: tuple[str, ...], tmp_path: Path
) -> None:
    output = tmp_path / "none"
    assert said in call("finetune", FILE, *SMALL, *toothed, *changed, f"output={output}").error()
    assert not (output / "checkpoints").exists()
