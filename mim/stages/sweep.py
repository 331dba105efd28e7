"""Command line: python -m mim.stages.sweep [CONFIG.yaml] --fractions ... --seeds ... --inits ... --output DIR."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mim.config import EvaluateConfig, FaithfulnessConfig, FinetuneConfig, door, load_config
from mim.data.locking import locked
from mim.errors import Interrupted, MimError
from mim.stages.common import logger, start_logging, write_lines, writing
from mim.stages.measured_run import FinishedRun
from mim.stages.sweep_curves import Curve, Swept, choose_curve
from mim.stages.sweep_plan import SCRATCH, PlannedRun, SweepRequest, check_begun, plan_runs
from mim.stages.sweep_results import SweptRun, write_results, write_runs
from mim.stages.task_kinds import check_settings, evaluate, finetune
from mim.training.signals import stopped_by

VARIED = {"seed": "--seeds", "init": "--inits", "init_weights": "--inits", "data.label_fraction": "--fractions",
          "output": "--output"}  # fmt: skip


def sweep(request: SweepRequest) -> Path:
    """Trains and measures every run that is not done yet, and writes what came of all of them.

    Returns:
        The folder of the sweep.

    Raises:
        MimError: the settings cannot be used, or a run failed; the others are done then, and all is written.
        Interrupted: the sweep was asked to stop.
    """
    check_settings(request.config)
    curve = choose_curve(request.config)
    planned = plan_runs(request)
    with locked(request.output / ".lock", wait=False) as held:
        if not held:
            raise MimError(f"{request.output}: another sweep is writing to it; wait for it, or give --output another")
        check_begun(planned)
        swept = [SweptRun(run) for run in planned]
        place, asked = 0, False

        def stop() -> Interrupted:
            nonlocal asked
            asked = True
            return Interrupted(place, f"run {place + 1} of {len(planned)}, finished runs:")

        with stopped_by(stop):
            begun = time.monotonic()
            for place, run in enumerate(planned):
                logger.info("run %d of %d: %s", place + 1, len(planned), run)
                swept[place] = attempt(run, request, curve)
                with writing(request.output):
                    write_runs(request, curve, swept)
                minutes = (time.monotonic() - begun) / 60
                logger.info("%d of %d runs after %.1f minutes", place + 1, len(planned), minutes)
                if asked:  # and something below took the stop for an error of its own
                    raise stop()
        failed = [run for run in swept if run.state == "failed"]
        if len(failed) < len(swept):
            with writing(request.output):
                write_lines(*write_results(request, curve, swept))
    if failed:
        raise MimError(
            f"{request.output}: {len(failed)} of {len(swept)} runs failed, the first ({failed[0].planned}): "
            f"{failed[0].reason}; all are in sweep.csv, and the same command tries them again"
        )
    return request.output


def attempt(planned: PlannedRun, request: SweepRequest, curve: Curve) -> SweptRun:
    """Trains and measures one run, or finds that it is done; a failure is kept, with its reason."""
    try:
        return SweptRun(planned, one_run(planned, request, curve))
    except Interrupted:
        raise
    except MimError as error:
        reason = str(error)
        logger.error("failed: %s: %s", planned, reason)
    except Exception as error:  # memory that does not suffice, a fault: the other runs shall go on
        reason = f"{type(error).__name__}: {error}"
        logger.exception("failed: %s", planned)
    return SweptRun(planned, reason=" ".join(reason.split()))


def one_run(planned: PlannedRun, request: SweepRequest, curve: Curve) -> Swept:
    """Trains and measures one run, as far as that is not done.

    Raises:
        MimError: it cannot be trained or measured, or some test films or boxes have no score.
        Interrupted: the run was asked to stop and saved itself.
    """
    if (planned.folder / "finished.json").is_file():
        logger.info("%s is finished", planned.folder)
    else:
        finetune(planned.config)
    config = EvaluateConfig(
        bootstrap=request.bootstrap,
        confidence=request.confidence,
        accelerator=planned.config.training.accelerator,
        faithfulness=FaithfulnessConfig(enabled=False),
    )
    return curve.measure(FinishedRun.read(planned.folder), config, evaluate)


def parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    line = argparse.ArgumentParser(
        prog="python -m mim.stages.sweep",
        description="Fine-tune and measure every combination of label fractions, seeds and initialisations, and draw "
        "what labels are worth. The same command goes on where it was stopped; what is finished is not done again.",
        epilog="example: python -m mim.stages.sweep configs/finetune/classify.yaml data.path=films "
        "data.labels=labels.csv data.target=caries --fractions 0.1 0.25 1 --seeds 0 1 2 "
        "--inits scratch runs/mae_vit_tiny --output runs/sweep",
    )
    line.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="settings of finetune.py, for every run")
    line.add_argument("settings", nargs="*", metavar="key=value", help="further settings of finetune.py")
    line.add_argument("--fractions", nargs="+", type=float, default=[1.0], metavar="F",
                      help="shares of the training patients whose labels are used; default 1")  # fmt: skip
    line.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N",
                      help="seeds of training and of the draw of the labels; default 0")  # fmt: skip
    line.add_argument("--inits", nargs="+", default=[SCRATCH], metavar="RUN",
                      help="runs of train.py to start from; scratch = the network of the first of them, or of the "
                      "settings, with fresh weights; default scratch")  # fmt: skip
    line.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the sweep")
    line.add_argument("--bootstrap", type=int, default=2000, metavar="N",
                      help="resamples of patients and seeds for the intervals; default 2000")  # fmt: skip
    line.add_argument("--confidence", type=float, default=0.95, help="level of the intervals; default 0.95")
    return line


def read_request(arguments: Sequence[str] | None) -> SweepRequest:
    """Reads a command line.

    Raises:
        MimError: settings that cannot be used, or that the sweep itself sets.
    """
    options = parser().parse_intermixed_args(arguments)
    given = [text for text in (options.config, *options.settings) if text is not None]
    files = [text for text in given if "=" not in text or Path(text).is_file()]
    settings = [text for text in given if text not in files]
    if len(files) > 1:
        raise MimError(f"{files[1]}: a YAML file is given already, {files[0]}; settings are written key=value")
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in VARIED:
            raise MimError(f"{key} is set by the sweep for each run: give {VARIED[key]}")
    return SweepRequest(
        load_config(FinetuneConfig, Path(files[0]) if files else None, settings),
        tuple(options.fractions),
        tuple(options.seeds),
        tuple(options.inits),
        options.output,
        options.bootstrap,
        options.confidence,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status: 0, 2 for bad input or a failed run, 75 where it can go on."""

    def work() -> None:
        start_logging()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise MimError("a sweep is one process: start it without torchrun, and several sweeps with other --output")
        sweep(read_request(arguments))

    return door(work)


if __name__ == "__main__":
    sys.exit(main())
