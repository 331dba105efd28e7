"""Selecting features on every training set of a cross-validation by patient, beside logistic regressions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mim.config.select_features import FeatureMaskerConfig
from mim.data.drawing import assign_folds
from mim.data.seed import derive_seed
from mim.errors import MimError
from mim.masking import FeatureMasker
from mim.tasks.feature_selection import MaskedFeatureClassifier

PENALTIES = tuple(float(value) for value in np.logspace(-3, 1, 9))  # C of scikit-learn, chosen on inner folds
INNER_FOLDS = 3
TUNING_STEPS = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Rows to learn from.

    Attributes:
        values: (N, F) float32, NaN where missing.
        names: F names.
        label: (N,) of 0 and 1.
        patient: N names of patients, one a row.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...]
    label: NDArray[np.int64]
    patient: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FoldResults:
    """What came of M training sets.

    Attributes:
        selected: (M, F) bool, what the masker kept.
        chance: (M, F) chance of an open gate.
        weight: (M, F) weight of the head for the second class less the first, in units of the deviation; 0 where not
            selected.
        lasso: (M, F) bool, what L1 left a weight.
        score: By model (`masker`, `all`, `l1`), (N,) chance of the second class, mean over repeats, each row scored by
            models that never met its patient.
    """

    selected: NDArray[np.bool_]
    chance: Floats
    weight: Floats
    lasso: NDArray[np.bool_]
    score: Mapping[str, Floats]


def check_table(table: FeatureTable, folds: int) -> None:
    """Makes sure that there is something to choose from and enough patients to choose by.

    Raises:
        MimError: in one line, naming the column or the class.
    """
    for number, name in enumerate(table.names):
        known = table.values[:, number][~np.isnan(table.values[:, number])]
        if not len(known):
            raise MimError(f"feature {name} is missing in every row that is used: leave it out (data.clinical)")
        if (known == known[0]).all() and len(known) == len(table.values):
            raise MimError(f"feature {name} is the same in every row that is used: leave it out (data.clinical)")
    for label in (0, 1):
        patients = {who for who, own in zip(table.patient, table.label, strict=True) if own == label}
        if len(patients) < 2 * folds:
            raise MimError(
                f"{len(patients)} patients of class {label} are too few for {folds} folds: at least {2 * folds} are "
                "needed; lower folds, or add patients"
            )


def select_on_folds(
    table: FeatureTable, settings: FeatureMaskerConfig, *, folds: int, repeats: int, seed: int
) -> FoldResults:
    """Selects, learns and scores on every training set. Whatever is fitted is fitted on its rows alone.

    Raises:
        MimError: as `check_table`.
    """
    check_table(table, folds)
    selected, chance, weight, lasso = [], [], [], []
    score = {name: np.zeros(len(table.label)) for name in ("masker", "all", "l1")}
    for number, (train, test) in enumerate(divisions(table, folds, repeats, seed)):
        model = fit_masked(table.values[train], table.label[train], settings, derive_seed(seed, "features", number))
        kept = model.masker.selected()
        selected.append(kept.numpy())
        chance.append(model.masker.chance().double().numpy())
        weight.append(((model.head.weight[1] - model.head.weight[0]) * kept).detach().double().numpy())
        score["masker"][test] += predict_masked(model, table.values[test]) / repeats
        inner = list(inner_splits(table, train, derive_seed(seed, "inner", number)))
        for name, ratio in (("all", 0.0), ("l1", 1.0)):
            peer = fit_logistic(table.values[train], table.label[train], inner, ratio)
            score[name][test] += peer.predict_proba(table.values[test])[:, 1] / repeats
            if name == "l1":
                lasso.append(peer[-1].coef_[0, : len(table.names)] != 0)
    return FoldResults(np.array(selected), np.array(chance), np.array(weight), np.array(lasso), score)


def divisions(
    table: FeatureTable, folds: int, repeats: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to learn from and rows to ask, for each fold of each repeat; no patient is in both."""
    for repeat in range(repeats):
        fold_of = assign_folds(patient_labels(table), folds, derive_seed(seed, "folds", repeat))
        own = np.array([fold_of[who] for who in table.patient])
        for fold in range(folds):
            yield np.flatnonzero(own != fold), np.flatnonzero(own == fold)


def inner_splits(
    table: FeatureTable, rows: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divides training rows again, by patient, for a peer's penalty; places among `rows`."""
    part = FeatureTable(table.values[rows], table.names, table.label[rows], tuple(table.patient[row] for row in rows))
    yield from divisions(part, INNER_FOLDS, 1, seed)


def patient_labels(table: FeatureTable) -> dict[str, int]:
    """The highest label of each patient's rows."""
    labels: dict[str, int] = {}
    for who, label in zip(table.patient, table.label, strict=True):
        labels[who] = max(int(label), labels.get(who, 0))
    return labels


def fit_masked(
    values: NDArray[np.float32], label: NDArray[np.int64], settings: FeatureMaskerConfig, seed: int
) -> MaskedFeatureClassifier:
    """Trains gates and head together, then the head alone behind what the gates have come to select."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        masker = FeatureMasker(
            values.shape[1], settings.keep, settings.hidden, settings.gates, settings.temperature, settings.threshold
        )
        batch = {"features": torch.from_numpy(values), "label": torch.from_numpy(label)}
        known = ~np.isnan(values).all(axis=0)  # what this training set does not know at all stays missing
        masker.standardise_by(torch.from_numpy(np.where(known, values, np.float32(0))))
        model = MaskedFeatureClassifier(masker, budget_weight=settings.budget_weight)
        optimizer = torch.optim.Adam(model.parameters(), settings.lr)
        for step in range(settings.steps):
            model.budget_weight = settings.budget_weight * min(1.0, 2 * step / settings.steps)
            optimizer.zero_grad()
            model(batch)["loss"].backward()
            optimizer.step()
    model.eval()
    tune_head(model, batch)
    return model


def tune_head(model: MaskedFeatureClassifier, batch: dict[str, torch.Tensor]) -> None:
    """Brings the head to the optimum for the features that are selected."""
    optimizer = torch.optim.LBFGS(model.head.parameters(), max_iter=TUNING_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(batch)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


@torch.inference_mode()
def predict_masked(model: MaskedFeatureClassifier, values: NDArray[np.float32]) -> Floats:
    """(N,) chance of the second class."""
    logits = model({"features": torch.from_numpy(values)})["logits"]
    score: Floats = logits.double().softmax(dim=1)[:, 1].numpy()
    return score


def fit_logistic(
    values: NDArray[np.float32],
    label: NDArray[np.int64],
    inner: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    l1_ratio: float,
) -> Any:
    """A logistic regression of scikit-learn on all features, missing ones filled by the mean with an indicator.

    Its penalty, L2 (`l1_ratio` 0) or L1 (1), is that with the least log loss on the inner folds: scores of several
    folds are put together, so they must be probabilities and not only in order.
    """
    found = np.zeros(len(PENALTIES))
    for train, test in inner:
        prepared = make_pipeline(*_preparation()).fit(values[train])
        known, asked = prepared.transform(values[train]), prepared.transform(values[test])
        for place, penalty in enumerate(PENALTIES):
            model = _logistic(penalty, l1_ratio).fit(known, label[train])
            found[place] += log_loss(label[test], model.predict_proba(asked)[:, 1], labels=(0, 1))
    best = PENALTIES[int(found.argmin())]
    return make_pipeline(*_preparation(), _logistic(best, l1_ratio)).fit(values, label)


def _preparation() -> tuple[Any, Any]:
    return SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler()


def _logistic(penalty: float, l1_ratio: float) -> Any:
    if l1_ratio == 0:
        return LogisticRegression(C=penalty, max_iter=1000)
    # liblinear penalises the intercept as well; scaled up, it costs next to nothing
    return LogisticRegression(
        C=penalty, l1_ratio=l1_ratio, solver="liblinear", intercept_scaling=100, max_iter=1000, random_state=0
    )
