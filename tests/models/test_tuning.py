import copy

import pytest
import torch

from mim.models import create_encoder
from mim.models.tuning import Tuning, check_tuning, tune
from mim.tasks import MaskedClassifier

NETWORKS = {
    "vit_tiny_patch16_224": ("drop", {"depth": 3, "embed_dim": 24, "num_heads": 2, "drop_path_rate": 0.5}),
    "resnet18": ("layer", {}),
    "convnext_atto": ("sparse", {}),
}


def classifier(name: str, tuning: Tuning) -> MaskedClassifier:
    torch.manual_seed(0)
    hidden, arguments = NETWORKS[name]
    encoder = create_encoder(name, (64, 64), 1, hidden, 16 if name.startswith("vit") else 32, **arguments)
    tune(encoder, tuning)
    return MaskedClassifier(encoder)


def changed(task: MaskedClassifier) -> set[str]:
    """Names in the encoder of all that two steps of training move, statistics of norms included."""
    before = {name: value.clone() for name, value in task.encoder.state_dict().items()}
    learning = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    task.train()
    for _ in range(2):
        loss = task({"image": torch.rand(4, 1, 64, 64), "label": torch.tensor([0, 1, 1, 0])})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name for name, value in task.encoder.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_of_a_probed_encoder_moves(name: str) -> None:
    task = classifier(name, Tuning("probe"))
    head = {key: value.clone() for key, value in task.head.state_dict().items()}
    assert changed(task) == set()
    assert any(not torch.equal(value, head[key]) for key, value in task.head.state_dict().items())
    assert not any(module.training for module in task.encoder.modules())
    assert task.head.training


@pytest.mark.parametrize(
    ("name", "last"),
    [("vit_tiny_patch16_224", ("blocks.2.", "norm.")), ("resnet18", ("layer4.1.",)), ("convnext_atto", ("stages.3.",))],
)
def test_only_the_last_block_learns(name: str, last: tuple[str, ...]) -> None:
    moved = {key.removeprefix("backbone.") for key in changed(classifier(name, Tuning("last_blocks", 1)))}
    assert moved
    assert all(key.startswith((*last, "norm", "head")) for key in moved), moved
    assert any(key.startswith(last[0]) for key in moved)


def test_dropped_paths_of_what_is_held_still_are_off() -> None:
    task = classifier("vit_tiny_patch16_224", Tuning("last_blocks", 1)).train()
    blocks = task.encoder.backbone.blocks
    assert [block.training for block in blocks] == [False, False, True]
    assert not any(module.training for module in blocks[1].modules())


def test_all_of_it_learns_by_default() -> None:
    task = classifier("vit_tiny_patch16_224", Tuning()).train()
    assert all(parameter.requires_grad for parameter in task.parameters())
    assert all(module.training for module in task.encoder.modules())


def test_more_blocks_than_there_are_are_refused() -> None:
    encoder = classifier("vit_tiny_patch16_224", Tuning()).encoder
    for refuse in (check_tuning, tune):
        with pytest.raises(ValueError, match="has 3 blocks above its first layer, not 4"):
            refuse(encoder, Tuning("last_blocks", 4))


def test_a_frozen_encoder_stays_in_evaluation_mode_whoever_asks() -> None:
    task = classifier("resnet18", Tuning("probe")).train()
    task.encoder.train()
    copied = copy.deepcopy(task).train()
    for one in (task, copied):
        assert one.head.training
        assert not any(module.training for module in one.encoder.modules())
