"""A masker that learns in front of a detector, a segmenter and a study: the stages are those of a classifier."""

import pytest
import torch
from test_detection import SMALL, encoder, films
from test_mask_training import Fixed, copy_of, moved, tiny_run_config
from torch import nn

from mim.errors import Interrupted
from mim.masking import Mask, PatchMasker, SequenceMasker
from mim.models import create_encoder
from mim.tasks import MaskedDetector, MaskedSegmenter, MaskedStudyClassifier, MaskTraining
from mim.tasks.dense import stacked
from mim.tasks.detection import in_sight
from mim.tasks.look import look
from mim.tasks.segmentation import in_sight as pixels_in_sight
from mim.training import build_optimizer, make_fabric, open_run, train_task

HALF = (0.5, 1.0)
PRESENT = [[True, False, True], [False, True, True]]


def network(name="resnet18"):
    torch.manual_seed(0)
    return create_encoder(name, (64, 96), layers=[1, 1, 1, 1]) if name == "resnet18" else encoder(name)


def detector(name="resnet18", head="fcos", keep=0.5, **recipe):
    own = network(name)
    training = MaskTraining(random_keep=HALF, **recipe)
    torch.manual_seed(1)
    masker = PatchMasker(own.patch_size, width=4, keep=keep)
    return MaskedDetector(own, masker, 2, head, mask_training=training, **SMALL)


def segmenter(name="resnet18", keep=0.5, num_classes=1, gate="binary", **recipe):
    own = network(name)
    training = MaskTraining(random_keep=HALF, **recipe)
    torch.manual_seed(1)
    masker = PatchMasker(own.patch_size, width=4, keep=keep, gate=gate)
    return MaskedSegmenter(own, masker, num_classes, channels=16, mask_training=training)


def outlined(seed=0, count=4):
    """The rectangles of both classes, as pixels."""
    batch = four_films(seed)
    lesion = torch.zeros(4, 1, 64, 96, dtype=torch.bool)
    for own, boxes in zip(lesion, batch["boxes"].int().tolist(), strict=True):
        for left, top, right, bottom in boxes:
            own[0, top:bottom, left:right] = True
    return {"image": batch["image"][:count], "lesion": lesion[:count]}


def of_studies(name="resnet18", freeze=False, **recipe):
    own = network(name)
    torch.manual_seed(1)
    masker, film_masker = SequenceMasker(own.width, hidden=4), PatchMasker(own.patch_size, width=4)
    training = MaskTraining(**recipe)
    return MaskedStudyClassifier(own, masker, film_masker, freeze_encoder=freeze, mask_training=training)


def studies(seed=0, fill=0.0, present=None):
    present = torch.tensor(PRESENT if present is None else present)
    image = torch.rand(*present.shape, 1, 64, 96, generator=torch.Generator().manual_seed(seed))
    lesion = torch.zeros(image.shape, dtype=torch.bool)
    lesion[0, 0, :, 8:30, 40:60] = True
    gone = ~present[..., None, None, None]
    batch = {"image": image.masked_fill(gone, fill), "present": present, "lesion": lesion | gone}
    return batch | {"label": torch.arange(len(present)) % 2}


def four_films(seed=0):
    first, second = films(seed=seed), films(seed=seed + 100)
    return {name: torch.cat([first[name], second[name]]) for name in first}


TASKS = {"detect": (detector, four_films), "segment": (segmenter, outlined), "study": (of_studies, studies)}
NETWORK = {"detect": {"encoder", "head"}, "segment": {"encoder", "head"}, "study": {"encoder", "head", "masker"}}
MASKER = {"detect": {"masker"}, "segment": {"masker"}, "study": {"film_masker"}}


@pytest.mark.parametrize("kind", TASKS)
def test_only_the_part_whose_stage_it_is_moves(kind):
    """With weight decay, momentum, and the statistics of batch norms: to the last bit."""
    make, batch = TASKS[kind]
    task = make(stages=(0.25, 0.5, 0.25))
    optimizer = build_optimizer(task, tiny_run_config().optimizer)
    task.train()
    for step, stage in enumerate("AABBBBCC"):
        before = copy_of(task)
        task.set_progress(step / 8)
        optimizer.zero_grad()
        task(batch())["loss"].backward()
        optimizer.step()
        wanted = {"A": NETWORK[kind], "B": MASKER[kind], "C": NETWORK[kind] | MASKER[kind]}[stage]
        assert moved(task, before) == wanted, step


@pytest.mark.parametrize("head", ["retinanet", "fasterrcnn"])
def test_every_head_gives_a_frozen_loss_that_reaches_the_masker(head):
    task = detector(head=head, stages=(0.0, 1.0, 0.0)).train()
    before = copy_of(task)
    task.set_progress(0.5)
    task(films())["loss"].backward()
    assert all(p.grad is not None for p in task.masker.parameters())
    assert not any(p.requires_grad for part in (task.encoder, task.head) for p in part.parameters())
    assert not moved(task, before)


def test_a_frozen_encoder_of_studies_lets_the_gradient_through_and_stays_as_it_is():
    task = of_studies(freeze=True, stages=(0.5, 0.5, 0.0)).train()
    for progress in (0.0, 0.5):
        task.set_progress(progress)
        assert not any(part.training for part in task.encoder.modules())
        before = copy_of(task)
        out = task(studies())
        out["loss"].backward()
        assert "encoder" not in moved(task, before)
    assert all(p.grad is not None for p in task.film_masker.parameters())
    assert not any(p.requires_grad for p in task.encoder.parameters())


@pytest.mark.parametrize(
    ("name", "hidden"), [("vit_tiny_patch16_224", "drop"), ("vit_tiny_patch16_224", "token"), ("resnet18", "sparse")]
)
def test_a_hard_gate_gives_the_maps_of_hiding_and_a_soft_one_weighs(name, hidden):
    own = encoder(name, hidden=hidden)
    task = MaskedDetector(own, num_classes=2, **SMALL).eval()
    visible = torch.rand(2, *own.grid(), generator=torch.Generator().manual_seed(0)) < 0.6
    visible[:, 0, 0] = True

    def levels(mask):
        return task.head.pyramid(*stacked([look(own, films()["image"], mask)]))

    soft = levels(Mask(visible, torch.full(visible.shape, 0.5)))
    dropped, gated, weighed = levels(Mask(visible)), levels(Mask(visible, visible.float())), soft
    for without, behind, half in zip(dropped, gated, weighed, strict=True):
        torch.testing.assert_close(behind, without, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(half, without, atol=1e-2)


def test_gates_of_a_vit_hear_as_much_when_closed_as_when_open():
    task = detector("vit_tiny_patch16_224", stages=(0.0, 1.0, 0.0)).train()
    task.set_progress(0.5)
    drawn = []
    task.masker.register_forward_hook(lambda _, __, mask: drawn.append(mask) or mask.gate.retain_grad())
    task(films())["loss"].backward()
    told, visible = drawn[0].gate.grad.abs(), drawn[0].visible
    assert told[visible].median() > 0
    assert told[~visible].median() < 20 * told[visible].median()


@pytest.mark.parametrize(("name", "gate"), [("vit_tiny_patch16_224", "binary"), ("resnet18", "top_k")])
def test_what_a_learned_masker_hides_cannot_move_a_pixel(name, gate):
    task = segmenter(name, gate=gate).eval()
    image = outlined()["image"]
    mask = task.masker({"image": image})
    before = task({"image": image})
    assert before["visible"].float().mean() == 0.5
    side = task.encoder.patch_size
    cells = mask.visible.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    task.masker = Fixed(mask)  # it looks at the whole film: it is what follows that must not
    for filling in (torch.rand_like(image), torch.full_like(image, torch.nan)):
        assert torch.equal(task({"image": torch.where(cells, image, filling)})["logits"], before["logits"])
    assert not torch.equal(task({"image": torch.where(cells, 1 - image, image)})["logits"], before["logits"])


def test_a_hard_gate_gives_the_logits_of_hiding_and_a_closed_one_hears_as_much_as_an_open_one():
    task = segmenter("vit_tiny_patch16_224", stages=(0.0, 1.0, 0.0)).train()
    task.set_progress(0.5)
    drawn = []
    task.masker.register_forward_hook(lambda _, __, mask: drawn.append(mask) or mask.gate.retain_grad())
    out = task(outlined())
    out["loss_pixels"].backward()
    visible = drawn[0].visible
    told = drawn[0].gate.grad.abs()
    assert told[visible].median() > 0
    assert told[~visible].median() < 20 * told[visible].median()
    task.masker = Fixed(Mask(visible))
    torch.testing.assert_close(task.eval()(outlined())["logits"], out["logits"], atol=1e-4, rtol=1e-3)


def test_of_lesions_that_chance_hides_nothing_is_asked_and_of_those_the_masker_hides_everything():
    visible = torch.tensor([[[True, False], [True, True]]])
    lesion = torch.zeros(1, 2, 4, 8, dtype=torch.bool)
    lesion[:, :, 1:3, 2:7] = True
    left = lesion.clone()
    left[:, :, :2, 4:] = False
    assert torch.equal(pixels_in_sight(lesion, visible), left)

    asked = []
    task = segmenter(stages=(1.0, 0.0, 0.0)).train()
    task._compare = lambda logits, wanted: asked.append(wanted) or logits.mean()
    batch = outlined()
    task.set_progress(0.1)
    shown = [task(batch)["visible"] for _ in range(10)]
    assert min(float(own.float().mean()) for own in shown) >= 0.5
    for own, wanted in zip(shown, asked, strict=True):
        assert torch.equal(wanted, pixels_in_sight(batch["lesion"], own))
    assert any(not torch.equal(wanted, batch["lesion"]) for wanted in asked)
    for share, stages, own in ((0.0, (0.0, 1.0, 0.0), 4), (0.5, (0.0, 0.0, 1.0), 2)):
        task.mask_training = MaskTraining(stages=stages, random_share=share, random_keep=HALF)
        task.set_progress(0.5)
        task(batch)
        assert torch.equal(asked[-1][4 - own :], batch["lesion"][4 - own :])


def test_the_masker_of_several_classes_learns_from_the_pixels_of_any():
    task = segmenter(num_classes=2, stages=(0.0, 1.0, 0.0), task=0.0, supervised=1.0).train()
    task.set_progress(0.5)
    task.encoder.forward = None  # it is not asked
    batch = outlined()
    none = torch.zeros_like(batch["lesion"])
    told = []
    for planes in ((batch["lesion"], none), (none, batch["lesion"]), (none, none)):
        torch.manual_seed(3)
        told.append(task({"image": batch["image"], "lesion": torch.cat(planes, dim=1)})["loss_supervised"].detach())
    assert told[0] == told[1] > 0
    assert told[2] == 0


def test_what_a_learned_masker_hides_cannot_move_a_box():
    task = detector("vit_tiny_patch16_224")
    task.head.detector.score_thresh = 0.0
    task.eval()
    image = films()["image"]
    mask = task.masker({"image": image})
    before = task({"image": image})
    assert before["visible"].float().mean() == 0.5
    cells = mask.visible.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    task.masker = Fixed(mask)  # it looks at the whole film: it is what follows that must not
    for filling in (torch.rand_like(image), torch.full_like(image, torch.nan)):
        after = task({"image": torch.where(cells, image, filling)})
        for key in ("boxes", "box_label", "box_score"):
            assert torch.equal(before[key], after[key])
    assert not torch.equal(task({"image": 1 - image})["box_score"], before["box_score"])


def test_random_masks_of_a_detector_show_half_and_ask_for_no_box_that_they_hide():
    task = detector(stages=(1.0, 0.0, 0.0)).train()
    task.set_progress(0.1)
    assert min(float(task(films())["keep"]) for _ in range(10)) >= 0.5
    visible = torch.tensor([[True, False], [True, True]])
    boxes = torch.tensor([[0.0, 0, 20, 20], [20, 0, 40, 12], [10, 0, 30, 20], [14, 0, 40, 20]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 2, 3])}
    assert in_sight(target, visible, (32, 40))["labels"].tolist() == [0, 2]
    met = []
    task.head.register_forward_pre_hook(lambda _, args: met.append(args[2]))
    task.masker = detector().masker
    batch = films()
    for share, stages in ((0.0, (0.0, 0.0, 1.0)), (0.0, (0.0, 1.0, 0.0))):
        task.mask_training = MaskTraining(stages=stages, random_share=share, random_keep=HALF)
        task.set_progress(0.5)
        task(batch)
        assert sum(len(own["labels"]) for own in met[-1]) == 4, "what the masker hides is asked for all the same"


def test_the_budget_is_met_from_both_sides():
    for start in (0.95, 0.55):
        task = detector(stages=(0.0, 1.0, 0.0), budget=20.0, budget_ramp=0.0, task=0.0, supervised=0.1, keep=0.75)
        with torch.no_grad():
            task.masker.start.fill_(torch.logit(torch.tensor(start)))
        optimizer = torch.optim.AdamW(task.masker.parameters(), lr=0.02)
        task.train()
        task.set_progress(0.5)
        batch = films() | {"lesion": torch.zeros(2, 1, 64, 96, dtype=torch.bool)}
        batch["lesion"][:, :, 10:34, 6:30] = True
        for _ in range(60):
            optimizer.zero_grad()
            out = task(batch)
            out["loss"].backward()
            optimizer.step()
        assert float(out["loss_budget"].detach()) < 0.03**2


@pytest.mark.parametrize("progress", [0.1, 0.6, 0.9])
def test_a_missing_film_changes_neither_losses_nor_gradients(progress):
    told = []
    for fill in (0.0, 1e30, torch.nan):
        task = of_studies(stages=(0.3, 0.5, 0.2), supervised=1.0, random_share=0.5).train()
        task.set_progress(progress)
        torch.manual_seed(5)
        out = task(studies(fill=fill))
        out["loss"].backward()
        gradients = [p.grad.clone() for p in task.parameters() if p.grad is not None]
        told.append((out["loss"].detach(), *gradients))
    assert torch.isfinite(told[0][0])
    for other in told[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(told[0], other, strict=True))


def test_films_of_one_study_meet_one_kind_of_masks():
    task = of_studies(stages=(0.0, 0.0, 1.0), random_share=0.5).train()
    task.set_progress(0.5)
    met = []
    task.encoder.register_forward_pre_hook(lambda _, args: met.append((len(args[0]), args[1].dtype)))
    task(studies(present=[[True, True, True], [True, False, False]]))
    assert met == [(3, torch.bool), (1, torch.float32)]


def test_a_film_masker_that_follows_the_network_never_hears_of_the_label():
    gradients = []
    for label in (0, 1):
        task = of_studies(stages=(0.0, 1.0, 0.0), follow="network").train()
        task.set_progress(0.5)
        torch.manual_seed(3)
        task({**studies(), "label": torch.full((2,), label)})["loss"].backward()
        gradients.append(task.film_masker.scorer.score.weight.grad)
    assert torch.equal(*gradients)


def test_a_study_in_evaluation_hides_exactly_what_it_is_to_hide_of_each_film():
    task = of_studies("vit_tiny_patch16_224").eval()
    out = task(studies())
    assert out["visible"].shape == (4, *task.encoder.grid())
    assert (out["visible"].flatten(1).float().mean(1) == 0.5).all()
    torch.testing.assert_close(out["keep_rate"], torch.full((2,), 0.5))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [({"random_keep": (0.4, 1.0)}, "random masks keep at least 0.5"), ({"follow": "network"}, "give follow=label")],
)
def test_what_a_detector_cannot_be_taught_is_refused(recipe, said):
    with pytest.raises(ValueError, match=said):
        MaskedDetector(encoder(), mask_training=MaskTraining(**{"random_keep": HALF, **recipe}), **SMALL)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [({"random_keep": (0.4, 1.0)}, "for pixels let random masks"), ({"follow": "network"}, "for pixels give")],
)
def test_what_a_segmenter_cannot_be_taught_is_refused(recipe, said):
    with pytest.raises(ValueError, match=said):
        MaskedSegmenter(encoder(), mask_training=MaskTraining(**{"random_keep": HALF, **recipe}), channels=16)


def train(kind, folder, stop_after=None):
    config = tiny_run_config(keep_checkpoints=2)
    fabric = make_fabric(config.training, find_unused_parameters=True)
    make, batch = TASKS[kind]
    task = make(stages=(0.375, 0.375, 0.25), random_share=0.5)

    def batches(step):
        while True:
            if step == stop_after:
                raise Interrupted(step)
            yield batch(seed=step)
            step += 1

    with open_run(fabric, folder, "seed: 0\n") as opened:
        train_task(fabric, task, batches, config=config, folder=opened, steps_per_epoch=4, fingerprint={})
    newest = sorted((folder / "checkpoints").glob("step-*.pt"))[-1]
    return torch.load(newest, weights_only=True)


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_goes_on_exactly_from_the_border_of_its_stages(kind, tmp_path):
    whole = train(kind, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(kind, tmp_path / "broken", stop_after=3)
    last = train(kind, tmp_path / "broken")
    assert last["step"] == whole["step"] == 8
    for name, value in whole["task"].items():
        assert torch.equal(last["task"][name], value), name


def test_a_masker_in_front_of_a_detector_learns_where_the_boxes_are():
    """Bright rectangles on noise, half of the cells: the task's loss alone must bring them into sight."""
    task = detector("vit_tiny_patch16_224", stages=(0.5, 0.5, 0.0), budget_ramp=0.2)
    rest = [p for part in (task.encoder, task.head) for p in part.parameters()]
    rates = [{"params": rest, "lr": 1e-3}, {"params": list(task.masker.parameters()), "lr": 3e-3}]
    optimizer = torch.optim.AdamW(rates)
    task.train()
    for step in range(160):
        task.set_progress(step / 160)
        optimizer.zero_grad()
        task(films(seed=step))["loss"].backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    batch = films(seed=999)
    visible = task.eval()({"image": batch["image"]})["visible"]
    kept = [
        len(in_sight({"boxes": own, "labels": labels}, mask, (64, 96))["labels"])
        for own, labels, mask in zip(batch["boxes"], batch["box_label"], visible, strict=True)
    ]
    assert sum(kept) == 4


def test_a_masker_in_front_of_a_segmenter_learns_where_the_lesions_are():
    """Bright rectangles on noise, half of the cells: the loss of the pixels alone must bring them into sight."""
    task = segmenter("vit_tiny_patch16_224", stages=(0.5, 0.5, 0.0), budget_ramp=0.2)
    rest = [p for part in (task.encoder, task.head) for p in part.parameters()]
    rates = [{"params": rest, "lr": 1e-3}, {"params": list(task.masker.parameters()), "lr": 3e-3}]
    optimizer = torch.optim.AdamW(rates)
    task.train()
    for step in range(120):
        task.set_progress(step / 120)
        optimizer.zero_grad()
        task(outlined(step, count=2))["loss"].backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    batch = outlined(999)
    visible = task.eval()({"image": batch["image"]})["visible"]
    shown = pixels_in_sight(batch["lesion"], visible).sum() / batch["lesion"].sum()
    assert shown > 0.8
