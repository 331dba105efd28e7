"""What the network saw, and what it found, as a binary DICOM Segmentation."""

from collections.abc import Container, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mim.evaluation.dicom_export.concepts import ABNORMAL, LEARNED, SEEN, SPATIAL, Concept, concept_of
from mim.evaluation.dicom_export.results import Algorithm, FrameResult
from mim.evaluation.dicom_export.source import frames_of
from mim.evaluation.dicom_export.uids import derived_uid

SERIES_NUMBER = 9002

Cells = npt.NDArray[np.bool_]


def segmentation(source: Dataset, result: FrameResult, algorithm: Algorithm, key: str) -> Dataset | None:
    """Makes the segmentation of one frame; None where nothing is to be shown of it.

    Segments are: what the network saw; for each name of pixels what was found; for each label of boxes all of them
    together. They may overlap. The planes lie over the pixels of the frame, one to one.

    Args:
        source: The object, without pixels.
        result: What was said of a frame of it.
        algorithm: What said it.
        key: What the identifiers are derived from; the same results must have the same key.
    """
    import highdicom

    segments = gather(result, source.Rows, source.Columns)
    if not segments:
        return None
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=_code(category),
            segmented_property_type=_code(kind),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                algorithm.name,
                _code(LEARNED),
                f"{algorithm.version}, weights {algorithm.checkpoint}",
                source="mim",
                parameters=dict(algorithm.parameters),
            ),
            tracking_uid=derived_uid("segment", key, result.frame, number),
            tracking_id=label,
        )
        for number, (label, category, kind, _) in enumerate(segments, 1)
    ]
    several = frames_of(source) is not None
    made: Dataset = highdicom.seg.Segmentation(
        source_images=[_one_frame(source)],
        pixel_array=np.stack([plane for *_, plane in segments], axis=-1)[None].astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=derived_uid("segmentation series", source.SeriesInstanceUID, algorithm.checkpoint),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived_uid("segmentation", key, result.frame),
        instance_number=result.frame + 1 if several else int(source.get("InstanceNumber") or 1),
        manufacturer="mim",
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.checkpoint,
        content_label="MIM",
        content_description="Predictions by mim (research)",
        series_description="Predictions by mim (research)",
    )
    _tidy(made, source, result.frame + 1 if several else None)
    return made


def _one_frame(source: Dataset) -> Dataset:
    """The source as highdicom takes it: a plane of one frame that lies nowhere in space, as a projection does."""
    single = deepcopy(source)
    if "FrameOfReferenceUID" in single:
        del single.FrameOfReferenceUID
    if frames_of(source) is not None:
        single.NumberOfFrames = 1
        groups = Dataset()
        groups.PixelMeasuresSequence = [Dataset()]  # to be there; it is taken away again
        single.SharedFunctionalGroupsSequence = [groups]
    return single


def _tidy(made: Dataset, source: Dataset, frame: int | None) -> None:
    """Says which frame it is of, and that it lies as the source does."""
    shared = made.SharedFunctionalGroupsSequence[0]
    if "PixelMeasuresSequence" in shared and "SliceThickness" not in shared.PixelMeasuresSequence[0]:
        del shared.PixelMeasuresSequence  # a film has no slices, and highdicom could not read it back
    made.PatientOrientation = source.get("PatientOrientation", "")
    if frame is not None:
        groups = [shared, *made.PerFrameFunctionalGroupsSequence]
        derived = [item for group in groups for item in group.get("DerivationImageSequence", ())]
        for holder in (made, *derived):
            for reference in holder.get("SourceImageSequence", ()):
                reference.ReferencedFrameNumber = frame


def gather(result: FrameResult, rows: int, columns: int) -> list[tuple[str, Concept, Concept, Cells]]:
    """The segments that are not empty: label, category, type and plane."""
    found: dict[str, tuple[Concept, Concept, Cells]] = {}
    if result.visible is not None:
        found["seen by the network"] = (SPATIAL, SEEN, result.visible)
    for name, plane in result.pixels.items():
        concept = _distinct(concept_of(name), [kind for _, kind, _ in found.values()])
        found[_free(f"{name}, pixels", found)] = (ABNORMAL, concept, plane)
    for region in result.regions:
        label, plane = f"{region.label}, boxes"[:64], _box_plane(region.box, rows, columns)
        before = found.get(label)
        found[label] = (ABNORMAL, concept_of(region.label), plane if before is None else before[2] | plane)
    return [(label, category, kind, plane) for label, (category, kind, plane) in found.items() if plane.any()]


def _free(label: str, taken: Container[str]) -> str:
    """A label of at most 64 characters, numbered where another one begins with the same."""
    labels = chain((label[:64],), (f"{label[:58]} ({number})" for number in count(2)))
    return next(own for own in labels if own not in taken)


def _distinct(concept: Concept, taken: Sequence[Concept]) -> Concept:
    """A concept whose code no other meaning has: codes of mim's own are short, and long names may share one."""
    meanings = {(own.scheme, own.value): own.meaning for own in taken}
    values = chain((concept.value,), (f"{concept.value[:12]}-{number}" for number in count(2)))
    free = next(own for own in values if meanings.get((concept.scheme, own), concept.meaning) == concept.meaning)
    return replace(concept, value=free)


def _box_plane(box: tuple[float, float, float, float], rows: int, columns: int) -> Cells:
    """Pixels whose middle lies in a box; of one smaller than a pixel the pixel in which its own middle lies."""
    x, y = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    plane: Cells = np.outer((y >= box[1]) & (y < box[3]), (x >= box[0]) & (x < box[2]))
    if not plane.any():
        row, column = int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2)
        plane[min(row, rows - 1), min(column, columns - 1)] = True
    return plane


def _code(concept: Concept) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, concept.scheme, concept.meaning)
