"""What the network saw, and what it found, as a binary DICOM Segmentation."""

from collections.abc import Container
from copy import deepcopy
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mim.evaluation.dicom_export.concepts import ABNORMAL, LEARNED, SEEN, SPATIAL, Concept, concept_of
from mim.evaluation.dicom_export.results import Algorithm, FrameResult
from mim.evaluation.dicom_export.source import character_set, frames_of
from mim.evaluation.dicom_export.uids import derived_uid

SERIES_NUMBER = 9002
_LONGEST_LABEL = 64  # characters of the value representation LO (PS3.5 6.2)

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
    texts = [*algorithm.parameters.values(), *(label for label, *_ in segments)]
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
        specific_character_set=character_set(source, texts),
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
    found: list[tuple[str, Concept, Concept, Cells]] = []
    if result.visible is not None:
        found.append(("seen by the network", SPATIAL, SEEN, result.visible))
    for name, plane in result.pixels.items():
        label = _free(_label(name, "pixels"), [own for own, *_ in found])
        found.append((label, ABNORMAL, concept_of(name), plane))
    boxes: dict[str, Cells] = {}
    for region in result.regions:
        plane = _box_plane(region.box, rows, columns)
        boxes[region.label] = boxes[region.label] | plane if region.label in boxes else plane
    found += [(_label(name, "boxes"), ABNORMAL, concept_of(name), plane) for name, plane in boxes.items()]
    return [segment for segment in found if segment[-1].any()]


def _label(name: str, what: str) -> str:
    """A name as a label may be: on one line, without a backslash, with what follows it at most 64 characters."""
    told = "".join(sign if sign.isprintable() and sign != "\\" else " " for sign in name)
    return f"{' '.join(told.split())[: _LONGEST_LABEL - len(what) - 2] or 'finding'}, {what}"


def _free(label: str, taken: Container[str]) -> str:
    """A label of at most 64 characters, numbered where another one begins with the same."""
    labels = chain((label[:64],), (f"{label[:58]} ({number})" for number in count(2)))
    return next(own for own in labels if own not in taken)


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
