import pytest
import torch

from mim.errors import MimError
from mim.models import create_encoder
from mim.models.decoders.transformer import TransformerDecoder
from mim.models.features import scatter_tokens


def small_vit(**args):
    torch.manual_seed(0)
    args = {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3, **args}
    return create_encoder("vit_tiny_patch16_224", (32, 48), **args).eval()


def random_visible(encoder, seen, count=2):
    """Each image shows as many cells as `seen` says, an int or one int an image."""
    cells = encoder.grid()[0] * encoder.grid()[1]
    order = torch.rand(count, cells).argsort(1)
    counts = torch.as_tensor(seen).expand(count)
    return (order < counts[:, None]).view(count, *encoder.grid())


def whole_decoder(decoder, features, visible):
    """He et al.'s decoder as they write it: every cell in grid order through every block."""
    tokens = decoder.embed(features.tokens)
    canvas = scatter_tokens(tokens, features.index, decoder.mask_token.expand(len(tokens), visible[0].numel(), -1))
    if decoder.class_token:
        canvas = torch.cat([decoder.embed(features.prefix[:, :1]), canvas], dim=1)
    tokens = canvas + decoder.positions
    for block in decoder.blocks:
        tokens = block(tokens)
    return decoder.predict(decoder.norm(tokens))[:, int(decoder.class_token) :]


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("seen", [6, [3, 11], 24])
def test_hidden_cells_are_predicted_as_by_the_whole_decoder(class_token, seen):
    encoder = small_vit()
    visible = random_visible(encoder, seen)
    decoder = TransformerDecoder(encoder, 64, 32, 2, 4, class_token=class_token)
    features = encoder(torch.rand(2, 1, 32, 48), visible)
    prediction = decoder(features, visible)
    if isinstance(seen, int):
        assert prediction.values.shape == (2, 24 - seen, 64)
    counted = prediction.counted(visible)
    assert counted.sum(1).tolist() == (~visible).flatten(1).sum(1).tolist()
    expected = prediction.take(whole_decoder(decoder, features, visible))
    torch.testing.assert_close(prediction.values[counted], expected[counted], atol=1e-5, rtol=1e-5)


def test_the_class_token_takes_part_only_where_it_is_asked_to():
    encoder = small_vit()
    visible = random_visible(encoder, 6)
    image = torch.rand(2, 1, 32, 48)
    decoders = {wanted: TransformerDecoder(encoder, 64, 32, 1, 4, class_token=wanted) for wanted in (False, True)}
    features = encoder(image, visible)
    assert features.prefix.shape == (2, 1, 48)
    for wanted, decoder in decoders.items():
        gradient = torch.autograd.grad(decoder(features, visible).values.sum(), features.prefix, allow_unused=True)[0]
        assert (gradient is not None) == wanted


def test_an_encoder_without_a_class_token_cannot_lend_one():
    encoder = small_vit(class_token=False)
    assert encoder(torch.rand(1, 1, 32, 48)).prefix is None
    with pytest.raises(MimError, match="no class token"):
        TransformerDecoder(encoder, 64, 32, 1, 4, class_token=True)
