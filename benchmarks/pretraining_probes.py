"""What an encoder is worth: nearest neighbours, a linear probe, and fine-tuning; the same code for every arm."""

import logging
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pretraining_films import Labelled, Trial
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mim.config import FinetuneConfig, dump_config
from mim.data import PreparedDataset
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import FilmDataset, evaluation_loader
from mim.models import Encoder
from mim.stages.common import TrainBatches, steps_per_epoch
from mim.tasks import MaskedClassifier
from mim.training import Plan, make_fabric, open_run, train_task

Floats = npt.NDArray[np.float64]
NEIGHBOURS = 20
TEMPERATURE = 0.07
STRENGTHS = np.logspace(-4, 1, 6)  # inverse regularisation of the linear probe


def probe(encoder: Encoder, films: PreparedDataset, trial: Trial, mean: float, std: float) -> dict[str, Floats]:
    """Scores of the test films by nearest neighbours and by logistic regression on pooled features."""
    known = pooled_features(encoder, films, trial.train.index, mean, std)
    asked = pooled_features(encoder, films, trial.test.index, mean, std)
    label = np.array(trial.train.label)
    return {"knn": nearest(known, label, asked), "linear": linear(known, label, trial.train.patient, asked)}


@torch.no_grad()
def pooled_features(encoder: Encoder, films: PreparedDataset, index: list[int], mean: float, std: float) -> Floats:
    """(N, D) of whole films, nothing hidden, in float32."""
    encoder.eval()
    dataset = FilmDataset(films, index, evaluation_transform(encoder.image_size), 0)
    batches = evaluation_loader(dataset, batch_size=64, workers=0)
    return torch.cat([encoder((batch["image"] - mean) / std).pooled for batch in batches]).double().numpy()


def nearest(known: Floats, label: npt.NDArray[np.int64], asked: Floats) -> Floats:
    """Share of class 1 among the 20 nearest by cosine, weighted as by Wu et al. (CVPR 2018, section 3.4)."""
    known = known / np.linalg.norm(known, axis=1, keepdims=True)
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    similarity = asked @ known.T  # (N, known)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
    weight = np.exp((np.take_along_axis(similarity, order, axis=1) - 1) / TEMPERATURE)
    share: Floats = (weight * label[order]).sum(axis=1) / weight.sum(axis=1)
    return share


def linear(known: Floats, label: npt.NDArray[np.int64], patients: list[int], asked: Floats) -> Floats:
    """Logistic regression on standardised features; its strength is chosen by patients of the training films."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="roc_auc", cv=GroupKFold(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(known, label, groups=patients)
    scores: Floats = search.predict_proba(asked)[:, 1]
    return scores


def finetune(
    encoder: Encoder,
    films: PreparedDataset,
    trial: Trial,
    config: FinetuneConfig,
    folder: Path,
    mean: float,
    std: float,
) -> tuple[Floats, float]:
    """Trains all of an encoder and a head on the labelled films, and scores the test films with the last weights.

    No film is spent on validation: of 200 labels none is left over.

    Returns:
        Scores of the test films, and the seconds that the training took.
    """
    logging.getLogger("mim").setLevel(logging.WARNING)
    torch.manual_seed(config.seed)
    task = MaskedClassifier(
        encoder, class_weights=class_weights(trial.train), smoothing=config.smoothing, mean=mean, std=std
    )
    transform = train_transform(config.augment, encoder.image_size)
    train, test = trial.train, trial.test
    dataset = FilmDataset(films, train.index, transform, config.seed, labels=train.label, integers=True)
    fabric = make_fabric(config.training)
    per_epoch = steps_per_epoch(config, len(train.index), fabric.world_size)
    plan = Plan.from_config(config.training, per_epoch)
    with open_run(fabric, folder, dump_config(config)) as run:
        outcome = train_task(
            fabric,
            task,
            TrainBatches(dataset, config, fabric, plan.total_steps),
            config=config,
            folder=run,
            steps_per_epoch=per_epoch,
            fingerprint={},
        )
    task.eval()
    measured = FilmDataset(films, test.index, evaluation_transform(encoder.image_size), 0)
    with torch.no_grad():
        batches = evaluation_loader(measured, batch_size=64, workers=0)
        scores = torch.cat([task({"image": batch["image"]})["logits"].softmax(dim=1)[:, 1] for batch in batches])
    return scores.double().numpy(), outcome.seconds


def class_weights(films: Labelled) -> Tensor:
    """(2,) inverse frequencies, mean 1 over the training films."""
    counts = torch.bincount(torch.tensor(films.label), minlength=2).float()
    return counts.sum() / (2 * counts)
