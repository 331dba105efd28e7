"""Command line of `python -m mim.masking.threshold`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mim.config import FinetuneConfig, door, load_config
from mim.masking.cutoff import Cutoff
from mim.masking.scores import SCORES
from mim.masking.threshold.masker import MODEL_SCORES
from mim.stages.choose_threshold import ThresholdRequest, choose_threshold
from mim.stages.common import start_logging

SETTINGS = {
    "data": "data.path", "labels": "data.labels", "boxes": "data.boxes", "target": "data.target",
    "cache": "data.cache", "score": "masker.score", "keep": "masker.direction", "run": "init",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    line = argparse.ArgumentParser(
        prog="python -m mim.masking.threshold",
        description="Choose the threshold of an input masker so that lesions stay visible: how the scores of cells and "
        "of lesions are distributed, what each threshold keeps, and the one that hides most while the wanted share of "
        "the validation films' lesions keeps half its area visible. Films are divided as by finetune.py, whose "
        "settings may follow as key=value (input.image_size=[448,448], encoder.name=resnet50).",
        epilog="example: python -m mim.masking.threshold --data films --labels labels.csv --boxes boxes.json "
        "--target caries --output runs/threshold",
    )
    line.add_argument("--config", type=Path, metavar="YAML", help="settings of finetune.py to begin with")
    line.add_argument("--data", metavar="FOLDER", help="folder of films, or prepared dataset (data.path)")
    line.add_argument("--labels", metavar="CSV", help="labels, relative to the folder (data.labels)")
    line.add_argument("--boxes", metavar="COCO", help="lesions, relative to the folder (data.boxes)")
    line.add_argument("--target", metavar="COLUMN", help="label column; films without it are left out (data.target)")
    line.add_argument("--cache", metavar="FOLDER", help="where films are prepared (data.cache)")
    line.add_argument(
        "--score", choices=[*SCORES, *MODEL_SCORES], help="what cells are compared by; default intensity (masker.score)"
    )
    line.add_argument("--keep", choices=["above", "below"], help="side of the threshold that is kept; default above")
    line.add_argument(
        "--run",
        metavar="RUN",
        help=f"run of train.py, for {' and '.join(MODEL_SCORES)}; gives image size and cells (init)",
    )
    line.add_argument("--recall", type=float, default=0.98, help="share of lesions to stay visible; default 0.98")
    line.add_argument(
        "--thresholds", default="otsu", metavar="T,T",
        help="others to measure beside it, with commas: numbers, otsu, quantile:0.3; default otsu",
    )  # fmt: skip
    line.add_argument("--resamples", type=int, default=2000, help="of patients, for the interval; default 2000")
    line.add_argument("--output", type=Path, required=True, help="folder for threshold.csv, .json and .png")
    line.add_argument("settings", nargs="*", metavar="key=value", help="further settings of finetune.py")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status: 0, or 2 for bad input."""
    options = parser().parse_intermixed_args(arguments)
    given = [f"{key}={value}" for name, key in SETTINGS.items() if (value := getattr(options, name)) is not None]

    def work() -> None:
        start_logging()
        config = load_config(FinetuneConfig, options.config, [*given, *options.settings, "masker.kind=threshold"])
        choose_threshold(
            ThresholdRequest(
                config,
                options.output,
                options.recall,
                tuple(map(_cutoff, options.thresholds.split(","))),
                options.resamples,
            )
        )

    return door(work)


def _cutoff(written: str) -> Cutoff:
    try:
        return float(written)
    except ValueError:
        return written
