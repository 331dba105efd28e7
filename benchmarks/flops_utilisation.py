"""How much of a GPU a pretraining step of ViT-B uses: images a second, and model FLOPs utilisation.

    python benchmarks/flops_utilisation.py --peak 989      # TFLOP/s in bf16, dense, of the card at hand

One optimiser step (forward, backward, fused AdamW) of MAE at 224 in bf16 autocast, compiled, 75 % of the cells hidden,
drawn images that are on the device already. Model FLOPs are those of the matrix products of the step as it is done,
hidden cells left out, counted by torch (`FlopCounterMode`) on the uncompiled model, backward included; nothing is
counted twice, as nothing is computed again. Utilisation is those a second, divided by the peak of the card.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mim.models import MaskedImageModel, create_decoder, create_encoder

SIDE, RATIO = 224, 0.75


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, required=True, help="TFLOP/s of the card in bf16, dense")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--decoder", type=int, nargs=3, default=(512, 8, 16), metavar=("WIDTH", "DEPTH", "HEADS"))
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20, help="in each of 5 repeats")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("flops_utilisation: no CUDA device here; benchmarks/pretrain_step.py measures on a CPU")
    device = torch.device("cuda")
    torch.manual_seed(0)
    width, depth, heads = args.decoder
    encoder = create_encoder(args.model, (SIDE, SIDE))
    model = MaskedImageModel(encoder, create_decoder(encoder, width=width, depth=depth, heads=heads)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), fused=True)
    batch = draw_batch(encoder.grid(), args.batch_size, device)

    def step(forward: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(batch)["loss"]
        torch.autograd.backward(loss)
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step(model)
    flops = counter.get_total_flops()
    compiled = torch.compile(model)
    for _ in range(5):
        step(compiled)
    rates = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(args.steps):
            step(compiled)
        torch.cuda.synchronize()
        rates.append(args.steps / (time.perf_counter() - began))
    rate = statistics.median(rates)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {args.batch_size}, decoder {args.decoder}")
    print(f"{rate * args.batch_size:.0f} images/s, {flops * rate / 1e12:.0f} TFLOP/s")
    print(f"model FLOPs utilisation {100 * flops * rate / 1e12 / args.peak:.1f} % of {args.peak:.0f} TFLOP/s")


def draw_batch(grid: tuple[int, int], size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Draws images and masks with the same number of visible cells each."""
    cells = grid[0] * grid[1]
    ranks = torch.rand(size, cells, device=device).argsort(1).argsort(1)
    visible = (ranks < cells - round(RATIO * cells)).view(size, *grid)
    return {"image": torch.rand(size, 1, SIDE, SIDE, device=device), "visible": visible}


if __name__ == "__main__":
    main()
