"""The update of AdamW, fused against PyTorch's default, on a timm ViT: `python benchmarks/optimizer.py`.

Both get the same gradients; the best of several rounds in turn counts. Prints milliseconds, the ratio, and how far the
weights came apart.
"""

import argparse
import time

import timm
import torch
from torch import nn

from mim.config import OptimizerConfig
from mim.training import build_optimizer


def build(name: str, *, fused: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    task, task.encoder = nn.Module(), nn.Module()
    task.encoder.backbone = timm.create_model(name, num_classes=0, in_chans=1)
    for parameter in task.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-2
    ours = build_optimizer(task, OptimizerConfig(layer_decay=0.75))
    if fused:
        return task, ours
    groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in ours.param_groups]
    return task, torch.optim.AdamW(groups, lr=ours.defaults["lr"], betas=ours.defaults["betas"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--rounds", type=int, default=10)
    chosen = parser.parse_args()
    tasks = {name: build(chosen.model, fused=name == "fused") for name in ("default", "fused")}
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(chosen.rounds):
        for name, (_, optimizer) in tasks.items():
            began = time.perf_counter()
            optimizer.step()
            best[name] = min(best[name], time.perf_counter() - began)
    weights = zip(tasks["default"][0].parameters(), tasks["fused"][0].parameters(), strict=True)
    apart = max(float((one - other).abs().max().detach()) for one, other in weights)
    print(f"default {best['default'] * 1e3:.1f} ms, fused {best['fused'] * 1e3:.1f} ms")
    print(f"ratio {best['default'] / best['fused']:.2f}, weights apart by at most {apart:.1e}")


if __name__ == "__main__":
    main()
