"""Predictions as DICOM: in the places of the original image, and readable by those who did not write them."""

import hashlib
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from mim.data.decode import DecodeOptions, decode_file
from mim.errors import MimError
from mim.evaluation.dicom_export import concept_of, export_predictions, results_of
from mim.evaluation.dicom_export.__main__ import main
from mim.evaluation.runs_of_cells import from_runs, to_runs
from mim.stages.predict_kinds import Answer, FoundBox
from mim.stages.predict_records import AnsweredPart, film_record

highdicom = pytest.importorskip("highdicom", reason="the extra mim[dicom] is not installed")

MODEL: dict[str, Any] = {
    "task": "detect",
    "target": "caries",
    "classes": ["0", "1"],
    "positive": "1",
    "checkpoint": "0123456789abcdef",
    "version": "0.1.0",
    "backbone": "vit_tiny_patch16_224",
    "masker": "learned",
    "threshold": {"value": 0.5, "source": "validation", "reason": ""},
}
CLASSES = {
    "IO": "1.2.840.10008.5.1.4.1.1.1.3",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "PX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
}
BRIGHT = (30, 12, 42, 30)  # left, top, right, bottom of the bright square, in columns and rows of the stored image


@dataclass(frozen=True)
class Kind:
    modality: str
    spacing: tuple[float, float] = (0.1, 0.1)
    frames: int | None = None
    inverted: bool = False


def write_film(path: Path, kind: Kind, **fields: object) -> Path:
    """A film of 80 rows and 120 columns, dark but for a bright square; of several frames, only in the second."""
    rows, columns = 80, 120
    pixels = np.full((kind.frames or 1, rows, columns), 200, np.uint16)
    left, top, right, bottom = BRIGHT
    pixels[1 if kind.frames else 0, top:bottom, left:right] = 4095
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CLASSES[kind.modality], "1.2.3.4.5"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = CLASSES[kind.modality], "1.2.3.4.5"
    film.StudyInstanceUID, film.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.1"
    film.PatientID, film.PatientName, film.PatientBirthDate, film.PatientSex = "id-1", "Müller^Jörg", "19700101", "O"
    film.SpecificCharacterSet = "ISO_IR 100"
    film.StudyDate, film.StudyTime, film.StudyID, film.AccessionNumber = "20200102", "101112", "7", "a-9"
    film.Modality, film.InstanceNumber, film.SeriesNumber, film.ImageType = kind.modality, 3, 1, ["ORIGINAL", "PRIMARY"]
    film.Rows, film.Columns, film.SamplesPerPixel, film.PixelRepresentation = rows, columns, 1, 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelSpacing = list(kind.spacing)
    film.PhotometricInterpretation = "MONOCHROME1" if kind.inverted else "MONOCHROME2"
    film.WindowCenter, film.WindowWidth = 2048, 4096
    if kind.frames:
        film.NumberOfFrames = kind.frames
    film.PixelData = (4095 - pixels if kind.inverted else pixels).astype("<u2").tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(film, name)
        else:
            setattr(film, name, value)
    film.save_as(path, enforce_file_format=True)
    return path


def find_bright(stored: np.ndarray) -> Answer:
    """What a detector that finds what is bright says of a stored film, and a masker that shows only the left half."""
    bright = stored > 0.7 * np.iinfo(stored.dtype).max
    visible = np.zeros((4, 6), bool)
    visible[:, :3] = True
    boxes: list[FoundBox] = []
    if bright.any():
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        height, width = stored.shape
        shares = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        boxes = [FoundBox(shares, "caries", 0.875)]
    score = 0.75 if boxes else 0.25
    return Answer({"0": 1 - score, "1": score}, visible, boxes, {"caries": bright} if boxes else {})


def predict_bright(path: Path, **options: Any) -> dict[str, Any]:
    """predictions.json of one file, prepared in one way or another."""
    settings = {"long_side": 512, "bits": 8} | options
    decoded = decode_file(path.name, DecodeOptions(root=path.parent, salt=b"salt", **settings))
    assert not decoded.skipped, decoded.skipped
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    films = []
    for frame in sorted({row.frame for row in decoded.rows}):
        own = [pair for pair in zip(decoded.rows, decoded.films, strict=True) if pair[0].frame == frame]
        parts = [AnsweredPart(row, find_bright(levels.full), None) for row, levels in own]
        films.append(film_record(str(path), sha256, parts, MODEL, {}))
    return {"schema_version": 1, "model": MODEL, "films": films}


def export(path: Path, output: Path, frame: int = 1, **options: Any) -> tuple[Any, Any]:
    """Report and segmentation (of one of several frames) of a film, read back by highdicom."""
    done = export_predictions(predict_bright(path, **options), [path], output)
    assert not done.skipped
    (report,) = done.reports
    return highdicom.sr.srread(report), highdicom.seg.segread(done.segmentations[frame - 1])


def regions_of(report: Any) -> list[Any]:
    return report.content.get_planar_roi_measurement_groups()


KINDS = {
    "intra-oral": Kind("IO"),
    "inverted": Kind("DX", inverted=True),
    "higher than wide pixels": Kind("PX", spacing=(0.2, 0.1)),
    "wider than high pixels": Kind("CR", spacing=(0.1, 0.16)),
    "frames": Kind("XA", frames=3),
}
PREPARED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "reduced": {"long_side": 60},
    "cropped": {"crop": "border"},
    "tiles": {"tile": 64, "tile_overlap": 32},
}


@pytest.mark.parametrize("prepared", PREPARED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_and_pixels_lie_where_the_original_image_has_them(kind: str, prepared: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", KINDS[kind])
    frame = 2 if KINDS[kind].frames else None
    report, segments = export(path, tmp_path / "out", frame or 1, **PREPARED[prepared])
    found = regions_of(report)
    # a film whose square lies in several tiles has a box in each of them
    assert found if prepared == "tiles" else len(found) == 1
    corners = np.concatenate([group.roi.GraphicData for group in found]).reshape(-1, 2)
    box = (*corners.min(axis=0), *corners.max(axis=0))
    reduction = 2 if prepared == "reduced" else 1
    coarse = reduction * max(KINDS[kind].spacing) / min(KINDS[kind].spacing)
    assert box == pytest.approx(BRIGHT, abs=coarse)
    assert all(group.finding_type == concept_of_code("caries") for group in found)
    for group in found:
        (image,) = (item for item in group.roi.ContentSequence if item.ValueType == "IMAGE")
        reference = image.ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == "1.2.3.4.5"
        assert reference.get("ReferencedFrameNumber") == frame
    planes = planes_of(segments)
    square = np.zeros((80, 120), bool)
    left, top, right, bottom = BRIGHT
    square[top:bottom, left:right] = True
    plane = planes["caries, pixels"][(frame or 1) - 1]
    overlap = (plane & square).sum() / (plane | square).sum()
    assert overlap == 1 if kind in ("intra-oral", "inverted", "frames") and prepared != "reduced" else overlap > 0.7


def concept_of_code(name: str) -> Any:
    concept = concept_of(name)
    return highdicom.sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def called_of(group: Any) -> str:
    (called,) = group.get_qualitative_evaluations(highdicom.sr.CodedConcept("121052", "DCM", "Presence of property"))
    return called.value.meaning


def planes_of(segments: Any) -> dict[str, dict[int, np.ndarray]]:
    """Of each segment, by label, its planes by frame of the source."""
    found: dict[str, dict[int, np.ndarray]] = {}
    labels = {item.SegmentNumber: item.SegmentLabel for item in segments.SegmentSequence}
    pixels = segments.pixel_array.reshape(-1, segments.Rows, segments.Columns)
    for plane, groups in zip(pixels, segments.PerFrameFunctionalGroupsSequence, strict=True):
        label = labels[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        found.setdefault(label, {})[int(source.get("ReferencedFrameNumber", 1)) - 1] = plane.astype(bool)
    return found


def test_what_was_seen_is_the_mask_over_the_whole_image(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    _, segments = export(path, tmp_path / "out")
    seen = planes_of(segments)["seen by the network"][0]
    expected = np.zeros((80, 120), bool)
    expected[:, :60] = True
    assert np.array_equal(seen, expected)


def test_the_report_says_what_was_found_by_what_and_on_whom(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    report, segments = export(path, tmp_path / "out")
    for made in (report, segments):
        assert (made.PatientID, made.PatientName, made.StudyInstanceUID) == ("id-1", "Müller^Jörg", "1.2.3.4")
        assert (made.AccessionNumber, made.StudyDate, made.PatientBirthDate) == ("a-9", "20200102", "19700101")
        assert made.SeriesInstanceUID != "1.2.3.4.1"
        assert made.SOPInstanceUID != "1.2.3.4.5"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    (group,) = report.content.get_image_measurement_groups()
    assert group.finding_type == concept_of_code("caries")
    measured = {item.name.meaning: item.value for item in group.get_measurements()}
    assert measured["Certainty of Finding"] == 75
    assert measured["Share of the film's cells that the network saw"] == 50
    assert called_of(group) == "Present"
    texts = json.dumps(report.to_json_dict())
    for said in ("mim", "0.1.0", "0123456789abcdef", "not a medical device", "0.5 (validation)"):
        assert said in texts, said


def test_frames_without_a_finding_are_reported_as_well(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("XA", frames=3))
    report, _ = export(path, tmp_path / "out")
    called = [called_of(group) for group in report.content.get_image_measurement_groups()]
    assert called == ["Absent", "Present", "Absent"]


def test_the_same_result_is_the_same_object_and_another_one_is_not(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    report, _ = export(path, tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    export(path, tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    content = predict_bright(path)
    content["films"][0]["score"] = 0.625
    done = export_predictions(content, [path], tmp_path / "out")
    assert pydicom.dcmread(done.reports[0]).SOPInstanceUID != report.SOPInstanceUID
    assert pydicom.dcmread(done.reports[0]).SeriesInstanceUID == report.SeriesInstanceUID


def test_films_are_known_again_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    content = predict_bright(path)
    (tmp_path / "elsewhere").mkdir()
    path.rename(tmp_path / "elsewhere" / "other.dcm")
    (tmp_path / "elsewhere" / "notes.txt").write_text("not a film")
    (tmp_path / "predictions.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "predictions.json"), str(tmp_path / "elsewhere")]) == 0
    assert len(list((tmp_path / "dicom").iterdir())) == 2
    assert main([str(tmp_path / "predictions.json"), "--output", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"SeriesInstanceUID": None}, "has no SeriesInstanceUID"),
        ({"SOPInstanceUID": "999.01.2"}, "SOPInstanceUID is no valid UID"),
        ({"Rows": 90, "Columns": 130}, "an image of 130 x 90 pixels"),
    ],
)
def test_a_film_that_cannot_be_referenced_is_counted(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    content = predict_bright(path)
    header = pydicom.dcmread(path)
    for name, value in fields.items():
        setattr(header, name, "" if value is None else value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.save_as(path)
    content["films"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    done = export_predictions(content, [path], tmp_path / "out")
    (reason,) = done.skipped
    assert said in reason
    assert not done.reports
    assert "Müller" not in reason


def test_what_the_patient_module_may_leave_empty_may_be_missing(tmp_path: Path) -> None:
    missing = {"PatientID": None, "PatientName": None, "PatientBirthDate": None, "StudyTime": None, "StudyID": None}
    path = write_film(tmp_path / "film.dcm", Kind("IO"), **missing)
    report, segments = export(path, tmp_path / "out")
    assert report.PatientID == segments.PatientID == ""


def test_a_film_with_a_frame_of_reference_is_a_plane_all_the_same(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("DX"), FrameOfReferenceUID="1.2.3.9")
    _, segments = export(path, tmp_path / "out")
    assert planes_of(segments)["caries, boxes"][0].sum() == 12 * 18


def test_a_date_that_is_none_is_left_empty(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    path.write_bytes(path.read_bytes().replace(b"19700101", b"00000000"))
    report, segments = export(path, tmp_path / "out")
    assert report.PatientBirthDate == segments.PatientBirthDate == ""


def test_a_picture_file_has_nothing_to_reference(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(b"\x89PNG")
    film = predict_bright(write_film(tmp_path / "film.dcm", Kind("IO")))["films"][0]
    film["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    done = export_predictions({"schema_version": 1, "model": MODEL, "films": [film]}, [path], tmp_path / "out")
    assert done.skipped == {"no DICOM file, so there is nothing to reference": 1}


@pytest.mark.parametrize("content", [{}, {"model": MODEL}, {"model": {}, "films": []}, {"model": MODEL, "films": [{}]}])
def test_what_is_no_table_of_predictions_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MimError, match=r"predictions\.json cannot be understood"):
        export_predictions(content, [], tmp_path)
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "wrong.json")]) == 2


def test_masks_survive_as_runs_and_broken_ones_are_refused() -> None:
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (3, 5), (16, 16)):
        for share in (0.0, 0.3, 1.0):
            mask = generator.random(shape) < share
            assert np.array_equal(from_runs(json.loads(json.dumps(to_runs(mask)))), mask)
    hostile = {"shape": [2, 2], "runs": [2**63 - 1, 2**63 - 1, 6]}  # their sum is 4 in 64 bits
    endless = {"shape": [2, float("inf")], "runs": [2**70]}
    short, negative, vast = (
        {"shape": [2, 2], "runs": [3]},
        {"shape": [2, 2], "runs": [-1, 5]},
        {"shape": [10**6, 10**6]},
    )
    for broken in ({}, short, negative, vast, hostile, endless, {"shape": [2, 2], "runs": [2**70]}):
        with pytest.raises(MimError):
            from_runs({"runs": [10**12], **broken})


def test_names_become_codes_that_fit() -> None:
    assert concept_of("Caries").value == "80967001"
    for name in ("x" * 200, "Füllung \\ Krone\n", "", "🦷"):
        concept = concept_of(name)
        assert concept.scheme == "99MIM"
        assert 0 < len(concept.value) <= 16
        assert 0 < len(concept.meaning) <= 64
        assert "\\" not in concept.meaning


def test_names_that_differ_have_codes_that_differ() -> None:
    names = [
        "кариес",
        "пломба",
        "龋齿",
        "Füllung",
        "Fullung",
        "restoration of amalgam",
        "restoration of ceramic",
        "🦷",
        "",
    ]
    codes = {concept_of(name).value for name in names}
    assert len(codes) == len(names)
    assert concept_of("Restoration amalgam"[:16]).value == "RESTORATION-AMAL"
    assert concept_of("кариес") == concept_of("кариес")


def test_whatever_classes_are_called_their_boxes_and_pixels_are_exported(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    content = predict_bright(path)
    (part,) = content["films"][0]["parts"]
    (box,), (pixels,) = part["boxes"], part["pixels"].values()
    names = ["deep\\caries", "two\nlines", "кариес", "пломба", "x" * 70 + "1", "x" * 70 + "2", " "]
    part["boxes"] = [{**box, "label": name} for name in names]
    part["pixels"] = dict.fromkeys(names, pixels)
    done = export_predictions(content, [path], tmp_path / "out")
    assert not done.skipped
    report, segments = highdicom.sr.srread(done.reports[0]), highdicom.seg.segread(done.segmentations[0])
    found = [group.finding_type for group in regions_of(report)]
    assert len({code.value for code in found}) == len(names)
    assert "кариес" in [code.meaning for code in found]
    kinds = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segments.SegmentSequence]
    assert len(kinds) == 1 + 2 * len(names), "what was seen, and for each name pixels and boxes"
    labels = [item.SegmentLabel for item in segments.SegmentSequence]
    assert {"deep caries, boxes", "кариес, pixels"} <= set(labels)
    assert all(isinstance(label, str) and len(label) <= 64 for label in labels)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 144", "Иванов^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 192", "王^小东"),
        ("", "Doe^Jane"),
    ],
)
def test_a_patient_keeps_the_name_whatever_its_letters(charset: str | list[str], name: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"), SpecificCharacterSet=charset, PatientName=name)
    report, segments = export(path, tmp_path / "out")
    assert report.PatientName == segments.PatientName == name


@pytest.mark.parametrize("changed", [{"parts": None}, {"frame": "first"}, {"frame": float("inf")}, {"parts": [3]}])
def test_a_film_that_is_none_is_refused_before_anything_is_written(changed: dict[str, Any], tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", Kind("IO"))
    content = predict_bright(path)
    content["films"][0].update(changed)
    with pytest.raises(MimError, match="cannot be understood"):
        export_predictions(content, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_region_is_cut_at_the_image(tmp_path: Path) -> None:
    film = predict_bright(write_film(tmp_path / "film.dcm", Kind("IO")))["films"][0]
    film["parts"][0]["boxes"][0]["box"] = [-5, -5, 500, 20]
    assert results_of(film, MODEL, 80, 120).regions[0].box == (0, 0, 120, 20)


def told_by(tool: str, *paths: Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    said = ""
    for path in paths:
        done = subprocess.run([tool, str(path)], capture_output=True, timeout=60)
        said += done.stdout.decode("latin-1") + done.stderr.decode("latin-1")
        assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tool", "kinds"), [("dsrdump", ("sr",)), ("dcmdump", ("sr", "seg")), ("dciodvfy", ("sr", "seg"))]
)
def test_other_readers_find_no_error(tool: str, kinds: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", KINDS[kind])
    export(path, tmp_path / "out")
    said = told_by(tool, *(file for suffix in kinds for file in (tmp_path / "out").glob(f"*.{suffix}.dcm")))
    assert not re.search(r"^(E:|W:|Error)", said, re.MULTILINE), said
    if tool == "dsrdump":
        assert "Dental caries" in said


NAMES = (
    "proximal caries",
    "caries beside a filling that was made before, of the enamel",
    "caries beside a filling too",
)


@pytest.mark.parametrize("tool", ["highdicom", "dcmdump", "dciodvfy"])
def test_each_of_several_classes_is_a_segment_and_a_finding_of_its_own(tool: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", KINDS["intra-oral"])
    content = predict_bright(path)
    (film,) = content["films"]
    (own,) = film["parts"][0]["pixels"].values()
    everything = to_runs(np.ones(own["shape"], bool))
    film["parts"][0]["pixels"] = {NAMES[0]: own, NAMES[1]: everything, NAMES[2]: own}
    film |= {
        "scores": dict.fromkeys(NAMES, 0.75),
        "calls": dict(zip(NAMES, ("positive", "negative", None), strict=True)),
    }
    film |= {"score": None, "call": None}
    threshold = {"value": 0.5, "source": "validation", "reason": ""}
    content["model"] = {**MODEL, "positive": None, "thresholds": dict.fromkeys(NAMES, threshold)}
    done = export_predictions(content, [path], tmp_path / "out")
    if tool != "highdicom":
        said = told_by(tool, *done.reports, *done.segmentations)
        assert not re.search(r"^(E:|W:|Error)", said, re.MULTILINE), said
        return
    planes = planes_of(highdicom.seg.segread(done.segmentations[0]))
    left, top, right, bottom = BRIGHT
    assert (
        planes[f"{NAMES[0]}, pixels"][0].sum()
        == planes[f"{NAMES[2]}, pixels"][0].sum()
        == (right - left) * (bottom - top)
    )
    assert planes[f"{NAMES[1][:56]}, pixels"][0].all(), "segments may overlap"
    kinds = [
        item.SegmentedPropertyTypeCodeSequence[0] for item in pydicom.dcmread(done.segmentations[0]).SegmentSequence
    ]
    assert len({item.CodeValue for item in kinds}) == len({item.CodeMeaning for item in kinds}) == len(kinds)
    groups = highdicom.sr.srread(done.reports[0]).content.get_image_measurement_groups()
    told = [[str(one.value.meaning) for one in group.get_qualitative_evaluations()] for group in groups]
    assert [[word for word in own if word in ("Present", "Absent")] for own in told] == [
        [],
        ["Present"],
        ["Absent"],
        [],
    ]


def test_objects_of_real_films_can_be_read(shared_data: Path, tmp_path: Path) -> None:
    names = ("fo_CR-ModalitySequenceLUT.dcm", "RG3_J2KI.dcm", "fo_OutOfBoundsOverlay.dcm", "fo_GH133.dcm")
    readable = 0
    for name in names:
        path = shared_data / "dicom" / name
        done = export_predictions(predict_bright(path, long_side=256), [path], tmp_path / "out")
        if not done.reports:
            (reason,) = done.skipped
            assert "no valid UID" in reason
            continue
        readable += 1
        assert "(,," in told_by("dsrdump", *done.reports)
        segments = highdicom.seg.segread(done.segmentations[0])
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert (segments.Rows, segments.Columns) == (header.Rows, header.Columns)
        assert segments.PatientID == header.PatientID
    assert readable >= 2


def test_without_highdicom_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find: Callable[..., object] = lambda name, *rest: None  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(MimError, match=r"pip install 'mim\[dicom\]'"):
        export_predictions({"model": MODEL, "films": []}, [], tmp_path)
