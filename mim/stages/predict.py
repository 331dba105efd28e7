"""Prediction: what a finished run says of films that somebody names."""

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mim.config import FinetuneConfig, TrainingConfig
from mim.data.given_files import list_given
from mim.data.locking import locked
from mim.errors import MimError
from mim.files import write_atomically
from mim.stages.common import logger, writing
from mim.stages.finished_run import read_finished
from mim.stages.label_kinds import check_asked
from mim.stages.made_for import MadeFor, preparation_of
from mim.stages.predict_films import FilmWork
from mim.stages.predict_kinds import load_predictor
from mim.stages.predict_options import PredictOptions
from mim.stages.predict_records import Threshold, describe_model, document, hash_of_weights, threshold_of
from mim.stages.predict_segmentation import FilmSegmenter
from mim.stages.predict_studies import StudyPredictor, StudyWork
from mim.stages.predict_table import Results, to_text
from mim.stages.predict_thresholds import thresholds_of
from mim.training import make_fabric

__all__ = ["PredictOptions", "predict"]


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predicts films, or studies of them, and writes what is asked for.

    Returns:
        The content of predictions.json.

    Raises:
        MimError: the run or a path is not there, or no film at all could be predicted; what could not be is in
            predictions.json then, too.
    """
    if options.dicom and options.output is None:
        raise MimError("--dicom writes files: give --output FOLDER")
    config, description = read_finished(options.run)
    _check(options, config)
    made_for = MadeFor.load(options.run)
    preparation = preparation_of(options.run, config, made_for, options.allow)
    read_as = preparation | {"color": "gray"} if "colour" in options.allow else preparation
    files = list_given(options.paths)
    fabric = make_fabric(TrainingConfig(accelerator=options.accelerator))
    load = StudyPredictor if config.task == "study" else load_predictor
    predictor = load(options.run, config, description, fabric)
    checkpoint = hash_of_weights(options.run)
    check_asked(config, description.classes, threshold=options.threshold, dicom=options.dicom)
    threshold = threshold_of(options.run, checkpoint, options.threshold)
    thresholds: dict[str, Threshold] = {}
    if isinstance(predictor, FilmSegmenter):
        thresholds = thresholds_of(options.run, checkpoint, options.threshold, predictor.classes)
        predictor.drawn_from = {name: one.value for name, one in thresholds.items() if one.value is not None}
    model = describe_model(config, description, preparation, checkpoint, predictor.positive, threshold, thresholds)
    _warn_of_no_threshold(model)
    with ExitStack() as stack, writing(options.output or Path(options.json or ".")):
        if options.output is not None and not stack.enter_context(locked(options.output / ".lock", wait=False)):
            raise MimError(f"{options.output}: another process writes there; wait for it, or give another --output")
        results = Results(options.output, model, overwrite=options.overwrite)
        stack.callback(results.close)
        work: FilmWork | StudyWork
        if isinstance(predictor, StudyPredictor):
            work = StudyWork(options, model, made_for, predictor, read_as, results)
        else:
            work = FilmWork(options, model, made_for, predictor, read_as, results)
        names = work.run(files)
        content = document(model, results.entries(names), sorted(options.allow))
        results.finish(content)
        _write_json(options.json, content)
    _say(content, work.already, options)
    if options.dicom:
        _export(options, content)
    if not content["films"]:
        raise MimError(f"none of {len(files)} files could be predicted ({_reasons(content)}){_way_out(content)}")
    return content


def _warn_of_no_threshold(model: Mapping[str, Any]) -> None:
    """Says what is not called, and why."""
    for name, threshold in model.get("thresholds", {}).items():
        if threshold["value"] is None:
            logger.warning("%s is scored and not called positive or negative: %s", name, threshold["reason"])
    called = model["positive"] is not None or model["task"] == "detect"
    if called and model["threshold"]["value"] is None:
        logger.warning("what is found is scored and not called positive or negative: %s", model["threshold"]["reason"])


def _check(options: PredictOptions, config: FinetuneConfig) -> None:
    """Refuses what this kind of run would not read.

    Raises:
        MimError: naming the option.
    """
    if config.task == "study" and options.dicom:
        raise MimError("--dicom reports on single films, and this run scores studies (task=study); leave it out")
    if config.task != "study" and options.studies is not None:
        raise MimError(f"--studies groups films for runs of task=study, and this run has task={config.task}")


def _write_json(target: str | None, content: Mapping[str, Any]) -> None:
    if target is None:
        return
    text = to_text(content)
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with writing(Path(target)):
        write_atomically(Path(target), text)


def _say(content: Mapping[str, Any], already: int, options: PredictOptions) -> None:
    """Says how many films there are, and why others are not: names of files stand in predictions.json alone."""
    counts = content["counts"]
    before = f" ({already} of them were there already)" if already else ""
    where = "" if options.output is None else f": {options.output / 'predictions.json'}"
    studies = f"{counts['studies']} studies with " if "studies" in counts else ""
    logger.info("%s%d films of %d files%s%s", studies, counts["films"], counts["files"], before, where)
    if counts["skipped"]:
        logger.warning("%d skipped (%s)%s", counts["skipped"], _reasons(content), _way_out(content))


def _reasons(content: Mapping[str, Any]) -> str:
    counted = Counter(item["reason"] for item in content["skipped"])
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counted.items())) or "nothing to read"


def _way_out(content: Mapping[str, Any]) -> str:
    """The detail of the first film that is not such as the run was made for, and how to have it all the same."""
    for item in content["skipped"]:
        if item["reason"] in ("modality", "size", "aspect", "brightness", "colour"):
            return f"; the first: {item['detail']}; --allow {item['reason']} takes such films all the same"
    return ""


def _export(options: PredictOptions, content: Mapping[str, Any]) -> None:
    from mim.evaluation.dicom_export import export_predictions

    assert options.output is not None
    done = export_predictions(content, options.paths, options.output / "dicom")
    logger.info("%s", done.in_words())
