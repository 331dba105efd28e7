"""What an input masker saves: images a second of a classifier that keeps half of its cells, or less than a third.

    python benchmarks/masker.py

Each form is a MaskedClassifier in inference: a learned masker looks at the image, and the encoder drops what is hidden.
All have the same weights and meet the same images in turns, in an order that turns round from one repeat to the next;
the masker's own time is part of all but the last form, which has none. `masker` is its share of the time at keep 1.0.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mim.masking import PatchMasker
from mim.models import create_encoder
from mim.tasks import MaskedClassifier

KEEPS = (1.0, 0.5, 0.3)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PRECISIONS = {"float32": False, "bf16": True}


def classifiers(name: str, size: int) -> dict[str, MaskedClassifier]:
    """One classifier for each share of cells, and one without a masker; encoder and head are the same modules."""
    torch.manual_seed(0)
    encoder = create_encoder(name, (size, size)).eval()
    plain = MaskedClassifier(encoder).eval()
    forms = {}
    for keep in KEEPS:
        torch.manual_seed(1)
        forms[f"keep {keep}"] = MaskedClassifier(encoder, masker=PatchMasker(encoder.patch_size, keep=keep)).eval()
        forms[f"keep {keep}"].head = plain.head
    return {**forms, "no masker": plain}


def in_turns(
    forms: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each form, taken in turns after one pass that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        names = list(forms) if repeat % 2 else list(reversed(forms))
        for name in names:
            began = clock()
            forms[name]()
            if repeat:
                seconds[name].append(clock() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="vit_small_patch16_224")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 448])
    parser.add_argument("--precision", nargs="+", choices=sorted(PRECISIONS), default=["float32", "bf16"])
    parser.add_argument("--batch-size", type=int, default=16, help="at 224; a quarter of it at twice the side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="of torch; by default its own choice")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu = processor time of the process")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print("| size | precision | form | images/s | : keep 1.0, median (lowest) | : no masker | masker |")
    print("|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        batch_size = max(1, round(arguments.batch_size * (224 / size) ** 2))
        tasks = classifiers(arguments.encoder, size)
        batch = {"image": torch.rand(batch_size, 1, size, size, generator=torch.Generator().manual_seed(2))}
        for precision in arguments.precision:
            forms: dict[str, Callable[[], object]] = {
                name: lambda task=task, batch=batch: task(batch) for name, task in tasks.items()
            }
            masker = tasks["keep 1.0"].masker
            forms["masker alone"] = lambda masker=masker, batch=batch: masker(batch)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[precision]):
                seen = {name: float(tasks[name](batch)["visible"].float().mean()) for name in tasks}
                seconds = in_turns(forms, arguments.repeats, CLOCKS[arguments.clock])
            share = statistics.median(seconds["masker alone"]) / statistics.median(seconds["keep 1.0"])
            for name in tasks:
                times = [
                    [whole / own for whole, own in zip(seconds[other], seconds[name], strict=True)]
                    for other in ("keep 1.0", "no masker")
                ]
                print(
                    f"| {size} | {precision} | {name} ({seen[name]:.2f} seen) "
                    f"| {batch_size / statistics.median(seconds[name]):.2f} "
                    f"| {statistics.median(times[0]):.2f} ({min(times[0]):.2f}) | {statistics.median(times[1]):.2f} "
                    f"| {f'{share:.1%}' if name == 'keep 1.0' else ''} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
