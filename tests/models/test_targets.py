import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mim.errors import MimError
from mim.models import MaskedImageModel, Prediction, create_encoder
from mim.models.features import take_cells
from mim.models.targets import HogTarget, PixelTarget, SpectralTarget
from mim.models.targets.spectral import gaussian


def small(patch_size=16, size=(64, 96), **args):
    torch.manual_seed(0)
    args = {"depth": 2, "embed_dim": 48, "num_heads": 3, **args}
    return create_encoder("vit_tiny_patch16_224", size, patch_size=patch_size, **args)


def batch_for(encoder, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, math.prod(encoder.grid()), generator=generator).argsort(1)
    return {
        "image": torch.rand(count, encoder.spec.in_chans, *encoder.image_size, generator=generator),
        "visible": (order < order.shape[1] // 4).view(count, *encoder.grid()),
    }


def histograms_one_by_one(image, patch_size):
    """(H, W) float64 -> (cells, P), pixel by pixel."""
    across, down = (ndimage.sobel(image, axis, mode="mirror") / 8 for axis in (1, 0))
    rows = []
    for top in range(0, image.shape[0], patch_size):
        for left in range(0, image.shape[1], patch_size):
            cell = []
            for y in range(top, top + patch_size, 8):
                for x in range(left, left + patch_size, 8):
                    histogram = np.zeros(9)
                    for j in range(y, y + 8):
                        for i in range(x, x + 8):
                            degrees = math.degrees(math.atan2(down[j, i], across[j, i])) % 180
                            histogram[min(int(degrees // 20), 8)] += math.hypot(across[j, i], down[j, i])
                    cell.append(histogram / max(np.linalg.norm(histogram), 1e-3))
            rows.append(np.concatenate(cell))
    return np.stack(rows)


@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_histograms_equal_those_counted_pixel_by_pixel(patch_size):
    image = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    found = HogTarget(small(patch_size))(image)
    for place in range(2):
        expected = torch.from_numpy(histograms_one_by_one(image[place, 0].double().numpy(), patch_size))
        torch.testing.assert_close(found[place].double(), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("degrees", "expected"), [(10, 0), (50, 2), (90, 4), (130, 6), (170, 8), (190, 0), (310, 6)])
def test_a_ramp_falls_into_the_bin_of_its_direction(degrees, expected):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    ramp = x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees))
    inner = HogTarget(small())(ramp[None, None]).view(4, 6, 4, 9)[1:-1, 1:-1]
    wanted = torch.zeros(9)
    wanted[expected] = 1
    torch.testing.assert_close(inner, wanted.expand_as(inner), atol=1e-4, rtol=0)


def test_histograms_know_neither_brightness_nor_contrast_and_nothing_of_air():
    target = HogTarget(small())
    image = torch.rand(1, 1, 64, 96)
    torch.testing.assert_close(target(image * 3 - 1), target(image), atol=1e-3, rtol=0)
    air = torch.full((1, 1, 64, 96), -2.0) + 1e-7 * torch.randn(1, 1, 64, 96)
    assert target(air).abs().max() < 0.02


def test_histograms_refuse_cells_that_are_no_whole_number_of_squares():
    with pytest.raises(MimError, match=r"target\.hog: .* multiple of 8, not 14"):
        HogTarget(small(14, (28, 28)))


@pytest.mark.parametrize("patch_size", [8, 16])
def test_high_frequencies_equal_those_of_a_fourier_transform(patch_size):
    image = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(2)).double()
    mirrored = torch.cat([image, image.flip(2)[:, :, 1:-1]], 2)
    mirrored = torch.cat([mirrored, mirrored.flip(3)[..., 1:-1]], 3)  # one period of what mirroring makes
    height, width = mirrored.shape[-2:]
    kernel = gaussian(patch_size / 6).double()
    reach = len(kernel) // 2

    def response(length):
        places = torch.arange(-reach, reach + 1) % length
        return torch.fft.fft(torch.zeros(length, dtype=torch.float64).index_add(0, places, kernel)).real

    passes = 1 - response(height)[:, None] * response(width)[None]
    high = torch.fft.ifft2(torch.fft.fft2(mirrored) * passes).real[..., :64, :96]
    high = high / image.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
    expected = high.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size).flatten(4).flatten(1, 3)
    torch.testing.assert_close(SpectralTarget(small(patch_size))(image.float()).double(), expected, atol=1e-5, rtol=0)


def test_half_of_the_amplitude_passes_at_fourteen_pixels():
    """What MFM's radius of 16 in an image of 224 is."""
    kernel = gaussian(16 / 6)
    places = torch.arange(len(kernel)) - len(kernel) // 2
    assert 1 - float((kernel * torch.cos(2 * math.pi * places / 14)).sum()) == pytest.approx(0.5, abs=0.03)


def test_flat_and_slowly_varying_images_have_no_high_frequencies():
    target = SpectralTarget(small(16, (64, 128)))
    slow = torch.cos(math.pi * (torch.arange(128) + 0.5) / 128).expand(1, 1, 64, 128)
    assert target(torch.full((1, 1, 64, 128), 3.0)).abs().max() < 2e-3
    assert target(slow).abs().max() < 0.03
    assert target(torch.randn(1, 1, 64, 128)).std() > 0.8


@pytest.mark.parametrize("kind", [PixelTarget, HogTarget, SpectralTarget])
def test_asking_for_some_cells_gives_what_asking_for_all_gives_of_them(kind):
    encoder = small()
    target, image = kind(encoder), torch.rand(2, 1, 64, 96)
    index = torch.tensor([[5, 2, 23], [0, 7, -1]])
    some, everything = target(image, index), target(image)
    assert everything.shape == (2, 24, target.size)
    assert torch.equal(some[index >= 0], take_cells(everything, index)[index >= 0])


@pytest.mark.parametrize("kind", [HogTarget, SpectralTarget])
def test_half_precision_around_a_target_changes_nothing(kind):
    target, image = kind(small()), torch.rand(2, 1, 64, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = target(image)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, target(image))


@pytest.mark.parametrize("kind", [HogTarget, SpectralTarget])
def test_several_channels_are_described_each_for_itself(kind):
    target, alone = kind(small(in_chans=3)), kind(small())
    image = torch.rand(1, 3, 64, 96)
    if kind is HogTarget:
        found = target(image).view(1, 24, 4, 3, 9)[..., 1, :].flatten(2)
        torch.testing.assert_close(found, alone(image[:, 1:2]))
    else:
        grey = image[:, :1].expand(-1, 3, -1, -1)
        torch.testing.assert_close(target(grey).view(1, 24, 256, 3)[..., 2], alone(image[:, :1]))


class Whole(torch.nn.Module):
    """A decoder whose answers are laid out over all cells."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, features, visible):
        return Prediction(self.decoder(features, visible).lay(visible[0].numel()))


class Some(torch.nn.Module):
    """A decoder that answers for chosen cells only."""

    def __init__(self, decoder, index):
        super().__init__()
        self.decoder, self.index = decoder, index

    def forward(self, features, visible):
        prediction = self.decoder(features, visible)
        return Prediction(take_cells(prediction.values, self.index), self.index)


def targets_of(encoder):
    return [(PixelTarget(encoder), 0.5), (HogTarget(encoder), 2.0), (SpectralTarget(encoder), 3.0)]


def test_the_loss_is_the_weighted_sum_of_its_parts_and_each_is_its_own_loss():
    encoder = small()
    task = MaskedImageModel(encoder, targets=targets_of(encoder)).eval()
    batch = batch_for(encoder)
    out = task(batch)
    parts = {"pixels": 0.5, "hog": 2.0, "spectral": 3.0}
    assert set(out) == {"loss", *(f"loss_{name}" for name in parts)}
    torch.testing.assert_close(out["loss"], sum(weight * out[f"loss_{name}"] for name, weight in parts.items()))
    prediction = task.predict(batch)
    hidden = prediction.counted(batch["visible"])
    split = torch.split(prediction.values, task.sizes, dim=-1)
    for (target, _), values in zip(targets_of(encoder), split, strict=True):
        expected = (values - prediction.take(target(batch["image"])))[hidden].square().mean()
        torch.testing.assert_close(out[f"loss_{target.name}"], expected)


def test_a_loss_over_some_predicted_cells_counts_the_hidden_ones_among_them():
    encoder = small()
    task = MaskedImageModel(encoder, targets=targets_of(encoder)).eval()
    batch = batch_for(encoder)
    task.decoder = Whole(task.decoder)
    everything = task.predict(batch).values
    index = torch.rand(3, 24, generator=torch.Generator().manual_seed(3)).argsort(1)[:, :9]
    task.decoder = Some(task.decoder, index)
    hidden = take_cells((~batch["visible"]).flatten(1)[..., None], index)[..., 0]
    assert 0 < hidden.sum() < hidden.numel()
    right = torch.cat([target(batch["image"]) * weight**0.5 for target, weight in targets_of(encoder)], dim=-1)
    scale = torch.cat([torch.full((t.size,), weight**0.5) for t, weight in targets_of(encoder)])
    error = take_cells((everything * scale - right).square(), index)
    error = sum(part.mean(-1) for part in torch.split(error, task.sizes, dim=-1))
    expected = ((error * hidden).sum(1) / hidden.sum(1)).mean()
    torch.testing.assert_close(task(batch)["loss"], expected)


def test_no_gradient_flows_into_a_target():
    encoder = small()
    task = MaskedImageModel(encoder, targets=targets_of(encoder))
    batch = batch_for(encoder)
    batch["image"].requires_grad_()
    loss = task(batch)["loss"]
    hidden_pixels = ~batch["visible"].repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    loss.backward()
    assert batch["image"].grad[hidden_pixels].abs().max() == 0, "hidden pixels are met by targets alone"
    assert batch["image"].grad[~hidden_pixels].abs().max() > 0


def test_two_targets_of_a_kind_are_refused():
    encoder = small()
    with pytest.raises(ValueError, match="of one kind"):
        MaskedImageModel(encoder, targets=[(PixelTarget(encoder), 1.0), (PixelTarget(encoder, False), 1.0)])


def test_only_pixels_can_be_drawn():
    encoder = small()
    batch = batch_for(encoder)
    without = MaskedImageModel(encoder, targets=[(HogTarget(encoder), 1.0), (SpectralTarget(encoder), 1.0)])
    assert not without.draws
    assert without.reconstruct(batch) is None
    both = MaskedImageModel(encoder, targets=[(HogTarget(encoder), 1.0), (PixelTarget(encoder), 1.0)])
    assert both.draws
    assert both.reconstruct(batch).shape == batch["image"].shape
