import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from mim.config import FinetuneConfig, load_config
from mim.errors import MimError
from mim.evaluation.ordinal import median_grade
from mim.masking import PatchMasker
from mim.models import create_encoder
from mim.models.ordered_head import OrderedHead, log_probabilities
from mim.stages.label_kinds import check_label_settings, label_kind, positive_weights
from mim.stages.task_kinds import check_settings
from mim.tasks import MaskedClassifier, MaskTraining
from mim.tasks.label_loss import several_labels_loss

LOGITS = torch.randn(32, 3, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.randint(2, (32, 3), generator=torch.Generator().manual_seed(1))


def small(seed: int = 0):
    torch.manual_seed(seed)
    return create_encoder("vit_tiny_patch16_224", (32, 32), 1, "drop", depth=1, embed_dim=24, num_heads=2)


def batch_of(labels: str) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(8, 1, 32, 32, generator=draws)
    if labels == "several":
        return {"image": image, "label": torch.randint(-1, 2, (8, 3), generator=draws)}
    return {"image": image, "label": torch.arange(8) % 3}


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 7.0])])
def test_known_labels_are_learnt_by_torch_s_binary_cross_entropy(weight: torch.Tensor | None) -> None:
    expected = F.binary_cross_entropy_with_logits(LOGITS, LABELS.float(), pos_weight=weight)
    torch.testing.assert_close(several_labels_loss(LOGITS, LABELS, weight), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_of_labels_is_the_published_one(gamma: float) -> None:
    expected = sigmoid_focal_loss(LOGITS, LABELS.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(several_labels_loss(LOGITS, LABELS, gamma=gamma), expected)


def test_what_is_not_known_has_no_part_in_the_loss() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    label = LABELS.clone()
    label[::2, 1] = -1
    loss = several_labels_loss(logits, label)
    known = label >= 0
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(LOGITS[known], LABELS[known].float()))
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()


def test_a_batch_in_which_nothing_is_known_teaches_nothing() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    loss = several_labels_loss(logits, torch.full_like(LABELS, -1))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_grades_have_the_probabilities_of_a_cumulative_link() -> None:
    severity, cuts = torch.linspace(-6, 6, 25, dtype=torch.float64), torch.tensor([-2.0, 0.5, 0.7, 3.0]).double()
    found = log_probabilities(severity, cuts).exp()
    worse = torch.sigmoid(severity[:, None] - cuts)
    expected = F.pad(worse, (1, 0), value=1.0) - F.pad(worse, (0, 1), value=0.0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(25).double())


def test_the_farthest_severity_has_a_finite_gradient_that_leads_back() -> None:
    severity = torch.tensor([-1e4, 1e4], requires_grad=True)
    found = log_probabilities(severity, torch.tensor([-1.0, 1.0]))
    assert torch.isfinite(found).all()
    F.nll_loss(found, torch.tensor([2, 0])).backward()
    assert severity.grad[0] < 0 < severity.grad[1]


def test_cuts_rise_whatever_is_learnt_and_all_grades_begin_alike() -> None:
    head = OrderedHead(small(), 5)
    torch.testing.assert_close(log_probabilities(torch.zeros(1), head.cuts).exp(), torch.full((1, 5), 0.2))
    with torch.no_grad():
        head.gaps.copy_(torch.tensor([-50.0, 3.0, -9.0]))
        head.first_cut.fill_(4.0)
    assert (head.cuts.diff() > 0).all()
    with pytest.raises(ValueError, match="three or more"):
        OrderedHead(small(), 2)


def test_a_severity_is_learnt_in_its_order() -> None:
    encoder = small()
    task = MaskedClassifier(encoder, 4, labels="ordered")
    label = torch.arange(32) % 4
    image = (label[:, None, None, None] / 4 + 0.1 * torch.rand(32, 1, 32, 32)).clamp(0, 1)
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        task({"image": image, "label": label})["loss"].backward()
        optimizer.step()
    task.eval()
    called = median_grade(task.probabilities(task({"image": image})["logits"]).detach().numpy())
    assert (called == label.numpy()).mean() > 0.9


@pytest.mark.parametrize("labels", ["classes", "ordered", "several"])
@pytest.mark.parametrize("follow", ["label", "network"])
@pytest.mark.parametrize("progress", [0.1, 0.5, 0.9])
def test_every_stage_of_a_learned_masker_works_for_every_kind_of_label(
    labels: str, follow: str, progress: float
) -> None:
    encoder = small()
    masker = PatchMasker(encoder.patch_size, keep=0.5)
    recipe = MaskTraining(stages=(0.3, 0.4, 0.3), follow=follow)
    task = MaskedClassifier(encoder, 3, masker, mask_training=recipe, labels=labels).train()
    task.set_progress(progress)
    out = task(batch_of(labels))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    learns = {name for name, own in task.named_parameters() if own.grad is not None and own.grad.abs().sum() > 0}
    stage = recipe.stage(progress)
    assert any(name.startswith("masker.") for name in learns) == (stage != "network")
    assert any(name.startswith("head.") for name in learns) == (stage != "masker")


@pytest.mark.parametrize("labels", ["classes", "ordered", "several"])
def test_scores_are_probabilities(labels: str) -> None:
    task = MaskedClassifier(small(), 3, labels=labels, class_weights=torch.tensor([0.5, 1.0, 2.0])).eval()
    out = task(batch_of(labels))
    score = task.probabilities(out["logits"].double())
    assert ((score > 0) & (score < 1)).all()
    alone = torch.allclose(score.sum(dim=1), torch.ones(8).double())
    assert alone == (labels != "several")


def test_the_weights_of_two_classes_have_the_names_they_had() -> None:
    task = MaskedClassifier(small(), class_weights=torch.ones(2))
    own = [name for name in task.state_dict() if not name.startswith("encoder.")]
    parts = [f"head.{part}.{what}" for part in ("norm", "linear", "place_norm", "place_linear")
             for what in ("weight", "bias")]  # fmt: skip
    assert own == ["class_weights", *parts]


def test_rare_labels_weigh_as_much_as_the_films_without_them() -> None:
    weights = positive_weights([(1, 0), (0, -1), (0, 1), (0, 0), (-1, 0)])
    torch.testing.assert_close(weights, torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize(
    ("settings", "classes", "kind"),
    [
        (["data.target=caries"], ("0", "1"), "two"),
        (["data.target=tissue"], ("a", "b", "c"), "classes"),
        (["data.target=grade", "data.label_kind=ordered"], ("0", "1", "2"), "ordered"),
        (["data.target=[a, b]"], ("a", "b"), "several"),
    ],
)
def test_settings_and_classes_tell_the_kind(settings: list[str], classes: tuple[str, ...], kind: str) -> None:
    assert label_kind(load_config(FinetuneConfig, None, settings), classes) == kind


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.target=[a]"], "give data.target=a"),
        (["data.target=[a, b, a]"], "names 'a' twice"),
        (["data.target=[a, b]", "data.label_kind=ordered"], "grades stand in one column"),
        (["data.target=[a, b]", "sampling=balanced", "class_weights=false"], "of no one class"),
        (["data.label_order=[a, b, c]"], "read only with data.label_kind=ordered"),
        (["data.label_kind=ordered", "loss=focal"], "knows no order"),
        (["data.label_kind=ordered", "smoothing=0.1"], "farthest grade"),
        (["task=study", "data.target=[a, b]"], "a list of labels is read only with task=classify"),
        (["task=study", "data.label_kind=ordered"], "data.label_kind is read only with task=classify"),
        (["task=detect", "data.label_order=[a, b]"], "data.label_order is read only with task=classify"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: list[str], said: str) -> None:
    config = load_config(FinetuneConfig, None, settings)
    with pytest.raises(MimError, match=said):
        (check_label_settings if config.task == "classify" else check_settings)(config)
