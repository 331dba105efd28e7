"""Draws docs/images/patterns.png, every mask pattern over one drawn film: `python docs/draw_patterns.py`."""

import argparse
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mim.data.phantom import PhantomSettings, draw_film
from mim.masking import RandPatchMaskd
from mim.models import create_encoder
from mim.models.guides import AttentionGuide, HardPatchGuide
from mim.tasks import MaskedImageModel

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PICTURE = Path(__file__).parent / "images" / "patterns.png"
SIZE, CELL, RATIO = (128, 176), 8, 0.6
TINT = np.array([0.36, 0.47, 0.66])  # of what is hidden
DRAWN = {
    "random": {},
    "random, unit 2": {"pattern": "random", "unit": 2},
    "block": {},
    "multi_block": {},
    "inverse_block": {},
    "grid": {},
    "foreground": {},
    "foreground, exact": {"pattern": "foreground", "exact": True},
    "texture": {},
}


def draw_films(count: int) -> Tensor:
    """Bitewings of the phantom, (count, 1, H, W) in [0, 1]."""
    films = []
    for number in range(count):
        pixels = draw_film(PhantomSettings(height=2 * SIZE[0], width=2 * SIZE[1]), 0, number, 0).pixels
        films.append(cv2.resize(pixels.astype(np.float32) / 4095, SIZE[::-1], interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(films))[:, None]


def train(films: Tensor, steps: int) -> MaskedImageModel:
    """A small model with a guide for hard patches, trained on the films."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 96, "depth": 3, "num_heads": 3}
    encoder = create_encoder("vit_tiny_patch16_224", SIZE, patch_size=CELL, **sizes)
    # normalised, noise alone would be the hardest to rebuild
    task = MaskedImageModel(encoder, normalize_pixels=False, mean=0.45, std=0.225, guide=HardPatchGuide(encoder))
    optimizer = torch.optim.AdamW(task.parameters(), 1.5e-3)
    mask = RandPatchMaskd("image", CELL, RATIO, pattern="hard")
    mask.set_random_state(seed=0)
    for step in range(steps):
        drawn = [mask({"image": films[int(place)]}) for place in torch.randint(len(films), (8,))]
        batch = {key: torch.stack([sample[key] for sample in drawn]) for key in drawn[0]}
        task.set_progress(step / steps)
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sys.stdout.write(f"loss after {steps} steps: {float(loss.detach()):.3f}\n")
    return task


def masks(film: Tensor, task: MaskedImageModel) -> dict[str, Tensor]:
    """What each pattern makes of a film, (gh, gw) bool, True = visible."""
    found = {}
    for title, settings in DRAWN.items():
        transform = RandPatchMaskd("image", CELL, RATIO, **{"pattern": title, **settings})
        transform.set_random_state(seed=3)
        found[title] = transform({"image": film})["visible"]
    transform = RandPatchMaskd("image", CELL, RATIO, pattern="hard")
    transform.set_random_state(seed=3)
    sample = {key: value[None] for key, value in transform({"image": film}).items()}
    image = (sample["image"] - task.mean) / task.std
    for name, guide in (("hard", task.guide), ("attention", AttentionGuide(task.encoder))):
        choice = guide.choose(task.encoder, image, sample["visible"], sample["mask_noise"], progress=1.0)
        found[f"{name}, at the end"] = choice.visible[0]
    return found


def tinted(film: Tensor, visible: Tensor) -> NDArray[np.float32]:
    """The film with hidden cells under a tint through which it can still be made out, (H, W, 3)."""
    seen = visible.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).numpy()[..., None]
    pixels = film[0].numpy()[..., None]
    return np.where(seen, pixels, 0.25 * pixels + 0.75 * TINT).astype(np.float32)


def main() -> None:
    """Draws the picture."""
    line = argparse.ArgumentParser(description=__doc__)
    line.add_argument("--films", type=int, default=32, help="drawn films that the guides' model is trained on")
    line.add_argument("--steps", type=int, default=300, help="steps of that training")
    line.add_argument("--output", type=Path, default=PICTURE)
    options = line.parse_args()
    films = draw_films(options.films)
    film, everything = films[0], torch.ones(SIZE[0] // CELL, SIZE[1] // CELL, dtype=torch.bool)
    drawn = {"film": everything, **masks(film, train(films, options.steps))}
    figure, axes = plt.subplots(3, 4, figsize=(9.6, 5.9), layout="constrained")
    for axis, (title, visible) in zip(axes.flat, drawn.items(), strict=True):
        axis.imshow(tinted(film, visible).clip(0, 1), interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.savefig(options.output, dpi=80)
    Image.open(options.output).convert("RGB").quantize(64).save(options.output, optimize=True)
    sys.stdout.write(f"{options.output}\n")


if __name__ == "__main__":
    main()
