"""The loop that trains any task."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mim.config import RunConfig
from mim.errors import Interrupted, MimError
from mim.training.checkpoint import CheckpointStore, TrainingState, check_fingerprint
from mim.training.distributed import on_rank_zero
from mim.training.looks import Looks
from mim.training.nonfinite import BadStep, save_batches, save_model
from mim.training.optimizer import build_average, build_optimizer, set_learning_rate
from mim.training.plan import Plan
from mim.training.progress import Progress
from mim.training.reading import Reading, StepResult
from mim.training.run_folder import RunFolder
from mim.training.signals import StopSignals
from mim.training.step import Batches, accumulate_gradient, derive_seed, draw_batches
from mim.training.tracking import Tracker
from mim.training.validation import EpochEnd, validate
from mim.training.weights import Best, Monitor, is_better, load_weights, read_best, save_best, save_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        steps: steps done.
        seconds: time they took, over all starts.
        images_per_second: images that all ranks took in a second of training, since the last start.
        data_wait: share of that time in which the loop waited for batches.
        figures: those that were taken last: at the end of an epoch, or by a look.
        best: the best value of the figure that is watched, if one is, and its step.
        skipped_steps: those of the steps that changed no weight, because loss or gradient was not finite.
    """

    steps: int
    seconds: float
    images_per_second: float
    data_wait: float
    figures: dict[str, float]
    best: Best | None
    skipped_steps: int


def train_task(
    fabric: Fabric,
    task: nn.Module,
    batches: Batches,
    *,
    config: RunConfig,
    folder: RunFolder,
    steps_per_epoch: int,
    fingerprint: Mapping[str, str],
    on_epoch_end: EpochEnd | None = None,
    monitor: Monitor | None = None,
    looks: Looks | None = None,
    on_begin: Callable[[], object] | None = None,
    read_late: bool | None = None,
) -> Outcome:
    """Trains a task to its end, from the newest checkpoint of its folder if there is one.

    A task is called with a batch and gives a dict with a `loss` and named scalars to log; it has an `encoder` with a
    timm model as its `backbone`. If it has a method `set_progress`, that is told before each step which share of the
    steps is done; a method `after_step` is called when the step has changed the weights.

    At the end `model.safetensors` is written: the best weights where a figure is watched, the last ones otherwise, of
    the moving average where there is one. On rank 0 the task then holds these weights.

    Args:
        fabric: from `make_fabric`.
        task: the same on all ranks; it is moved to the device.
        batches: given the number of steps done, begins with the batches of the next one, on any device: for each step
            as many as `training.accumulate` says, this rank's share of the films, without end.
        config: settings of the run.
        folder: from `open_run`.
        steps_per_epoch: steps of one pass over the films.
        fingerprint: what must not change while the run goes on, such as the hashes of configuration and split.
        on_epoch_end: called on rank 0 only, after every epoch and after the last step, with the steps done, the epoch
            (from 1) and the module whose weights count, in eval mode and without gradients. It gives figures to log.
            It must not talk to the other ranks, which wait for it.
        monitor: the one of these figures that says which weights are the best.
        looks: what to look at, after which steps; no step comes out otherwise for it.
        on_begin: called on rank 0 before the first step, once it is sure that the folder holds no run of other films:
            the place to write down what the run is on.
        read_late: whether the figures of a step are read while the device is busy with the next one, so that it never
            waits for the loop; None = on a GPU. Whether a step counts is then decided on the device. What is written is
            the same; only where a step is skipped do a moving average and a teacher follow the unchanged weights.

    Returns:
        What the run came to.

    Raises:
        MimError: the loss or the gradient is not finite in more steps in a row than `training.max_skipped`, a file
            cannot be written, or the folder holds another run.
        Interrupted: the run was asked to stop, and its checkpoint was written.
    """
    plan = Plan.from_config(config.training, steps_per_epoch)
    task = fabric.to_device(task)
    state = TrainingState(task, build_optimizer(task, config.optimizer), build_average(task, config.optimizer))
    late = fabric.device.type == "cuda" if read_late is None else read_late
    run = _Run(fabric, config, folder, plan, state, dict(fingerprint), on_epoch_end, monitor, looks, late)
    return run.train(batches, on_begin or (lambda: None))


class _Run:
    """What the parts of the loop share."""

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        folder: RunFolder,
        plan: Plan,
        state: TrainingState,
        fingerprint: dict[str, Any],
        on_epoch_end: EpochEnd | None,
        monitor: Monitor | None,
        looks: Looks | None,
        late: bool,
    ) -> None:
        self.fabric = fabric
        self.config = config
        self.folder = folder
        self.plan = plan
        self.state = state
        self.fingerprint = fingerprint | {"steps": plan.total_steps, "steps per epoch": plan.steps_per_epoch}
        self.on_epoch_end = on_epoch_end
        self.monitor = monitor
        self.looks = looks or Looks(frozenset(), lambda *_: {})
        self.store = CheckpointStore(folder.checkpoints, config.training.keep_checkpoints)
        self.tracker: Tracker | None = None
        self.progress: Progress | None = None
        self.began = time.monotonic()
        # a run that stops at the first bad step keeps the weights that the step met: it cannot be a step ahead
        self.late = late and config.training.max_skipped > 0
        self.unread: deque[Reading] = deque()
        self.read_at = time.monotonic()
        self.images, self.seconds, self.waited = 0, 0.0, 0.0

    def train(self, batches: Batches, on_begin: Callable[[], object]) -> Outcome:
        """Goes from where the run stands to its end."""
        state, plan = self.state, self.plan
        metrics_lines = self.resume()
        on_rank_zero(self.fabric, on_begin)
        if self.config.training.compile:
            state.task.compile()  # in place, so that no key of its state changes
        module, optimizer = self.fabric.setup(state.task, state.optimizer)
        self.began = time.monotonic() - state.seconds
        with ExitStack() as stack:
            signals = stack.enter_context(StopSignals())
            on_rank_zero(self.fabric, lambda: self.open_tracker(stack, metrics_lines))
            shown = self.fabric.is_global_zero
            self.progress = stack.enter_context(Progress(plan.total_steps, state.step, shown=shown))
            if self.is_measured(state.step) and state.validated < state.step:
                self.measure()
                self.save()
            stream = stack.enter_context(closing(draw_batches(batches, state.step)))
            module.train()
            while state.step < plan.total_steps:
                self.read_at = self.read_at if self.unread else time.monotonic()
                self.unread.append(self.step(module, optimizer, stream, signals))
                self.settle()
                if self.is_measured(state.step):
                    self.measure()
                if self.is_saved(state.step):
                    self.save()
            state.best = on_rank_zero(self.fabric, self.export)
        seconds = max(self.seconds, 1e-9)
        rate, waiting = self.images / seconds, self.waited / seconds
        return Outcome(state.step, state.seconds, rate, waiting, state.figures, state.best, state.skipped)

    def settle(self) -> None:
        """Reads what can be read: all steps but the newest, or all where something rests on them.

        Raises:
            Interrupted: the run was asked to stop, and saved itself.
        """
        step = self.state.step
        everything = self.is_measured(step) or self.is_saved(step)
        stop = False
        # asked anew each time: once a step was skipped, none may be begun before all are read
        while len(self.unread) > (1 if self.is_late() and not everything and not stop else 0):
            stop = self.finish(self.unread.popleft()) or stop
        if stop:
            self.save()
            raise Interrupted(step)

    def is_late(self) -> bool:
        """Whether a step may be begun before the last one was read; not while steps are being skipped."""
        return self.late and not self.state.skipped_in_a_row

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint is written after a step."""
        return step % self.config.training.checkpoint_every == 0 or step == self.plan.total_steps

    def open_tracker(self, stack: ExitStack, metrics_lines: int) -> None:
        """Opens the places where figures go, on the rank that writes them."""
        self.tracker = stack.enter_context(Tracker(self.folder, self.config, self.state.step, metrics_lines))

    def resume(self) -> int:
        """Takes over the newest checkpoint, if there is one; gives the lines that metrics.jsonl had then."""
        path = on_rank_zero(self.fabric, self.store.newest)
        if path is None:
            return 0
        saved = self.store.load(path)
        check_fingerprint(path, saved["fingerprint"], self.fingerprint)
        try:
            self.state.load_state_dict(saved)
        except (KeyError, RuntimeError, ValueError) as error:
            problem = str(error).splitlines()[0]
            raise MimError(f"{path}: does not fit the task ({problem}); give output=another folder") from error
        # The file is newer than the checkpoint where a run was killed between the two.
        best = read_best(self.folder.best)
        if self.state.best is not None and best is None:
            logger.warning("%s is gone or damaged; the best weights are sought anew from here", self.folder.best)
        self.state.best = best
        return int(saved["metrics_lines"])

    def step(self, module: Any, optimizer: Any, stream: Iterator[dict[str, Tensor]], signals: StopSignals) -> Reading:
        """Does one step, which changes nothing if the loss or the gradient is not finite."""
        state, config = self.state, self.config
        tell_progress(state.task, state.step / self.plan.total_steps)
        rate = set_learning_rate(state.optimizer, state.step, self.plan.total_steps, config.optimizer)
        optimizer.zero_grad()
        buffers = [buffer.clone() for buffer in state.task.buffers()]  # statistics of batch norm
        ours = accumulate_gradient(self.fabric, module, stream, config, state.step)
        norm = self.fabric.clip_gradients(
            module, optimizer, max_norm=config.optimizer.clip_norm or math.inf, error_if_nonfinite=False
        )
        state.step += 1
        reading = Reading(self.fabric, ours, norm, step=state.step, rate=rate, stop=signals.came)
        late = self.is_late()
        if late or reading.read().problem is not None:
            for buffer, before in zip(state.task.buffers(), buffers, strict=True):
                buffer.copy_(torch.where(reading.bad, before, buffer))
        if not late and reading.read().problem is not None:
            return reading
        fused: Any = state.optimizer
        fused.found_inf = reading.bad.float() if late else None  # where it is 1 the weights stay as they are
        optimizer.step()
        tell_step(state.task)
        if state.average is not None:
            state.average.update(state.task, step=state.step)
        return reading

    def finish(self, reading: Reading) -> bool:
        """Counts a step and writes its figures down; says whether the run must stop.

        Raises:
            MimError: too many steps in a row were skipped.
        """
        result = reading.read()
        now = time.monotonic()
        took, self.read_at = max(now - self.read_at, 1e-9), now
        self.images, self.seconds, self.waited = (
            self.images + result.images,
            self.seconds + took,
            self.waited + result.waited,
        )
        if result.problem is None:
            self.state.skipped_in_a_row = 0
        else:
            self.skip(reading, result.problem)
        timings = {"images_per_second": result.images / took, "data_wait": result.waited / took}
        assert self.progress is not None
        self.progress.advance(result.figures["loss"], **timings)
        self.log(reading, result, timings)
        return result.stop

    def skip(self, reading: Reading, problem: str) -> None:
        """Counts a step that changed nothing; stops the run, and keeps what the step met, where there are too many."""
        state, training = self.state, self.config.training
        state.skipped += 1
        state.skipped_in_a_row += 1
        if state.skipped_in_a_row <= training.max_skipped:
            logger.warning("%s at step %d: the step is skipped", problem, reading.step)
            return
        rank, path = self.fabric.global_rank, self.folder.path
        seeds = [derive_seed(self.config.seed, reading.step - 1, place, rank) for place in range(len(reading.batches))]
        bad = BadStep(reading.step, problem, state.skipped_in_a_row, seeds, training.precision, self.plan.total_steps)
        save_batches(path, rank, reading.batches, bad)
        on_rank_zero(self.fabric, lambda: save_model(path, state.task))
        precision = "" if training.precision == "32-true" else " or give training.precision=32-true"
        earlier = f" and so it was in the {training.max_skipped} steps before" if training.max_skipped else ""
        raise MimError(
            f"{problem} at step {reading.step}{earlier} (training.max_skipped={training.max_skipped}); lower "
            f"optimizer.lr{precision}; {self.store.describe_newest()}; where it began: "
            f"python -m mim.stages.replay {path}"
        )

    def log(self, reading: Reading, result: StepResult, timings: Mapping[str, float]) -> None:
        """Writes the figures of a step."""
        if self.tracker is None:
            return
        figures = {f"train/{name}": value for name, value in result.figures.items()}
        if result.problem is not None:
            figures["train/skipped_steps"] = self.state.skipped
        figures["train/learning_rate"] = reading.rate
        self.tracker.write(reading.step, self.plan.epoch(reading.step), figures, timings)

    def is_measured(self, step: int) -> bool:
        """Whether figures are taken after a step: at the end of an epoch, or where the run is looked at."""
        return (self.on_epoch_end is not None and self.plan.ends_epoch(step)) or step in self.looks.steps

    def measure(self) -> None:
        """Takes figures on rank 0, and keeps the weights if they are the best so far."""
        self.state.figures = on_rank_zero(self.fabric, self.take_figures)
        self.state.validated = self.state.step

    def take_figures(self) -> dict[str, float]:
        """Asks the caller for figures, writes them down and keeps the best weights."""
        if self.tracker is None:
            return {}
        step, epoch, module = self.state.step, self.plan.epoch(self.state.step), self.state.exported
        tell_progress(module, step / self.plan.total_steps)
        figures: dict[str, float] = {}
        if step in self.looks.steps:
            seed = derive_seed(self.config.seed, step, -2, 0)
            figures |= validate(self.fabric, module, self.looks.look, step=step, epoch=epoch, seed=seed)
        if self.on_epoch_end is not None and self.plan.ends_epoch(step):
            seed = derive_seed(self.config.seed, step, -1, 0)
            figures |= validate(self.fabric, module, self.on_epoch_end, step=step, epoch=epoch, seed=seed)
            if self.monitor is not None:
                self.keep_best(figures, self.monitor)
        if figures:
            self.tracker.write(step, epoch, figures)
        return figures

    def keep_best(self, figures: Mapping[str, float], monitor: Monitor) -> None:
        """Writes the weights if the figure that is watched was never better."""
        if monitor.figure not in figures:
            raise MimError(f"{monitor.figure} is to be watched and is not among the figures: {', '.join(figures)}")
        value = figures[monitor.figure]
        if self.state.step >= monitor.since and is_better(value, self.state.best, monitor.mode):
            self.state.best = Best(value, self.state.step)
            save_best(self.folder.best, self.state.exported, self.state.best)

    def save(self) -> None:
        """Writes a checkpoint on rank 0."""
        self.state.seconds = time.monotonic() - self.began
        on_rank_zero(self.fabric, self.write_checkpoint)

    def write_checkpoint(self) -> None:
        """Writes a checkpoint, once the lines that it counts on are safe."""
        lines = 0
        if self.tracker is not None:
            self.tracker.metrics.sync()
            lines = self.tracker.metrics.lines
        self.store.save({**self.state.state_dict(), "fingerprint": self.fingerprint, "metrics_lines": lines})

    def export(self) -> Best | None:
        """Writes the weights that the run is for, leaves them in the task, and says by what they are the best."""
        task, state = self.state.task, self.state
        if state.best is not None:
            task.load_state_dict(load_weights(self.folder.best))
        else:
            if self.monitor is not None:
                logger.warning("%s was never finite; the last weights are taken", self.monitor.figure)
            task.load_state_dict(state.exported.state_dict())
        save_weights(self.folder.weights, task)
        return state.best


def tell_progress(task: nn.Module, fraction: float) -> None:
    """Tells a task that wants to know which share of the steps is done."""
    listener = getattr(task, "set_progress", None)
    if callable(listener):
        listener(fraction)


def tell_step(task: nn.Module) -> None:
    """Tells a task that wants to know that a step has changed its weights, as one with a teacher does."""
    listener = getattr(task, "after_step", None)
    if callable(listener):
        listener()
