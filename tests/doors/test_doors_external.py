"""`evaluate.py RUN --data FOLDER`: films of another hospital, which the run never saw."""

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydicom
import pytest
from door_calls import BRIEF, CONFIGS, NETWORK, Said, call, succeed
from jsonschema import Draft202012Validator
from searching import found_in
from test_doors_predict import call as predict

from mim.config import FinetuneConfig, dump_config, load_config
from mim.data import PreparedDataset, open_or_prepare
from mim.data.phantom.__main__ import main as draw_phantom
from mim.evaluation import Detections, SegmentedImages

SCHEMA = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
SHORT = (*BRIEF, "training.max_steps=2")
QUICK = ("bootstrap=100", "worst=2", "accelerator=cpu")
SMALL = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}")
DETECT = (CONFIGS / "finetune" / "detect_teeth.yaml", *SMALL, "detect.channels=32", "detect.convolutions=1")
SEGMENT = (CONFIGS / "finetune" / "segment_caries.yaml", *SMALL, "segment.channels=16")
BOXES = "data.boxes=lesions.coco.json"
MASKED = ("masker.kind=threshold", "masker.score=variance", "masker.threshold=quantile:0.4")
OF_TASK: dict[str, tuple[Any, ...]] = {
    "classify": (*NETWORK, "data.target=caries", *MASKED, BOXES),
    "study": (*NETWORK, "data.target=sick", "masker.kind=none", "task=study", "study.hidden=8"),
    "grades": (*NETWORK, "data.target=degree", "data.label_kind=ordered", "masker.kind=none"),
    "labels": (*NETWORK, "data.target=[caries, even]", "masker.kind=none"),
    "detect": (*DETECT, "detect.score_threshold=0.0", "detect.most=5", BOXES),
    "segment": (*SEGMENT, BOXES),
}
TABLES = {"detect": "detections.csv", "segment": "segmentation.csv"}


@dataclass(frozen=True)
class Made:
    """A finished and evaluated run, its films, and those of another hospital."""

    task: str
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def films(self) -> Path:
        return self.folder / "films"

    @property
    def elsewhere(self) -> Path:
        return self.folder / "hospital-b"

    @property
    def baseline(self) -> Path:
        """What was measured on the films of the other hospital, as they are."""
        return self.folder / "baseline"

    def evaluate(self, data: Path, *more: object, run: Path | None = None) -> Said:
        quick = QUICK if self.task not in ("classify",) else (*QUICK, "faithfulness.enabled=false")
        return call("evaluate", run or self.run, "--data", data, *quick, *more)

    def measure(self, data: Path, output: Path, *more: object, run: Path | None = None) -> dict[str, Any]:
        said = self.evaluate(data, f"output={output}", *more, run=run)
        assert said.status == 0, said.err
        return metrics_in(output)

    @property
    def train_patients(self) -> list[str]:
        return sorted({row["patient_id"] for row in rows(self.films / "labels.csv") if row["split"] == "train"})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, table: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def metrics_in(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    Draft202012Validator(SCHEMA).validate(content)
    return content


def threshold_in(content: dict[str, Any]) -> Any:
    """What was chosen on the validation films."""
    blocks = content["blocks"]
    if "labels" in blocks:
        return [question["threshold"] for question in blocks["labels"]["questions"]]
    block = next((blocks[name] for name in ("detection", "segmentation") if name in blocks), content)
    return block["threshold"]["value"] if isinstance(block["threshold"], dict) else block["threshold"]


def scores_in(folder: Path, task: str) -> dict[str, Any]:
    """What was made of each test film: a number or several."""
    if task == "detect":
        found = Detections.load(folder / "detections.csv").of("test")
        return {name: sorted(found.score[found.image == place]) for place, name in enumerate(found.image_id)}
    if task == "segment":
        images = SegmentedImages.load(folder / "segmentation.csv").of("test")
        return {name: own.drawn for name, own in zip(images.image_id, images.overlaps, strict=True)}
    test = [row for row in rows(folder / "predictions.csv") if row["split"] == "test"]
    names = [name for name in test[0] if name.startswith("score")]
    return {row["image_id"]: [float(row[name]) for name in names] for row in test}


def digests(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def lay_out(source: Path, folder: Path, *, split: bool) -> None:
    """Copies drawn films, with labels for each kind of task; every third patient is in each split."""
    shutil.copytree(source, folder)
    table = rows(folder / "labels.csv")
    patients = sorted({row["patient_id"] for row in table})
    sick = {row["patient_id"] for row in table if row["caries"] == "1"}
    order = [name for pair in zip(sorted(sick), sorted(set(patients) - sick), strict=False) for name in pair]
    order += [name for name in patients if name not in order]
    for number, row in enumerate(table):
        place = order.index(row["patient_id"])
        row["sick"] = str(int(row["patient_id"] in sick))
        row["degree"], row["even"] = str(number % 3), str(number % 2)
        row["split"] = ("train", "train", "val", "test")[place // 2 % 4]
        if not split:
            del row["split"]
    write(folder / "labels.csv", table)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films of patients whom nobody met, under the names of files that others have as well."""
    folder = tmp_path_factory.mktemp("hospital") / "phantom"
    size = ["--height", "96", "--width", "128", "--workers", "1", "--seed", "7"]
    assert draw_phantom(["--output", str(folder), "--unlabelled", "4", "--labelled", "20", *size]) == 0
    table = rows(folder / "labelled" / "labels.csv")
    for row in table:
        row["patient_id"] = row["patient_id"].replace("PHANTOM", "OTHER")
        film = pydicom.dcmread(folder / "labelled" / row["image"])
        film.PatientID = row["patient_id"]
        film.save_as(folder / "labelled" / row["image"])
    write(folder / "labelled" / "labels.csv", table)
    return folder / "labelled"


def make(task: str, folder: Path, phantom: Path, hospital: Path) -> Made:
    made = Made(task, folder)
    lay_out(phantom / "labelled", made.films, split=True)
    lay_out(hospital, made.elsewhere, split=False)
    data = (f"data.path={made.films}", f"data.cache={folder / 'prepared'}", "data.labels=labels.csv")
    succeed("finetune", *OF_TASK[task], *SHORT, *data, f"output={made.run}")
    brief = () if task != "classify" else ("faithfulness.enabled=false",)
    succeed("evaluate", made.run, *QUICK, *brief)
    made.measure(made.elsewhere, made.baseline)
    return made


@pytest.fixture(scope="module", params=list(OF_TASK))
def made(
    request: pytest.FixtureRequest, phantom: Path, hospital: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return make(request.param, tmp_path_factory.mktemp(request.param), phantom, hospital)


@pytest.fixture(scope="module")
def classifier(phantom: Path, hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("classify", tmp_path_factory.mktemp("classifier"), phantom, hospital)


def test_it_is_measured_in_a_place_of_its_own_and_says_what_it_is(made: Made) -> None:
    before = digests(made.run)
    said = made.evaluate(made.elsewhere)
    assert said.status == 0, said.err
    assert "This is an external test set: 20 films" in said.err
    (output,) = made.run.glob("external-*")
    content, own = metrics_in(output), metrics_in(made.run)
    after = digests(made.run)
    assert {name: after[name] for name in before} == before, "nothing of the run itself has changed"
    header = content["header"]
    assert output.name == f"external-{header['data'][:8]}"
    assert (header["checkpoint"], header["split"]) == (own["header"]["checkpoint"], own["header"]["split"])
    assert header["data"] != own["header"]["data"]
    assert header["external"]["films"] == 20
    assert header["external"]["patients"] == len({row["patient_id"] for row in rows(made.elsewhere / "labels.csv")})
    assert set(header["external"]["left_out"].values()) == {0}
    assert (header["external"]["unknown"], header["external"]["validation"]) == ([], "films")
    assert own["header"]["external"] is None
    assert content["warnings"][int(made.task == "study")].startswith("This is an external test set")
    assert threshold_in(content) == pytest.approx(threshold_in(own), abs=1e-6)
    report, card = (output / "report.html").read_text(), (output / "model_card.md").read_text()
    assert "This is an external test set" in report
    assert "Test on external data | This is an external test set" in card
    words = ["PHANTOM-0000", "hospital-b", "OTHER-", "film-0000", "lesions.coco", str(made.folder)]
    assert found_in(output, words) == []
    assert all(name.startswith("external-") for name in scores_in(output, made.task))
    if made.task in ("classify", "study", "detect"):
        assert "site" in json.dumps(content["blocks"])


def test_neither_its_labels_nor_the_order_of_rows_choose_anything(made: Made, tmp_path: Path) -> None:
    other = Path(shutil.copytree(made.elsewhere, tmp_path / "other"))
    table = list(reversed(rows(other / "labels.csv")))
    write(other / "labels.csv", table)
    plain = metrics_in(made.baseline)
    assert made.measure(other, tmp_path / "reversed") == plain
    name = TABLES.get(made.task, "predictions.csv")
    assert (tmp_path / "reversed" / name).read_bytes() == (made.baseline / name).read_bytes()
    write(other / "labels.csv", [{**row, "caries": "0", "sick": "0", "degree": "0", "even": "0"} for row in table])
    coco = json.loads((other / "lesions.coco.json").read_text())
    (other / "lesions.coco.json").write_text(json.dumps({**coco, "annotations": []}))
    changed = made.measure(other, tmp_path / "changed")
    assert threshold_in(changed) == threshold_in(plain)
    assert scores_in(tmp_path / "changed", made.task) == scores_in(made.baseline, made.task)
    assert changed["header"]["data"] == plain["header"]["data"]


def test_of_the_runs_own_folder_only_its_own_test_is_left(made: Made, tmp_path: Path) -> None:
    own = metrics_in(made.run)
    content = made.measure(made.films, tmp_path / "out")
    table = rows(made.films / "labels.csv")
    counted = content["header"]["external"]
    assert counted["left_out"]["patient_trained_on"] == sum(row["split"] != "test" for row in table)
    assert counted["films"] == sum(row["split"] == "test" for row in table)
    assert "its labels have a column split" in " ".join(counted["notes"]).lower()
    block = {"detect": "detection", "segment": "segmentation", "grades": "labels", "labels": "labels"}.get(made.task)
    for part in ("test", "threshold", "val") if block is None else ("blocks",):
        mine, theirs = (one[part] if block is None else one[part][block] for one in (content, own))
        assert json.dumps(mine)[:50] == json.dumps(theirs)[:50]
        assert flat(mine) == pytest.approx(flat(theirs), abs=1e-6)


def flat(value: Any) -> list[float]:
    """All numbers in something of JSON."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, list):
        return [number for one in value for number in flat(one)]
    return [float(value)] if isinstance(value, int | float) else []


def test_without_the_runs_own_films_what_it_made_of_them_before_is_taken(made: Made, tmp_path: Path) -> None:
    with_films = metrics_in(made.baseline)
    moved = made.films.rename(made.folder / "moved")
    try:
        said = made.evaluate(made.elsewhere, f"output={tmp_path / 'without'}")
        if made.task == "segment":
            assert "data_path" in said.error()
            return
        assert said.status == 0, said.err
        content = metrics_in(tmp_path / "without")
        assert content["header"]["external"]["validation"] == "table"
        assert content["header"]["near_copies"]["training"] is None
        assert any("not known by their pixels" in line for line in content["warnings"])
        assert threshold_in(content) == pytest.approx(threshold_in(with_films), abs=1e-6)
        scores = (scores_in(folder, made.task) for folder in (tmp_path / "without", made.baseline))
        without, before = ({name.removeprefix("external-"): own for name, own in one.items()} for one in scores)
        assert without.keys() == before.keys()
        assert all(own == pytest.approx(before[name], abs=1e-6) for name, own in without.items())
        bare = shutil.copytree(made.run, tmp_path / "bare", ignore=shutil.ignore_patterns("metrics.json"))
        assert "no threshold can be chosen" in made.evaluate(made.elsewhere, run=Path(bare)).error()
        if made.task == "classify":
            again = made.measure(made.elsewhere, tmp_path / "again", f"data_path={moved}")
            assert threshold_in(again) == threshold_in(with_films)
    finally:
        moved.rename(made.films)


def test_masks_are_judged_on_the_films_that_are_there(classifier: Made, tmp_path: Path) -> None:
    judged = ("faithfulness.films=4", "faithfulness.resamples=100", "faithfulness.keep_rates=[0.3]")
    leakage = []
    for name, data_path in (("with", classifier.films), ("without", None)):
        away = classifier.films.rename(classifier.folder / "away") if data_path is None else None
        output = tmp_path / name
        said = call("evaluate", classifier.run, "--data", classifier.elsewhere, *QUICK, *judged, f"output={output}")
        if away is not None:
            away.rename(classifier.films)
        assert said.status == 0, said.err
        leakage.append(metrics_in(output)["blocks"]["faithfulness"]["leakage"]["alone"]["masker"])
    assert leakage[0] == leakage[1], "no film of the run has a part in it"


def test_scores_are_those_of_the_prediction(classifier: Made) -> None:
    (prepared,) = (classifier.folder / "prepared").glob("hospital-b-*/report.json")
    films = {f"external-{row.image_id}": row.image for row in PreparedDataset.open(prepared.parent).rows}
    said = predict(classifier.run, classifier.elsewhere, "--json", "-", "--allow", "size")
    predicted = {Path(film["file"]).name: film["score"] for film in json.loads(said.out)["films"]}
    scores = scores_in(classifier.baseline, "classify")
    assert len(scores) == 20
    assert {films[name]: own[0] for name, own in scores.items()} == pytest.approx(predicted, abs=1e-6)


def test_films_that_were_learnt_from_are_left_out_and_counted(classifier: Made, tmp_path: Path) -> None:
    other = Path(shutil.copytree(classifier.elsewhere, tmp_path / "other"))
    table = rows(other / "labels.csv")
    met = classifier.train_patients[0]
    own = [row for row in rows(classifier.films / "labels.csv") if row["split"] == "train"]
    mine = next(row for row in own if row["patient_id"] != met)
    for number, row in enumerate([row for row in own if row["patient_id"] == met]):
        shutil.copy(classifier.films / row["image"], other / f"known-{number}.dcm")
        table.append({**table[0], "image": f"known-{number}.dcm", "patient_id": met})
    film = pydicom.dcmread(classifier.films / mine["image"])
    film.PatientID = "SOMEBODY ELSE"
    film.save_as(other / "copy.dcm")
    table.append({**table[0], "image": "copy.dcm", "patient_id": "SOMEBODY ELSE"})
    table.append({**table[0], "image": "absent.dcm", "patient_id": "NOBODY"})
    table[3]["caries"] = ""
    write(other / "labels.csv", table)
    counted = classifier.measure(other, tmp_path / "out")["header"]["external"]
    films = len({row["image"] for row in own if row["patient_id"] == met})
    assert counted["left_out"] == {
        "patient_trained_on": films,
        "pixels_trained_on": 1,
        "patient_pretrained_on": 0,
        "pixels_pretrained_on": 0,
    }
    assert (counted["films"], counted["unlabelled"], counted["missing"]) == (19, 1, 1)
    kept = scores_in(tmp_path / "out", "classify")
    away = classifier.films.rename(classifier.folder / "away")
    alone = classifier.measure(other, tmp_path / "alone")["header"]["external"]
    away.rename(classifier.films)
    assert (alone["left_out"]["patient_trained_on"], alone["left_out"]["pixels_trained_on"]) == (films, 0)
    assert any("not known by their pixels" in line for line in alone["unknown"])
    assert kept.keys() < scores_in(classifier.baseline, "classify").keys()


def test_patients_of_another_salt_are_not_known(classifier: Made, tmp_path: Path) -> None:
    elsewhere = f"data.cache={tmp_path / 'cache'}"
    content = classifier.measure(classifier.films, tmp_path / "out", elsewhere, "data.split=test")
    assert any("hashed with another salt" in line for line in content["header"]["external"]["unknown"])
    assert content["header"]["external"]["other_split"] > 0
    error = classifier.evaluate(classifier.films, f"output={tmp_path / 'x'}", elsewhere, "data.split=train").error()
    assert "none of its" in error
    assert "with the same pixels as a film that was trained on" in error
    assert not (tmp_path / "x").exists()


def test_own_films_that_were_hashed_with_another_salt_are_told_from_changed_ones(
    classifier: Made, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(classifier.run, tmp_path / "run"))
    settings = run / "config.yaml"
    config = load_config(FinetuneConfig, settings, [f"data.cache={tmp_path / 'cache'}"])
    settings.write_text(dump_config(config))
    error = call("evaluate", run, *QUICK, f"output={tmp_path / 'out'}").error()
    assert "its ids were hashed with another salt than that of" in error


def test_pretraining_counts_as_learnt_from(
    classifier: Made, phantom: Path, pretrained: Path, cache: str, tmp_path: Path
) -> None:
    data = (f"data.path={classifier.films}", cache, "data.labels=labels.csv", "data.target=caries")
    said = succeed("finetune", *SHORT, *data, f"init={pretrained}", "masker.kind=none", f"output={tmp_path / 'run'}")
    assert said.status == 0
    films = Path(shutil.copytree(phantom / "unlabelled", tmp_path / "films"))
    for path in classifier.elsewhere.glob("*.dcm"):
        shutil.copy(path, films / f"new-{path.name}")
    table = [{"image": path.name, "caries": str(n % 2)} for n, path in enumerate(sorted(films.glob("*.dcm")))]
    write(films / "labels.csv", table)
    counted = classifier.measure(films, tmp_path / "out", run=tmp_path / "run")["header"]["external"]
    assert counted["left_out"]["patient_pretrained_on"] == 12
    assert counted["films"] == 20


def test_films_of_another_kind_are_measured_and_told(classifier: Made, tmp_path: Path) -> None:
    films = Path(shutil.copytree(classifier.elsewhere, tmp_path / "films"))
    paths = sorted(films.glob("*.dcm"))
    for path in paths[:3]:
        film = pydicom.dcmread(path)
        film.Modality = "CT"
        film.save_as(path)
    content = classifier.measure(films, tmp_path / "out")
    assert content["header"]["external"]["differing"] == {"modality": 3}
    assert any("not such as the run was made for" in line for line in content["warnings"])


def test_a_test_of_one_class_is_measured_as_far_as_it_goes(classifier: Made, tmp_path: Path) -> None:
    films = Path(shutil.copytree(classifier.elsewhere, tmp_path / "films"))
    write(films / "labels.csv", [{**row, "caries": "1"} for row in rows(films / "labels.csv")])
    content = classifier.measure(films, tmp_path / "out")
    assert content["test"]["auroc"]["value"] is None
    assert content["test"]["auroc"]["reason"]
    assert content["test"]["brier"]["value"] is not None


def test_columns_and_files_may_be_called_otherwise(classifier: Made, tmp_path: Path) -> None:
    films = Path(shutil.copytree(classifier.elsewhere, tmp_path / "films"))
    table = rows(films / "labels.csv")
    (films / "labels.csv").unlink()
    write(
        films / "truth.csv", [{"decay" if key == "caries" else key: own for key, own in row.items()} for row in table]
    )
    (films / "lesions.coco.json").rename(films / "marks.json")
    said = classifier.evaluate(films).error()
    assert "data.labels" in said
    renamed = ("data.labels=truth.csv", "data.target=decay")
    bare = classifier.measure(films, tmp_path / "bare", *renamed)
    assert any("no file of boxes" in line for line in bare["warnings"])
    full = classifier.measure(films, tmp_path / "full", *renamed, "data.boxes=marks.json")
    assert full["header"]["lesions"]["test"] > 0
    plain = metrics_in(classifier.baseline)
    assert (full["test"], full["header"]["lesions"]) == (plain["test"], plain["header"]["lesions"])


def test_bad_input_is_one_line(classifier: Made, tmp_path: Path) -> None:
    films = Path(shutil.copytree(classifier.elsewhere, tmp_path / "films"))
    table = rows(films / "labels.csv")
    write(films / "labels.csv", [*table[:-1], {**table[-1], "caries": "perhaps"}])
    assert "no class of the run (0, 1)" in classifier.evaluate(films).error()
    run, good = classifier.run, classifier.elsewhere
    assert "--data" in call("evaluate", run, "data.labels=labels.csv").error()
    assert "compared on their own test films" in call("evaluate", run, tmp_path, f"--data={good}").error()
    assert "is a run" in call("evaluate", run, "--data", good, f"output={run}", *QUICK).error()
    assert "given twice" in call("evaluate", run, "--data", good, f"data.path={good}").error()
    assert "write --data <value>" in call("evaluate", run, "--data").error()
    assert "there is no such folder" in call("evaluate", run, f"--data={tmp_path / 'none'}").error()
    assert "no label column" not in call("evaluate", run, f"--data={good}", "data.target=[caries, sick]").error()
    assert "data.crops" in call("evaluate", run, f"--data={good}", "data.crops=teeth.json").error()


def test_a_prepared_dataset_of_another_kind_is_refused(classifier: Made, tmp_path: Path) -> None:
    cache = classifier.folder / "prepared"
    small = open_or_prepare(classifier.elsewhere, cache, long_side=64, bits=8, workers=1)
    assert "prepared with long_side 64" in classifier.evaluate(small.path).error()
    alike = open_or_prepare(classifier.elsewhere, cache, long_side=512, bits=8, workers=1)
    first = classifier.measure(alike.path, tmp_path / "prepared")
    assert first == metrics_in(classifier.baseline)
