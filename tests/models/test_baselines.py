import pytest
import torch
from torch import Tensor, nn

from mim.models import MaskedImageModel, baseline_losses, create_encoder
from mim.models.baselines import fill_from_neighbours
from mim.models.prediction import Prediction
from mim.models.targets import PixelTarget, Target


class Answer(nn.Module):
    """A decoder that answers with the cells of a given image."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, features, visible) -> Prediction:
        return Prediction(self.cells)


def model(normalize: bool, weight: float = 1.0, decoder: nn.Module | None = None) -> MaskedImageModel:
    encoder = create_encoder("vit_tiny_patch16_224", (64, 96), 1, "drop", depth=1, embed_dim=24, num_heads=2)
    return MaskedImageModel(encoder, decoder, [(PixelTarget(encoder, normalize), weight)], mean=0.45, std=0.225)


def batch(count: int = 6, smooth: bool = True, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, *((3, 4) if smooth else (64, 96)), generator=generator)
    image = nn.functional.interpolate(coarse, size=(64, 96), mode="bicubic", align_corners=True).clamp(0, 1)
    order = torch.rand(count, 24, generator=generator).argsort(dim=1).argsort(dim=1)
    return {"image": image, "visible": (order < 9).reshape(count, 4, 6)}


def test_the_mean_has_the_loss_that_the_task_gives_for_that_answer() -> None:
    given = batch()
    pixels = given["visible"].repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    means = torch.stack(
        [(image[seen].mean() - 0.45) / 0.225 for image, seen in zip(given["image"], pixels, strict=True)]
    )
    answer = Answer(means[:, None, None].expand(-1, 24, 256))
    losses = baseline_losses(model(False, weight=3.0), [given])
    assert losses is not None
    assert losses["mean"] == pytest.approx(model(False, 3.0, answer)(given)["loss"].item(), rel=1e-5)


def test_the_neighbours_have_the_loss_of_their_interpolation_where_that_is_to_be_trusted() -> None:
    given = batch()
    image = (given["image"] - 0.45) / 0.225
    pixels = given["visible"].repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].float()
    task = model(False)
    answer = Answer(task.targets[0](fill_from_neighbours(image, pixels)))
    losses = baseline_losses(task, [given])
    assert losses is not None
    loss = model(False, decoder=answer)(given)["loss"].item()
    assert losses["neighbours"] <= loss + 1e-6
    assert losses["neighbours"] == pytest.approx(loss, rel=0.05)


@pytest.mark.parametrize("normalize", [True, False])
def test_neighbours_say_more_than_the_mean_of_smooth_films_and_nothing_of_noise(normalize: bool) -> None:
    task = model(normalize)
    smooth, noise = baseline_losses(task, [batch()]), baseline_losses(task, [batch(smooth=False)])
    assert smooth is not None
    assert noise is not None
    assert smooth["neighbours"] < 0.95 * smooth["mean"]
    assert 0.97 * noise["mean"] < noise["neighbours"] <= noise["mean"]
    if normalize:
        assert noise["mean"] == pytest.approx(255 / 256, abs=0.002), "the unbiased deviation of 256 pixels"


def test_batches_are_weighed_by_their_films() -> None:
    whole = batch()
    parts = [{name: value[:1] for name, value in whole.items()}, {name: value[1:] for name, value in whole.items()}]
    for normalize in (True, False):
        assert baseline_losses(model(normalize), parts) == pytest.approx(baseline_losses(model(normalize), [whole]))
    assert baseline_losses(model(True), []) is None


def test_the_fill_takes_nothing_from_hidden_pixels_and_keeps_an_even_grey() -> None:
    given = batch()
    pixels = given["visible"].repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].float()
    hidden = torch.where(pixels > 0, given["image"], torch.nan)
    filled = fill_from_neighbours(hidden, pixels)
    assert torch.equal(filled, fill_from_neighbours(given["image"], pixels))
    assert torch.equal(filled[pixels > 0], given["image"][pixels > 0])
    assert torch.allclose(fill_from_neighbours(torch.full_like(hidden, 0.3), pixels), torch.tensor(0.3))
    low, high = given["image"][pixels > 0].min(), given["image"][pixels > 0].max()
    assert low <= filled.min() <= filled.max() <= high


def test_a_target_that_changes_during_the_run_has_no_baseline() -> None:
    class Teacher(PixelTarget):
        name = "teacher"
        fixed = False

    encoder = create_encoder("vit_tiny_patch16_224", (64, 96), 1, "drop", depth=1, embed_dim=24, num_heads=2)
    targets: list[tuple[Target, float]] = [(PixelTarget(encoder), 1.0), (Teacher(encoder), 1.0)]
    assert baseline_losses(MaskedImageModel(encoder, targets=targets), [batch()]) is None
