"""What a prediction is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction is asked for.

    Attributes:
        run: folder of a finished run.
        paths: files and folders of films.
        output: folder of predictions.json and overlays; None = nothing is written there.
        json: a file that gets predictions.json as well, "-" = standard output; None = none.
        allow: in what films may differ from those of the training (`mim.stages.made_for.Difference`).
        batch_size: films at a time.
        accelerator: device.
        threshold: at which films are called positive; None = as `evaluate.py` chose it.
        overlays: whether pictures are drawn.
        overlay_side: their longer side in pixels.
        studies: a CSV that groups files into studies, for runs on studies; None = headers and folders do.
        dicom: whether DICOM reports and segmentations are written.
        overwrite: whether results that are there already are forgotten.
        hide_names: whether files are called by the hash of their content.
        workers: processes that read files; None = all cores.
    """

    run: Path
    paths: tuple[Path, ...]
    output: Path | None
    json: str | None = None
    allow: frozenset[str] = frozenset()
    batch_size: int = 64
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    threshold: float | None = None
    overlays: bool = True
    overlay_side: int = 768
    studies: Path | None = None
    dicom: bool = False
    overwrite: bool = False
    hide_names: bool = False
    workers: int | None = None
