import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from film_factory import SALT, store_films

from mim.data import attach_labels
from mim.data.augment import evaluation_transform
from mim.data.phantom import GRADES, PhantomSettings, draw_film, write_phantom
from mim.data.phantom.__main__ import main
from mim.data.phantom.clinical import CLINICAL_COLUMNS, SITES, draw_clinical
from mim.data.studies import group_studies
from mim.data.study_loader import StudyDataset
from mim.errors import MimError

SMALL = PhantomSettings(height=96, width=128)
GRADE_NUMBERS = {"E1": 1, "E2": 2, "D1": 3, "D2": 4, "D3": 5}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def decode(segmentation: dict) -> np.ndarray:
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(segmentation["size"], order="F").astype(bool)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("phantom") / "set"
    summary = write_phantom(output, SMALL, unlabelled=6, labelled=40, seed=3, progress=False)
    assert summary.films == 46
    assert not summary.kept
    return output


@pytest.fixture(scope="module")
def rows(phantom) -> list[dict[str, str]]:
    with (phantom / "labelled/labels.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def coco(phantom) -> dict:
    return json.loads((phantom / "labelled/lesions.coco.json").read_text())


@pytest.fixture(scope="module")
def carious():
    films = (draw_film(PhantomSettings(caries_fraction=1.0), 1, patient, 0) for patient in range(8))
    return list(films)


def test_bytes_do_not_depend_on_the_workers(phantom, tmp_path):
    write_phantom(tmp_path / "set", SMALL, unlabelled=6, labelled=40, seed=3, workers=2, progress=False)
    assert tree(tmp_path / "set") == tree(phantom)


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("phantom") / "series"
    tiny = PhantomSettings(height=48, width=64)
    write_phantom(output, tiny, unlabelled=0, labelled=80, seed=5, progress=False, films_per_study=(4, 6))
    return output


def test_a_study_is_a_whole_series_in_order(series):
    with (series / "labelled/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_patient: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_patient.setdefault(row["patient_id"], []).append(row)
    assert {len(own) for own in by_patient.values()} == {4, 5, 6}
    assert 80 <= len(rows) <= 85
    counts = [sum(int(row["caries"]) for row in own) for own in by_patient.values()]
    assert 0.2 < np.mean([count > 0 for count in counts]) < 0.8
    assert all(count < 6 for count in counts)
    assert max(counts) > 1
    studies = set()
    for patient, own in by_patient.items():
        headers = [pydicom.dcmread(series / "labelled" / row["image"], stop_before_pixels=True) for row in own]
        assert {header.PatientID for header in headers} == {patient}
        assert [header.InstanceNumber for header in headers] == list(range(1, len(own) + 1))
        studies.add(frozenset(header.StudyInstanceUID for header in headers))
    assert {len(study) for study in studies} == {1}
    assert len(studies) == len(by_patient)


def test_a_study_goes_from_the_command_line_to_batches(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "set"), "--unlabelled", "0", "--labelled", "20", "--workers", "1"]
    arguments += ["--height", "48", "--width", "64", "--films-per-study", "4", "6"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert "kept" in capsys.readouterr().out
    assert "4 to 6 films" in (tmp_path / "set" / "README.txt").read_text()
    folder = tmp_path / "set" / "labelled"
    films = store_films(folder, tmp_path / "out", long_side=64)
    labelled = attach_labels(films, folder, "labels.csv", "caries", SALT)
    studies = group_studies(films, folder, labelled, SALT, label="any")
    assert [film for study in studies for film in study.films] == list(range(len(films)))
    for study in studies:
        assert study.label == max(study.film_labels)
        assert {films.rows[film].study_id for film in study.films} == {study.study_id}
    batch = StudyDataset.collate(
        [StudyDataset(films, studies, evaluation_transform((48, 64)), 0)[0, n] for n in (0, 1)]
    )
    assert batch["present"].sum(dim=1).tolist() == [len(study.films) for study in studies[:2]]
    assert main([*arguments[:-2], "6", "4"]) == 2


def test_some_clinical_columns_go_with_caries_and_others_do_not():
    drawn = draw_clinical({patient: patient % 2 == 0 for patient in range(600)}, seed=1)
    carious = np.array([patient % 2 == 0 for patient in drawn])

    def auc(values):
        values = np.array(values, float)
        positive, negative = values[carious & ~np.isnan(values)], values[~carious & ~np.isnan(values)]
        return np.mean((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative))

    assert auc([own.age for own in drawn.values()]) > 0.75
    assert auc([np.nan if own.snacks is None else own.snacks for own in drawn.values()]) > 0.75
    assert 0.4 < auc([own.shoe_size for own in drawn.values()]) < 0.6
    for site in SITES:
        assert 0.4 < auc([own.site == site for own in drawn.values()]) < 0.6
    assert 0.1 < np.mean([own.snacks is None for own in drawn.values()]) < 0.2


def test_clinical_columns_are_the_patients(rows):
    known: dict[str, set[tuple[str, ...]]] = {}
    for row in rows:
        known.setdefault(row["patient_id"], set()).add(tuple(row[name] for name in CLINICAL_COLUMNS))
    assert all(len(values) == 1 for values in known.values())
    assert len(set.union(*known.values())) > 5


def test_a_phantom_of_another_version_is_not_taken_for_the_same(tmp_path):
    (tmp_path / "phantom.json").write_text(json.dumps({"phantom": 1, "seed": 0}))
    with pytest.raises(MimError, match="another version of mim; delete the folder"):
        write_phantom(tmp_path, SMALL, unlabelled=1, labelled=1, progress=False)


def test_another_seed_draws_another_film():
    assert not np.array_equal(draw_film(SMALL, 0, 1, 0).pixels, draw_film(SMALL, 1, 1, 0).pixels)
    assert not np.array_equal(draw_film(SMALL, 0, 1, 0).pixels, draw_film(SMALL, 0, 1, 1).pixels)


def test_files_are_intra_oral_dicom(phantom):
    films = [pydicom.dcmread(path) for path in sorted(phantom.rglob("*.dcm"))]
    assert len(films) == 46
    for film in films:
        assert film.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert film.SOPClassUID == film.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.3"
        assert (film.Modality, film.PresentationIntentType) == ("IO", "FOR PRESENTATION")
        assert (film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation) == (16, 12, 11, 0)
        assert film.StudyInstanceUID.startswith("2.25.")
        assert film.StudyInstanceUID.is_valid
        assert film.PatientID.startswith("PHANTOM-")
        assert film.PixelSpacing == pytest.approx([SMALL.film_width_mm / 128] * 2)
        assert film.pixel_array.shape == (96, 128)
        assert film.pixel_array.max() <= 4095
    assert {film.PhotometricInterpretation for film in films} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"WindowCenter" in film for film in films} == {True, False}
    assert len({film.SOPInstanceUID for film in films}) == 46


def test_monochrome1_is_the_film_turned_over(phantom):
    film = next(
        film
        for film in map(pydicom.dcmread, sorted((phantom / "unlabelled").glob("*.dcm")))
        if film.PhotometricInterpretation == "MONOCHROME1"
    )
    drawn = draw_film(SMALL, 3, int(film.PatientID.removeprefix("PHANTOM-")), film.InstanceNumber - 1)
    assert np.array_equal(4095 - film.pixel_array, drawn.pixels)


def test_boxes_enclose_the_masks_tightly(carious):
    lesions = [lesion for film in carious for lesion in film.lesions]
    assert len(lesions) >= 8
    for lesion in lesions:
        x0, y0, x1, y1 = lesion.box
        ys, xs = np.nonzero(lesion.mask)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
        assert lesion.mask.shape == (192, 256)
        assert lesion.grade in GRADES
        assert lesion.kind in ("proximal", "occlusal")


def test_lesions_are_large_enough_for_small_patches(carious):
    longer = [np.ptp(np.reshape(lesion.box, (2, 2)), axis=0).max() for film in carious for lesion in film.lesions]
    assert 8 <= np.median(longer) <= 20


def test_lesions_change_the_film_inside_their_masks_only(carious):
    quiet = PhantomSettings(caries_fraction=1.0, noise=0)
    for patient in range(4):
        film = draw_film(quiet, 1, patient, 0)
        sound = draw_film(replace(quiet, lesion_contrast=0.0), 1, patient, 0)
        changed = film.pixels != sound.pixels
        union = np.any([lesion.mask for lesion in film.lesions], axis=0)
        near = cv2.dilate(union.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
        assert changed.any()
        assert not (changed & ~near).any()
        assert (film.pixels[union].astype(int) <= sound.pixels[union]).all()
        for lesion, other in zip(film.lesions, sound.lesions, strict=True):
            assert np.array_equal(lesion.mask, other.mask)


def test_no_caries_asked_none_drawn():
    assert all(not draw_film(replace(SMALL, caries_fraction=0.0), 0, patient, 0).lesions for patient in range(5))


def test_labels_agree_with_the_lesions(rows, coco):
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for annotation in coco["annotations"]:
        found[names[annotation["image_id"]]].append(annotation["attributes"]["grade"])
    assert [row["image"] for row in rows] == list(names.values())
    for row in rows:
        grades = found[row["image"]]
        assert int(row["caries"]) == bool(grades)
        assert int(row["lesions"]) == len(grades)
        assert int(row["grade"]) == max((GRADE_NUMBERS[grade] for grade in grades), default=0)
    assert 0.25 < np.mean([int(row["caries"]) for row in rows]) < 0.75


def test_coco_boxes_areas_and_pixels_agree(coco):
    assert {category["name"] for category in coco["categories"]} == {"proximal caries", "occlusal caries"}
    for annotation in coco["annotations"]:
        mask = decode(annotation["segmentation"])
        ys, xs = np.nonzero(mask)
        assert mask.sum() == annotation["area"]
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_patients_belong_to_one_split_and_one_folder(rows, phantom):
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    share = np.mean([row["split"] == "train" for row in rows])
    assert 0.4 <= share <= 0.6
    strangers = {pydicom.dcmread(path, stop_before_pixels=True).PatientID for path in phantom.glob("unlabelled/*.dcm")}
    assert not strangers & splits.keys()
    headers = {row["image"]: pydicom.dcmread(phantom / "labelled" / row["image"]).PatientID for row in rows}
    assert headers == {row["image"]: row["patient_id"] for row in rows}


def test_the_same_phantom_is_kept(phantom):
    before = tree(phantom)
    summary = write_phantom(phantom, SMALL, unlabelled=6, labelled=40, seed=3, progress=False)
    assert summary.kept
    assert tree(phantom) == before


def test_another_phantom_is_not_overwritten(phantom):
    with pytest.raises(MimError, match="seed"):
        write_phantom(phantom, SMALL, unlabelled=6, labelled=40, seed=4, progress=False)


def test_a_foreign_folder_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["--output", str(tmp_path), "--unlabelled", "1", "--labelled", "1"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_behind_when_drawing_fails(tmp_path, monkeypatch):
    def fail(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mim.data.phantom.files.draw_film", fail)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "set", SMALL, unlabelled=1, labelled=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "set"), "--unlabelled", "1", "--labelled", "2", "--workers", "1"]
    arguments += ["--height", "64", "--width", "80"]
    assert main(arguments) == 0
    assert "written" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"height": 8}, {"caries_fraction": 1.5}, {"noise": -1.0}, {"supersampling": 0}])
def test_settings_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(MimError, match="phantom"):
        PhantomSettings(**wrong)


def test_global_brightness_does_not_tell_the_label():
    films = [draw_film(SMALL, 9, patient, 0) for patient in range(80)]
    caries = np.array([bool(film.lesions) for film in films])
    for statistic in (np.mean, np.std, np.median):
        values = np.array([statistic(film.pixels) for film in films])
        above = (values[caries][:, None] > values[~caries][None]).mean()
        assert 0.33 < above < 0.67
