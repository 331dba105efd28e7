import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from mim.config import FinetuneConfig, load_config
from mim.errors import MimError
from mim.models import create_encoder
from mim.stages.finetune import check_imbalance
from mim.stages.task_kinds import check_settings
from mim.tasks import MaskedClassifier
from mim.tasks.focal import focal_loss

LOGITS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 4
LABEL = torch.randint(2, (64,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_two_classes_give_the_published_loss(gamma: float) -> None:
    odds = LOGITS[:, 1] - LOGITS[:, 0]
    expected = sigmoid_focal_loss(odds, LABEL.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal_loss(LOGITS, LABEL, gamma), expected)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.3, 1.7])])
def test_without_gamma_it_is_the_cross_entropy(weight: torch.Tensor | None) -> None:
    torch.testing.assert_close(focal_loss(LOGITS, LABEL, 0.0, weight), F.cross_entropy(LOGITS, LABEL, weight=weight))


def test_a_film_that_is_certain_gives_a_finite_gradient_and_hardly_any_loss() -> None:
    logits = torch.tensor([[80.0, -80.0], [0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1]), 2.0)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().sum() < 1e-6 < logits.grad[1].abs().sum()


def test_the_classifier_learns_by_it() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("vit_tiny_patch16_224", (32, 32), 1, "drop", depth=1, embed_dim=24, num_heads=2)
    batch = {"image": torch.rand(6, 1, 32, 32), "label": torch.tensor([0, 1, 1, 0, 0, 1])}
    weights = torch.tensor([0.5, 1.5])
    task = MaskedClassifier(encoder, class_weights=weights, focal_gamma=2.0)
    out = task(batch)
    torch.testing.assert_close(out["loss"], focal_loss(out["logits"], batch["label"], 2.0, weights))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["sampling=balanced"], "class_weights=false"),
        (["loss=focal", "smoothing=0.1"], "smoothing is of loss=cross_entropy"),
        (["focal_gamma=1"], "focal_gamma is read only with loss=focal"),
        (["task=study", "loss=focal"], "loss is read only with task=classify"),
        (["task=study", "sampling=balanced"], "sampling is read only with task=classify"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: list[str], said: str) -> None:
    config = load_config(FinetuneConfig, None, settings)
    check = check_imbalance if config.task == "classify" and config.focal_gamma == 2 else check_settings
    with pytest.raises(MimError, match=said):
        check(config)
