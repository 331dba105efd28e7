"""What layer masking costs: a plain ResNet-50, ours under it, and the loop as it was published.

    python benchmarks/layer_masking.py

Half of each image is hidden, in patches of 16 pixels or in irregular regions of about that size, which a mask over
single pixels carries. All forms have the same weights and meet the same images in turns; forward passes in evaluation
mode. Before anything is timed, our logits must agree with the published loop's. `--masks` may add `quarter`: a quarter
visible, in patches.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mim.models import create_encoder

# the published loop, written out for the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
from published_layer_masking import published

SIZE = 224
AGREEMENT = 1e-5
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def patches(share: float, batch: int, generator: torch.Generator) -> tuple[Tensor, int]:
    return torch.rand(batch, SIZE // 16, SIZE // 16, generator=generator) < share, 16


def regions(share: float, batch: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Every pixel belongs to the nearest of 196 points, as superpixels of a flat image do."""
    axis = torch.arange(SIZE, dtype=torch.float32)
    pixels = torch.cartesian_prod(axis, axis)
    masks = []
    for _ in range(batch):
        points = torch.rand(196, 2, generator=generator) * SIZE
        nearest = torch.cdist(pixels, points).argmin(dim=1)
        masks.append((torch.rand(196, generator=generator) < share)[nearest].view(SIZE, SIZE))
    return torch.stack(masks), 1


MASKS = {
    "patches": lambda *args: patches(0.5, *args),
    "superpixels": lambda *args: regions(0.5, *args),
    "quarter": lambda *args: patches(0.25, *args),
}


def interleaved(forms: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each form, taken in turns after one pass that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--masks", nargs="+", choices=sorted(MASKS), default=["patches", "superpixels"])
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(arguments.batch, 1, SIZE, SIZE, generator=generator)
    print("| hidden | layout | plain images/s | ours | published | time, ours : plain | published : ours |")
    print("|---|---|---|---|---|---|---|")
    for kind in arguments.masks:
        visible, patch_size = MASKS[kind](arguments.batch, generator)
        torch.manual_seed(0)
        encoder = create_encoder("resnet50", (SIZE, SIZE), hidden="layer", patch_size=patch_size, num_classes=1000)
        backbone = encoder.eval().backbone
        for name, layout in LAYOUTS.items():
            backbone.to(memory_format=layout)
            laid = image.to(memory_format=layout)
            forms: dict[str, Callable[[], Tensor]] = {
                "plain": lambda backbone=backbone, laid=laid: backbone(laid),
                "ours": lambda encoder=encoder, laid=laid, visible=visible: encoder.backbone.fc(
                    encoder(laid, visible).pooled
                ),
                "published": lambda backbone=backbone, laid=laid, visible=visible, size=patch_size: backbone.fc(
                    published(backbone, laid, visible, size)
                ),
            }
            with torch.no_grad():
                ours, loop = forms["ours"](), forms["published"]()
                apart = float((ours - loop).norm() / loop.norm())
                if apart > AGREEMENT:
                    sys.exit(f"{kind}, {name}: ours is {apart:.1e} from the published loop; nothing was timed")
                seconds = interleaved(forms, arguments.repeats)
            middle = {form: statistics.median(taken) for form, taken in seconds.items()}
            speed = " | ".join(f"{arguments.batch / middle[form]:.1f}" for form in forms)
            ratios = f"{middle['ours'] / middle['plain']:.2f} | {middle['published'] / middle['ours']:.1f}"
            print(f"| {kind} | {name} | {speed} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
