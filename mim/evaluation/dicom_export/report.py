"""Predictions as a DICOM Structured Report by TID 1500 (PS3.16), Comprehensive SR."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from mim.evaluation.dicom_export.concepts import (
    ABSENT,
    CERTAINTY,
    DEVICE,
    LEARNED,
    PERCENT,
    PRESENCE,
    PRESENT,
    SEEN_SHARE,
    Concept,
    concept_of,
    procedure_of,
)
from mim.evaluation.dicom_export.results import Algorithm, ClassResult, FoundRegion, FrameResult
from mim.evaluation.dicom_export.source import character_set, frames_of
from mim.evaluation.dicom_export.uids import derived_uid

SERIES_NUMBER = 9001


def structured_report(source: Dataset, results: Sequence[FrameResult], algorithm: Algorithm, key: str) -> Dataset:
    """Makes the report on one object: a measurement group for each frame, and a region for each box.

    Patient and study are taken over from the source: the report belongs into its study. It is preliminary and not
    verified.

    Args:
        source: The object, without pixels.
        results: What was said of its frames.
        algorithm: What said it.
        key: What the identifiers are derived from; the same results must have the same key.
    """
    from highdicom import sr

    device = sr.ObserverContext(
        observer_type=_code(DEVICE),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", algorithm.name, algorithm.checkpoint),
            name=algorithm.name,
            manufacturer_name="mim",
            model_name=algorithm.name,
            serial_number=algorithm.checkpoint,
        ),
    )
    groups: list[Any] = []
    for result in results:
        groups.append(_film_group(source, result, algorithm, key))
        groups += [_class_group(source, result, one, algorithm, key) for one in result.classes]
        groups += [_region_group(source, result, number, algorithm, key) for number in range(len(result.regions))]
    texts = [*algorithm.parameters.values(), *(result.finding or "" for result in results)]
    texts += [region.label for result in results for region in result.regions]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=_code(procedure_of(str(source.get("Modality", "")))),
        imaging_measurements=groups,
    )
    report: Dataset = sr.ComprehensiveSR(
        evidence=[source],
        content=content[0],
        series_instance_uid=derived_uid("report series", source.SeriesInstanceUID, algorithm.checkpoint),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived_uid("report", key),
        instance_number=int(source.get("InstanceNumber") or 1),
        manufacturer="mim",
        is_complete=True,
        is_final=False,
        is_verified=False,
        specific_character_set=character_set(source, texts),
    )
    report.SeriesDescription = "Predictions by mim (research)"
    report.ManufacturerModelName, report.SoftwareVersions = algorithm.name, algorithm.version
    report.DeviceSerialNumber = algorithm.checkpoint
    return report


def _film_group(source: Dataset, result: FrameResult, algorithm: Algorithm, key: str) -> Any:
    """TID 1501: what was said of a whole frame."""
    from highdicom import sr

    image = sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID, _frame_numbers(source, result))
    measured = [_percent(SEEN_SHARE, result.keep_rate)]
    if result.score is not None:
        measured.insert(0, _percent(CERTAINTY, result.score))
    called = []
    if result.present is not None:
        called.append(sr.QualitativeEvaluation(_code(PRESENCE), _code(PRESENT if result.present else ABSENT)))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(derived_uid("film", key, result.frame), f"frame {result.frame + 1}"),
        finding_type=None if result.finding is None else _code(concept_of(result.finding)),
        algorithm_id=_identification(algorithm),
        measurements=measured,
        qualitative_evaluations=called,
        source_images=[image],
    )


def _class_group(source: Dataset, result: FrameResult, said: ClassResult, algorithm: Algorithm, key: str) -> Any:
    """TID 1501: what was said of one of several classes on a whole frame."""
    from highdicom import sr

    image = sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID, _frame_numbers(source, result))
    called = []
    if said.present is not None:
        called.append(sr.QualitativeEvaluation(_code(PRESENCE), _code(PRESENT if said.present else ABSENT)))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derived_uid("class", key, result.frame, said.name), f"frame {result.frame + 1}, {said.name}"[:64]
        ),
        finding_type=_code(concept_of(said.name)),
        algorithm_id=_identification(algorithm),
        measurements=[_percent(CERTAINTY, said.score)],
        qualitative_evaluations=called,
        source_images=[image],
    )


def _region_group(source: Dataset, result: FrameResult, number: int, algorithm: Algorithm, key: str) -> Any:
    """TID 1410: a box, as a closed polyline."""
    from highdicom import sr

    found: FoundRegion = result.regions[number]
    x1, y1, x2, y2 = found.box
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
    image = sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID, _frame_numbers(source, result))
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derived_uid("region", key, result.frame, number), f"frame {result.frame + 1}, region {number + 1}"
        ),
        referenced_region=sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, corners, image),
        finding_type=_code(concept_of(found.label)),
        algorithm_id=_identification(algorithm),
        measurements=[_percent(CERTAINTY, found.score)],
    )


def _frame_numbers(source: Dataset, result: FrameResult) -> list[int] | None:
    return None if frames_of(source) is None else [result.frame + 1]


def _identification(algorithm: Algorithm) -> Any:
    """TID 4019."""
    from highdicom import sr

    parameters = [f"weights: {algorithm.checkpoint}"]
    parameters += [f"{name}: {value}" for name, value in algorithm.parameters.items()]
    return sr.AlgorithmIdentification(
        algorithm.name, algorithm.version, parameters, family=_code(LEARNED), manufacturer="mim"
    )


def _percent(name: Concept, share: float) -> Any:
    """TID 300: a share as per cent."""
    from highdicom import sr

    return sr.Measurement(_code(name), round(100 * share, 6), _code(PERCENT))


def _code(concept: Concept) -> Any:
    from highdicom import sr

    return sr.CodedConcept(concept.value, concept.scheme, concept.meaning)
