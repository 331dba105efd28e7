"""Choosing the threshold of an input masker so that lesions stay visible: scores, curves and a proposal."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mim.config import FinetuneConfig
from mim.data import LabelledFilm
from mim.data.annotations import Annotations
from mim.data.loader import evaluation_loader
from mim.errors import MimError
from mim.evaluation import Intervals
from mim.evaluation.figures import Figure
from mim.evaluation.lesion_recall import LEAST_VISIBLE, ROUNDING, recall_figure
from mim.evaluation.lesions_kept import last_thresholds, threshold_for_recall
from mim.evaluation.threshold_plot import ThresholdCurve, threshold_picture
from mim.files import write_atomically
from mim.masking import ThresholdMasker
from mim.masking.cutoff import Cutoff, check_cutoff
from mim.models import Encoder
from mim.stages.classifier import first_encoder
from mim.stages.common import NetworkInput, logger, write_lines, writing
from mim.stages.finetune import count_met, known_lesions, labelled_films, make_dataset
from mim.stages.masker import build_masker
from mim.stages.score_source import start_source
from mim.training import make_fabric

POINTS = 201  # of the curve: quantiles of the scores of the validation films
AT_A_TIME = 32  # films whose masks under all thresholds are held at once


@dataclass(frozen=True)
class ThresholdRequest:
    """What is wanted of a threshold.

    Attributes:
        config: of the fine-tuning that is to have it: films, split, masker and encoder are read.
        output: folder of the result.
        recall: share of the lesions of the validation films that must stay visible.
        others: thresholds to hold beside the proposal.
        resamples: of patients, for the interval.
        confidence: level of the interval.
        seed: of the resamples.
    """

    config: FinetuneConfig
    output: Path
    recall: float = 0.98
    others: tuple[Cutoff, ...] = ("otsu",)
    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class ScoredFilms:
    """Scores of the cells of some films, and where their lesions lie.

    Attributes:
        scores: (N, gh, gw).
        lesions: (L, gh, gw) float64, the share of each lesion's area that lies in each cell.
        film: (L,) place of the film that each lesion is on.
        patients: L names.
    """

    scores: Tensor
    lesions: npt.NDArray[np.float64]
    film: npt.NDArray[np.int64]
    patients: tuple[str, ...]


def choose_threshold(request: ThresholdRequest) -> float:
    """Scores the validation and test films, and writes threshold.csv, threshold.json and threshold.png.

    The proposal is the threshold that hides most cells while the wanted share of the validation films' lesions keeps at
    least half its area visible. The test films are only measured at it.

    Returns:
        The proposal.

    Raises:
        MimError: a setting or file is missing or wrong, or the validation films have no lesion.
    """
    config = request.config
    for other in request.others:
        try:
            check_cutoff(other)
        except ValueError as error:
            raise MimError(f"--thresholds: {error}") from error
    if config.data.boxes is None:
        raise MimError("data.boxes is not set: a threshold is chosen by lesions; give --boxes <COCO file in --data>")
    encoder, meets = first_encoder(config)
    films, splits = labelled_films(config)
    count_met(config, films, splits)
    annotations = known_lesions(config.data, films)
    assert annotations is not None
    masker = build_masker(config.masker, encoder, source=start_source(config, encoder, meets))
    assert isinstance(masker, ThresholdMasker)

    def score(chosen: Sequence[LabelledFilm]) -> ScoredFilms:
        dataset = make_dataset(config, films, tuple(chosen), encoder.image_size, training=False)
        fabric = make_fabric(config.training)
        on_device, parts = fabric.to_device(masker), []
        with torch.inference_mode():
            for batch in evaluation_loader(dataset, batch_size=config.training.batch_size, workers=0):
                parts.append(on_device.score({"image": fabric.to_device(batch["image"])}).cpu())
        return ScoredFilms(torch.cat(parts).clone(), *place_lesions(chosen, annotations, encoder))

    val, test = score(splits.val), score(splits.test)
    if not val.patients:
        raise MimError(f"{annotations.path}: no validation film has a lesion, so there is nothing to choose by")
    keep = config.masker.direction
    last = last_thresholds(val.scores.numpy()[val.film], val.lesions, keep)
    chosen = threshold_for_recall(last, request.recall, keep)
    _write(request, masker, meets, {"val": val, "test": test}, chosen)
    return chosen


def place_lesions(
    films: Sequence[LabelledFilm], annotations: Annotations, encoder: Encoder
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Gives the share of each lesion in each cell (L, gh, gw), the place of its film (L,), and its patient."""
    (rows, columns), size = encoder.grid(), encoder.patch_size
    shares, places, patients = [], [], []
    for place, film in enumerate(films):
        for lesion in annotations.of(film.index):
            cells = lesion.draw(encoder.image_size).reshape(rows, size, columns, size).sum(axis=(1, 3))
            shares.append(cells / cells.sum())
            places.append(place)
            patients.append(film.patient_id)
    stacked = np.array(shares, dtype=np.float64).reshape(-1, rows, columns)
    return stacked, np.array(places, dtype=np.int64), tuple(patients)


def measure(
    films: ScoredFilms, thresholds: Sequence[Cutoff], keep: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Asks for several thresholds in one go.

    Returns:
        (T,) share of the cells that is kept; (T, L) whether at least half of a lesion is visible.
    """
    kept = np.zeros(len(thresholds))
    shares = np.zeros((len(thresholds), len(films.film)))
    for start in range(0, len(films.scores), AT_A_TIME):
        scores = films.scores[start : start + AT_A_TIME]
        masker = ThresholdMasker(0.0, scores, "above" if keep == "above" else "below", patch_size=1)
        swept = masker.sweep({"image": scores[:, None]}, thresholds).numpy()  # (T, B, gh, gw)
        kept += swept.mean(axis=(2, 3)).sum(axis=1)
        here = (films.film >= start) & (films.film < start + len(scores))
        shares[:, here] = np.einsum("tlhw,lhw->tl", swept[:, films.film[here] - start], films.lesions[here])
    return kept / max(len(films.scores), 1), shares >= LEAST_VISIBLE - ROUNDING


def _write(
    request: ThresholdRequest,
    masker: ThresholdMasker,
    meets: NetworkInput,
    films: dict[str, ScoredFilms],
    chosen: float,
) -> None:
    keep, score = masker.keep, request.config.masker.score
    val = films["val"]
    spread = torch.quantile(val.scores.double().flatten()[:: 1 + val.scores.numel() // 2**22], _points())
    asked = sorted({*spread.tolist(), chosen})
    rows = {name: measure(one, asked, keep) for name, one in films.items()}
    curves = {
        name: ThresholdCurve(np.array(asked), kept, seen.mean(axis=1) if seen.shape[1] else np.full(len(kept), np.nan))
        for name, (kept, seen) in rows.items()
    }
    at = asked.index(chosen)
    figures = {name: _figure(request, seen[at], films[name]) for name, (_, seen) in rows.items()}
    result = {
        "score": score,
        "keep": keep,
        "threshold": chosen,
        "wanted_lesion_recall": request.recall,
        "image_size": list(meets.image_size),
        "patch_size": masker.patch_size,
        "confidence": request.confidence,
        "splits": {
            name: {
                "films": len(films[name].scores),
                "patients_with_lesions": len(set(films[name].patients)),
                "lesions": len(films[name].patients),
                "keep_rate": float(curves[name].keep_rate[at]),
                "lesion_recall": asdict(figures[name]),
            }
            for name in films
        },
        "other_thresholds": _others(request, films, keep),
    }
    _warn(chosen, val.scores, float(curves["val"].keep_rate[at]))
    inside = val.scores.numpy()[val.film][val.lesions > 0]
    picture = threshold_picture(val.scores.numpy(), inside, curves["val"], chosen, request.recall, score)
    with writing(request.output):
        request.output.mkdir(parents=True, exist_ok=True)
        write_atomically(request.output / "threshold.csv", _table(curves))
        write_atomically(request.output / "threshold.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
        write_atomically(request.output / "threshold.png", picture)
    lines = [_say(name, films[name], curves[name].keep_rate[at], figures[name], request) for name in films]
    write_lines(
        f"threshold {chosen!r} ({score}, kept where {keep} or equal)",
        *lines,
        f"written: {request.output}/threshold.csv, threshold.json, threshold.png",
        f"next: python finetune.py ... masker.kind=threshold masker.score={score} masker.direction={keep} "
        f"masker.threshold={chosen!r}",
    )


def _points() -> Tensor:
    return torch.linspace(0, 1, POINTS, dtype=torch.float64)


def _figure(request: ThresholdRequest, seen: npt.NDArray[np.bool_], films: ScoredFilms) -> Figure:
    intervals = Intervals(request.resamples, request.confidence, request.seed)
    return recall_figure(seen.astype(np.float64), films.patients, intervals)


def _others(request: ThresholdRequest, films: dict[str, ScoredFilms], keep: str) -> list[dict[str, object]]:
    """Keep rate and lesion recall of other thresholds, one row each."""
    measured = {name: measure(one, request.others, keep) for name, one in films.items()}
    rows: list[dict[str, object]] = []
    for place, threshold in enumerate(request.others):
        row: dict[str, object] = {"threshold": threshold}
        for name, (kept, seen) in measured.items():
            recall = float(seen[place].mean()) if seen.shape[1] else None
            row |= {f"{name}_keep_rate": float(kept[place]), f"{name}_lesion_recall": recall}
            if name == "val":
                _warn(threshold, films[name].scores, float(kept[place]))
        rows.append(row)
    return rows


def _warn(threshold: Cutoff, scores: Tensor, kept: float) -> None:
    """Says where a threshold keeps all cells, or none, what the scores are."""
    if kept not in (0.0, 1.0):
        return
    low, first, middle, third, high = np.quantile(scores.numpy(), [0, 0.25, 0.5, 0.75, 1])
    logger.warning(
        "the threshold %s keeps %s of the validation films: scores are %.4g to %.4g, quartiles %.4g, %.4g and %.4g; "
        "%s",
        threshold, "nothing" if kept == 0 else "everything", low, high, first, middle, third,
        "each film would show its best cell alone" if kept == 0 else "another --score or --keep may hide something",
    )  # fmt: skip


def _table(curves: dict[str, ThresholdCurve]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["threshold", *(f"{name}_{what}" for name in curves for what in ("keep_rate", "lesion_recall"))])
    for place, threshold in enumerate(curves["val"].thresholds):
        shares = [share for curve in curves.values() for share in (curve.keep_rate[place], curve.lesion_recall[place])]
        writer.writerow([repr(float(threshold)), *("" if np.isnan(share) else f"{share:.6f}" for share in shares)])
    return file.getvalue()


def _say(name: str, films: ScoredFilms, kept: float, recall: Figure, request: ThresholdRequest) -> str:
    title = {"val": "validation (chosen on it)", "test": "test"}[name]
    head = f"{title}: {len(films.scores)} films, {len(films.patients)} lesions, keep rate {kept:.3f}, lesion recall "
    if recall.value is None:
        return f"{head}none ({recall.reason})"
    if recall.low is None or recall.high is None:
        return f"{head}{recall.value:.3f} (no interval: {recall.reason})"
    return f"{head}{recall.value:.3f} ({request.confidence * 100:g} % interval {recall.low:.3f} to {recall.high:.3f})"
