"""What hiding saves in a CNN: images a second of one training step, encoder alone, or encoder and decoder.

    python benchmarks/sparse_cnn.py
    python benchmarks/sparse_cnn.py --decoder

Three forms of the same network, with the same weights, on the same batch, one after the other in each repeat: stacked
(what `hidden: sparse` computes: visible cells alone), masked-dense (everything is computed, and what is hidden is set
to zero, as in SparK and FCMAE), and plain (nothing is hidden). A step is forward, backward and the update by AdamW; the
loss of the encoder alone is the mean square of its coarsest map. Before anything is timed, stacked and masked-dense
must agree in float32. Prints a table for docs/benchmarks.md: medians, and medians of the ratios within a repeat.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mim.models import Encoder, create_decoder, create_encoder
from mim.models.conv import SparseConvEncoder
from mim.models.features import Features
from mim.models.sparse_dense import DenseMask
from mim.models.sparse_run import SparseRun
from mim.tasks import MaskedImageModel

FORMS = ("stacked", "masked-dense", "plain")


def draw(encoder: Encoder, images: int, hidden: float) -> dict[str, Tensor]:
    """A batch of noise and a mask that hides the same number of cells of every image."""
    rows, columns = encoder.grid()
    order = torch.rand(images, rows * columns).argsort(1)
    visible = (order >= round(hidden * rows * columns)).view(images, rows, columns)
    return {"image": torch.rand(images, 1, *encoder.image_size), "visible": visible}


def masked_dense(encoder: Encoder, batch: dict[str, Tensor]) -> Features:
    """Features of the same encoder, hidden cells computed as well."""
    assert isinstance(encoder, SparseConvEncoder)
    visible = batch["visible"]
    cell = encoder.patch_size
    pixels = visible[:, None].repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    image = batch["image"].masked_fill(~pixels, 0).contiguous(memory_format=torch.channels_last)
    stages = [entry["module"] for entry in encoder.backbone.feature_info]
    run = SparseRun(encoder.backbone, encoder._graph, encoder._stage_nodes, DenseMask(visible.float(), several=True))
    _, mean = run.final(image)
    return Features(encoder.backbone.forward_head(mean, pre_logits=True), run.maps(stages))


def make_step(form: str, encoder: Encoder, batch: dict[str, Tensor], precision: torch.dtype) -> Callable[[], Tensor]:
    """One training step of the encoder alone."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, foreach=True)
    image = batch["image"].contiguous(memory_format=torch.channels_last)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            if form == "stacked":
                final = encoder(batch["image"], batch["visible"]).maps[-1]
            elif form == "masked-dense":
                final = masked_dense(encoder, batch).maps[-1]
            else:
                final = encoder.backbone.forward_features(image)
            loss = final.float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def make_whole_step(task: nn.Module, batch: dict[str, Tensor], precision: torch.dtype) -> Callable[[], Tensor]:
    """One training step of encoder and decoder."""
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, foreach=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def interleave(
    steps: dict[str, Callable[[], Tensor]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each step, one of each in every repeat, after one that is not counted."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    return seconds


def check(encoder: Encoder, batch: dict[str, Tensor]) -> None:
    """Stops if the two forms do not agree."""
    few = {name: values[:2] for name, values in batch.items()}
    with torch.no_grad():
        encoder.eval()
        stacked, dense = encoder(few["image"], few["visible"]).pooled, masked_dense(encoder, few).pooled
        encoder.train()
    torch.testing.assert_close(stacked, dense, rtol=1e-4, atol=1e-5)


def ratio(seconds: dict[str, list[float]], of: str, to: str) -> float:
    """Median over the repeats of how many times as fast one is as the other."""
    return statistics.median(slow / fast for slow, fast in zip(seconds[to], seconds[of], strict=True))


def measure_encoders(args: argparse.Namespace) -> None:
    """Prints the table of encoders."""
    print("| network | precision | stacked, images/s | masked-dense | plain | to masked-dense | to plain |")
    print("|---|---|---|---|---|---|---|")
    for name in args.networks:
        for label in args.precisions:
            torch.manual_seed(0)
            encoder = create_encoder(name, (args.size, args.size), hidden="sparse", patch_size=args.patch).train()
            batch = draw(encoder, args.batch, args.hidden)
            check(encoder, batch)
            precision = {"bf16": torch.bfloat16, "float32": torch.float32}[label]
            seconds = interleave(
                {form: make_step(form, encoder, batch, precision) for form in FORMS}, args.repeats, args.clock
            )
            speeds = " | ".join(f"{args.batch / statistics.median(seconds[form]):.1f}" for form in FORMS)
            ratios = " | ".join(f"{ratio(seconds, 'stacked', form):.2f}" for form in FORMS[1:])
            print(f"| {name} | {label} | {speeds} | {ratios} |", flush=True)


def measure_decoders(args: argparse.Namespace) -> None:
    """Prints the table of whole steps with a light and a heavy decoder."""
    print("| network | precision | decoder of 256, images/s | decoder of 768 | to 768 |")
    print("|---|---|---|---|---|")
    for name in args.networks:
        for label in args.precisions:
            steps = {}
            for width in (256, 768):
                torch.manual_seed(0)
                encoder = create_encoder(name, (args.size, args.size), hidden="sparse", patch_size=args.patch)
                decoder = create_decoder(encoder, kind="fcmae", width=width, depth=args.depth)
                task = MaskedImageModel(encoder, decoder).train()
                precision = {"bf16": torch.bfloat16, "float32": torch.float32}[label]
                steps[str(width)] = make_whole_step(task, draw(encoder, args.batch, args.hidden), precision)
            seconds = interleave(steps, args.repeats, args.clock)
            speeds = " | ".join(f"{args.batch / statistics.median(seconds[width]):.1f}" for width in steps)
            print(f"| {name} | {label} | {speeds} | {ratio(seconds, '256', '768'):.2f} |", flush=True)


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "float32"], choices=["bf16", "float32"])
    parser.add_argument("--size", type=int, default=224, help="side of the image in pixels")
    parser.add_argument("--patch", type=int, default=32, help="side of a cell in pixels")
    parser.add_argument("--hidden", type=float, default=0.6, help="share of the cells that is hidden")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--depth", type=int, default=2, help="blocks of the decoder")
    parser.add_argument("--decoder", action="store_true", help="measure whole steps with decoders of width 256 and 768")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="of one thread, for a machine that is at work on other things too"
    )
    args = parser.parse_args()
    args.clock = time.process_time if args.processor_time else time.perf_counter
    torch.set_num_threads(1 if args.processor_time else args.threads)
    measure_decoders(args) if args.decoder else measure_encoders(args)


if __name__ == "__main__":
    main()
