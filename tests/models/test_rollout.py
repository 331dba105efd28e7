import pytest
import torch

from mim.models import create_encoder
from mim.models.rollout import attention_rollout, has_rollout, mix_with_identity, rollout_matrix

SMALL = {"patch_size": 8, "embed_dim": 48, "num_heads": 3}


def small(depth=2, hidden="drop", **args):
    torch.manual_seed(0)
    encoder = create_encoder("vit_tiny_patch16_224", (32, 48), hidden=hidden, depth=depth, **SMALL, **args).eval()
    with torch.no_grad():  # fresh weights attend evenly, which would prove nothing
        for block in encoder.backbone.blocks:
            block.attn.qkv.weight.mul_(20)
    return encoder


def half_visible(encoder, count=2):
    rows, columns = encoder.grid()
    return (torch.rand(count, rows * columns).argsort(1) < rows * columns // 2).view(count, rows, columns)


@pytest.mark.parametrize("hidden", ["drop", "token"])
def test_rows_add_up_to_one(hidden):
    encoder = small(hidden=hidden)
    visible = half_visible(encoder)
    rollout, index = rollout_matrix(encoder, torch.rand(2, 1, 32, 48), visible)
    torch.testing.assert_close(rollout.sum(-1), torch.ones(rollout.shape[:2]))
    assert (rollout >= 0).all()
    assert index.shape[1] == (24 if hidden == "token" else 12)


def test_of_one_block_it_is_the_attention_mixed_with_the_identity():
    encoder = small(depth=1)
    image = torch.rand(2, 1, 32, 48)
    block, backbone = encoder.backbone.blocks[0], encoder.backbone
    with torch.no_grad():
        tokens = block.norm1(backbone._pos_embed(backbone.patch_embed(image)))
        q, k, _ = block.attn.qkv(tokens).unflatten(-1, (3, 3, 16)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) / 4).softmax(-1)
    rollout, _ = rollout_matrix(encoder, image, None)
    torch.testing.assert_close(rollout, mix_with_identity(attention))
    torch.testing.assert_close(rollout, 0.5 * attention.mean(1) + 0.5 * torch.eye(25).expand(2, -1, -1))
    paid = attention_rollout(encoder, image, None).flatten(1)
    torch.testing.assert_close(paid, rollout[:, 1:, 1:].mean(1))


def test_blocks_are_multiplied_and_the_class_token_asks_where_it_is_pooled():
    encoder = small(depth=2, global_pool="token")
    image = torch.rand(1, 1, 32, 48)
    rollout, _ = rollout_matrix(encoder, image, None)
    torch.testing.assert_close(attention_rollout(encoder, image, None).flatten(), rollout[0, 0, 1:])
    shallow = small(depth=1, global_pool="token")
    shallow.backbone.load_state_dict(encoder.backbone.state_dict(), strict=False)
    first, _ = rollout_matrix(shallow, image, None)
    assert not torch.allclose(first, rollout)


def test_hidden_cells_get_nothing_and_the_network_is_left_as_it_was():
    encoder = small()
    image, visible = torch.rand(2, 1, 32, 48), half_visible(encoder)
    before = encoder(image, visible).pooled
    fused = [block.attn.fused_attn for block in encoder.backbone.blocks]
    paid = attention_rollout(encoder, image, visible)
    assert (paid[~visible] == 0).all()
    assert (paid[visible] > 0).all()
    noise = torch.where(encoder.upsample(visible, (32, 48)), image, torch.rand_like(image))
    assert torch.equal(attention_rollout(encoder, noise, visible), paid)
    assert torch.equal(encoder(image, visible).pooled, before)
    assert [block.attn.fused_attn for block in encoder.backbone.blocks] == fused
    assert not any(block.attn.attn_drop._forward_hooks for block in encoder.backbone.blocks)


def test_a_network_without_such_attention_is_refused():
    cnn = create_encoder("resnet10t", (32, 32))
    assert not has_rollout(cnn)
    with pytest.raises(ValueError, match="ResNet has no attention"):
        rollout_matrix(cnn, torch.rand(1, 1, 32, 32), None)
    encoder = small()
    uneven = half_visible(encoder)
    uneven[0] = True
    with pytest.raises(ValueError, match="equally many"):
        rollout_matrix(encoder, torch.rand(2, 1, 32, 48), uneven)
