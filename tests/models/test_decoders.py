import pytest
import torch

from mim.errors import MimError
from mim.models import MaskedImageModel, create_decoder, create_encoder
from mim.models.decoders.hidden import hidden_places
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
    assert prediction.values.shape[1] == max((~visible).flatten(1).sum(1).max(), 0)
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


# a small network of each family, and the decoders that fit it
FITS = [
    ("test_vit", "mae"),
    ("test_vit", "cross"),
    ("test_vit", "fcmae"),
    ("test_resnet", "unet"),
    ("test_resnet", "fcmae"),
    ("test_convnext", "unet"),
    ("test_convnext", "fcmae"),
    ("hiera", "mae"),
    ("hiera", "cross"),
    ("hiera", "unet"),
    ("swin", "linear"),
    ("token vit", "linear"),
]
OTHERS = {
    "hiera": ("hiera_tiny_224", {"embed_dim": 24, "stages": [1, 1, 1, 1]}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}),
    "token vit": ("test_vit", {"hidden": "token"}),
}


def small_model(name, kind, **args):
    torch.manual_seed(0)
    known, settings = OTHERS.get(name, (name, {}))
    encoder = create_encoder(known, (64, 96), **settings)
    return MaskedImageModel(encoder, create_decoder(encoder, kind=kind, width=48, depth=2, heads=4, **args))


def enlarge(visible, side):
    return visible[:, None].repeat_interleave(side, 2).repeat_interleave(side, 3)


def upset(batch, side):
    shown = enlarge(batch["visible"], side)
    return {**batch, "image": torch.where(shown, batch["image"], torch.rand_like(batch["image"]))}


@pytest.mark.parametrize(("name", "kind"), FITS)
@pytest.mark.parametrize("seen", [2, [1, 4, 5, 2]])
def test_every_hidden_cell_is_predicted_and_none_is_looked_at(name, kind, seen):
    model = small_model(name, kind).eval()
    batch = {"image": torch.rand(4, 1, 64, 96), "visible": random_visible(model.encoder, seen, 4)}
    prediction = model.predict(batch)
    hidden = (~batch["visible"]).flatten(1).sum(1)
    assert prediction.counted(batch["visible"]).sum(1).tolist() == hidden.tolist()
    assert torch.equal(model.predict(upset(batch, model.encoder.patch_size)).values, prediction.values)


@pytest.mark.parametrize(("name", "kind"), FITS)
def test_one_batch_can_be_learnt(name, kind):
    model = small_model(name, kind)
    batch = {"image": torch.rand(2, 1, 8, 12).repeat_interleave(8, 2).repeat_interleave(8, 3)}
    batch["visible"] = random_visible(model.encoder, 3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.parametrize("kind", ["mae", "cross"])
@pytest.mark.parametrize(("seen", "decoded"), [(6, [5, 5]), ([3, 11], [6, 4])])  # of 18, and of 21 and 13, hidden cells
def test_a_share_of_the_hidden_cells_is_decoded_in_training(kind, seen, decoded):
    model = small_model("test_vit", kind, share=0.26)
    visible = random_visible(model.encoder, seen)
    batch = {"image": torch.rand(2, 1, 64, 96), "visible": visible}
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prediction = model.predict(batch)
        assert prediction.counted(visible).sum(1).tolist() == decoded
        laid = prediction.is_laid(24)
        assert not (laid & visible.flatten(1)).any()
        assert laid.sum(1).tolist() == decoded, "no cell is drawn twice"
        drawn.append(laid)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert model.eval().predict(batch).is_laid(24).sum(1).tolist() == (~visible).flatten(1).sum(1).tolist()


def test_crossmae_answers_for_a_cell_the_same_whatever_else_is_decoded():
    model = small_model("test_vit", "cross", share=0.3)
    batch = {"image": torch.rand(2, 1, 64, 96), "visible": random_visible(model.encoder, 6)}
    some, everything = model.predict(batch), model.eval().predict(batch)
    torch.testing.assert_close(some.values, some.take(everything.lay(24)), atol=1e-5, rtol=1e-5)


def test_the_shares_of_a_cell_are_equal():
    visible = torch.zeros(4000, 2, 3, dtype=torch.bool)
    visible[:, 0, 0] = True
    torch.manual_seed(0)
    index, even = hidden_places(visible, 1, 0.4)
    assert even
    counts = torch.bincount(index.flatten(), minlength=6) / 4000
    torch.testing.assert_close(counts, torch.tensor([0, 0.4, 0.4, 0.4, 0.4, 0.4]), atol=0.03, rtol=0)


def test_the_unet_puts_pixels_where_they_belong():
    encoder = create_encoder("test_resnet", (64, 96), in_chans=3)
    decoder = create_decoder(encoder, kind="unet", width=16, depth=1).eval()
    visible = random_visible(encoder, 3)
    values = decoder(encoder(torch.rand(2, 3, 64, 96), visible), visible).values
    with torch.no_grad():
        decoder.predict.weight.zero_()
        decoder.predict.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert values.shape == (2, 6, 3 * 32 * 32)
    values = decoder(encoder(torch.rand(2, 3, 64, 96), visible), visible).values
    assert torch.equal(values[0, 0, :6], torch.tensor([1.0, 2, 3, 1, 2, 3])), "channels last"


@pytest.mark.parametrize("patch_size", [16, 32])
@pytest.mark.parametrize("kind", ["unet", "fcmae"])
def test_behind_maps_any_numbers_can_be_predicted(kind, patch_size):
    encoder = create_encoder("test_convnext", (64, 96), patch_size=patch_size)
    visible = random_visible(encoder, 3)
    features = encoder(torch.rand(2, 1, 64, 96), visible)
    values = create_decoder(encoder, 7, kind, width=32, depth=1)(features, visible).values
    assert values.shape == (2, visible[0].numel(), 7)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "test_vit",
            {"kind": "unet"},
            "decoder.kind=unet does not fit: test_vit has no pyramid of maps; choose mae or",
        ),
        ("test_vit", {"kind": "linear"}, "decoder.kind=linear does not fit: test_vit hides by 'drop'"),
        (
            "test_resnet",
            {"kind": "mae"},
            "decoder.kind=mae does not fit: test_resnet hides by 'sparse'; choose unet or",
        ),
        ("test_resnet", {"kind": "cross"}, "decoder.kind=cross does not fit"),
        ("test_resnet", {"share": 0.5}, "decoder.share=0.5: decoder.kind=fcmae decodes all cells"),
        ("test_vit", {"share": 0.0}, "decoder.share=0.0 must be above 0"),
        ("test_vit", {"kind": "crossmae"}, "decoder.kind=crossmae is not known; choose from mae, cross"),
        ("test_vit", {"kind": "cross", "width": 30, "heads": 4}, "decoder.width=30 must be a multiple of 4"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_in_one_line(name, args, message):
    with pytest.raises(MimError) as refused:
        create_decoder(create_encoder(name, (64, 96)), **args)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "share"), [("mae", 1.0), ("mae", 0.5), ("cross", 0.5)])
def test_token_decoders_are_one_graph_whatever_is_hidden(kind, share):
    model = small_model("test_vit", kind, share=share)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model.decoder, backend=count, fullgraph=True)
    for seed in (0, 1):
        torch.manual_seed(seed)
        visible = random_visible(model.encoder, 6)
        with torch.no_grad():
            features = model.encoder(torch.rand(2, 1, 64, 96), visible)
            assert compiled(features, visible).values.isfinite().all()
    assert len(graphs) == 1
