import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.errors import MimError
from mim.models import create_decoder, create_encoder
from mim.models.features import scatter_tokens
from mim.models.positions import sine_cosine_positions
from mim.models.targets import normalize_cells, patchify, unpatchify


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 8]))
def test_unpatchify_undoes_patchify(batch, channels, rows, columns, size):
    image = torch.rand(batch, channels, rows * size, columns * size)
    cells = patchify(image, size)
    assert cells.shape == (batch, rows * columns, size * size * channels)
    assert torch.equal(unpatchify(cells, size, (rows, columns)), image)


def test_cells_are_row_major():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert patchify(image, 2)[0, 1].tolist() == [2, 3, 6, 7]


def test_normalised_cells_have_mean_0_and_deviation_1_and_can_be_undone():
    cells = torch.rand(2, 3, 64) * 5 + 2
    normal, mean, deviation = normalize_cells(cells)
    torch.testing.assert_close(normal.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(-1), torch.ones(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal * deviation + mean, cells)


def test_scatter_leaves_padding_out():
    tokens = torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]])
    index = torch.tensor([[2, 0], [1, -1]])
    laid = scatter_tokens(tokens, index, torch.full((2, 3, 1), -5.0))
    assert laid[..., 0].tolist() == [[2, -5, 1], [-5, 3, -5]]


def test_positions_are_distinct_and_refuse_odd_widths():
    positions = sine_cosine_positions((3, 5), 16)
    assert positions.shape == (15, 16)
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_cosine_positions((2, 2), 10)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnextv2_atto"])
def test_a_decoder_predicts_every_pixel_of_every_hidden_cell(name):
    encoder = create_encoder(name, (64, 96), **({"depth": 1} if "vit" in name else {}))
    visible = torch.rand(2, *encoder.grid()) > 0.5
    decoder = create_decoder(encoder, width=32, depth=1, heads=4)
    prediction = decoder(encoder(torch.rand(2, 1, 64, 96), visible), visible)
    assert torch.equal(prediction.counted(visible).sum(1), (~visible).flatten(1).sum(1))
    assert prediction.lay(visible[0].numel()).shape == (2, visible[0].numel(), encoder.patch_size**2)


def test_a_cnn_decoder_follows_the_grid_of_smaller_cells():
    encoder = create_encoder("resnet18", (64, 64), patch_size=16)
    visible = torch.rand(2, 4, 4) > 0.5
    prediction = create_decoder(encoder, width=16, depth=1)(encoder(torch.rand(2, 1, 64, 64), visible), visible).values
    assert prediction.shape == (2, 16, 256)


def test_heads_must_divide_the_width():
    with pytest.raises(MimError, match=r"decoder\.heads=5"):
        create_decoder(create_encoder("vit_tiny_patch16_224", (32, 32), depth=1), width=32, depth=1, heads=5)
