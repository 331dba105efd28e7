"""Which runs a sweep is made of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.config import FinetuneConfig, dump_config
from mim.errors import MimError
from mim.models import read_exported
from mim.training import RunFolder

SCRATCH = "scratch"


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is asked for.

    Attributes:
        config: settings of each run; the sweep says `init`, `init_weights`, `seed`, `data.label_fraction`, `output`.
        fractions: shares of the training labels.
        seeds: seeds of the training and of the draw of the labels.
        inits: runs of train.py, and `scratch` for fresh weights.
        output: the folder of the sweep.
        bootstrap: resamples of patients for the intervals.
        confidence: level of the intervals.

    Raises:
        MimError: a value that is out of its range, or given twice.
    """

    config: FinetuneConfig
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    inits: tuple[str, ...]
    output: Path
    bootstrap: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for option, values in (("fractions", self.fractions), ("seeds", self.seeds), ("inits", self.inits)):
            if not values:
                raise MimError(f"--{option}: give at least one")
            written = [str(Path(value).resolve()) if isinstance(value, str) else f"{value:g}" for value in values]
            if twice := [name for name, count in Counter(written).items() if count > 1]:
                raise MimError(f"--{option}: {twice[0]} is given twice; keep one")
        if wrong := [fraction for fraction in self.fractions if not 0 < fraction <= 1]:
            raise MimError(f"--fractions: {wrong[0]:g} must be above 0 and at most 1")
        if negative := [seed for seed in self.seeds if seed < 0]:
            raise MimError(f"--seeds: {negative[0]} must be 0 or more")
        if self.bootstrap < 100:
            raise MimError(f"--bootstrap: {self.bootstrap} resamples are too few; give at least 100")
        if not 0 < self.confidence < 1:
            raise MimError(f"--confidence: {self.confidence:g} must be between 0 and 1, such as 0.95")


@dataclass(frozen=True)
class PlannedRun:
    """One run of finetune.py.

    Attributes:
        init: name of what it starts from.
        fraction: share of the training labels.
        seed: of the training.
        config: its settings, with its folder as `output`.
    """

    init: str
    fraction: float
    seed: int
    config: FinetuneConfig

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(str(self.config.output))

    def __str__(self) -> str:
        return f"{self.init}, share {self.fraction:g} of the labels, seed {self.seed}"


def plan_runs(request: SweepRequest) -> list[PlannedRun]:
    """Lists the runs, fractions and seeds first, so that initialisations can be compared early.

    `scratch` is the network of the first run among the initialisations, or of the settings, with fresh weights.

    Raises:
        MimError: an initialisation is no finished run, or the settings leave nothing to start from scratch.
    """
    runs = [init for init in request.inits if init != SCRATCH]
    for run in runs:
        read_exported(Path(run))
    chosen = request.config.encoder
    if SCRATCH in request.inits and chosen is not None and (chosen.pretrained or chosen.weights is not None):
        given = "encoder.pretrained" if chosen.pretrained else "encoder.weights"
        raise MimError(f"--inits {SCRATCH}: {given} starts every run from weights of others; leave it out")
    if SCRATCH in request.inits and request.config.tuning != "full":
        raise MimError(f"--inits {SCRATCH}: tuning={request.config.tuning} would leave fresh weights as they are")
    names = name_inits(request.inits)
    planned = []
    for fraction in request.fractions:
        for seed in request.seeds:
            for init, name in zip(request.inits, names, strict=True):
                start = {"init": init, "init_weights": True}
                if init == SCRATCH:
                    start = {"init": runs[0] if runs else request.config.init, "init_weights": False}
                    start = start if start["init"] is not None else {}
                changes = {
                    **start,
                    "seed": seed,
                    "data": request.config.data.model_copy(update={"label_fraction": fraction}),
                    "output": str(request.output / "runs" / name / f"labels-{fraction:g}" / f"seed-{seed}"),
                }
                planned.append(PlannedRun(name, fraction, seed, request.config.model_copy(update=changes)))
    return planned


def name_inits(inits: Sequence[str]) -> list[str]:
    """Short names that tell initialisations apart: folders' names, with those above them as far as needed."""
    parts = {init: Path(init).resolve().parts for init in inits if init != SCRATCH}
    names = []
    for init in inits:
        if init == SCRATCH:
            names.append(SCRATCH)
            continue
        own = parts[init]
        others = [(SCRATCH,), *(other for name, other in parts.items() if name != init)]
        depth = next(
            (deep for deep in range(1, len(own)) if all(other[-deep:] != own[-deep:] for other in others)), len(own)
        )
        names.append("-".join(part.strip("/") for part in own[-depth:]))
    return names


def check_begun(planned: Sequence[PlannedRun]) -> None:
    """Makes sure that what was begun was begun with these settings, before anything is trained.

    Raises:
        MimError: a run was begun with others, or something else writes to it.
    """
    for run in planned:
        if (run.folder / "config.yaml").is_file():
            folder = RunFolder(run.folder)
            folder.claim(dump_config(run.config))
            folder.release()
