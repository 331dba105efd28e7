"""A step of fine-tuning by what of the encoder learns: `python benchmarks/tuning.py`.

Forward, backward and AdamW on random films, in turn; the best of several rounds counts, in seconds of the processor.
Where peft and accelerate are installed, PEFT's LoRA on the same layers of the same backbone is in the table, and given
the same updates the two must give the same features.
"""

import argparse
import importlib.util
import time

import torch
from torch import Tensor, nn

from mim.models import Encoder, create_encoder
from mim.models.lora import LowRank, LowRankUpdate
from mim.models.tuning import Tuning, tune
from mim.tasks import MaskedClassifier

RANK, ALPHA = 8, 16.0
CHOICES = {
    "full": Tuning(),
    "last_blocks": Tuning("last_blocks", 2),
    "lora": Tuning("lora", low_rank=LowRank(RANK, ALPHA)),
    "probe": Tuning("probe"),
}


class Step:
    """A classifier of films, and one step of its training after another."""

    def __init__(self, encoder: Encoder, batch: dict[str, Tensor]) -> None:
        torch.manual_seed(1)
        self.task = MaskedClassifier(encoder).train()
        self.batch = batch
        self.learning = [parameter for parameter in self.task.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=1e-4, fused=True)

    def __call__(self) -> float:
        """Seconds that the processor takes."""
        began = time.process_time()
        self.optimizer.zero_grad()
        self.task(self.batch)["loss"].backward()
        self.optimizer.step()
        return time.process_time() - began


def build(model: str, size: int, choice: str) -> Encoder:
    torch.manual_seed(0)
    encoder = create_encoder(model, (size, size), 1)
    if choice == "peft":
        from peft import LoraConfig, inject_adapter_in_model

        layers = [name for name, module in encoder.backbone.named_modules() if isinstance(module, nn.Linear)]
        settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers)
        encoder.requires_grad_(False)
        encoder.backbone = inject_adapter_in_model(settings, encoder.backbone)
    else:
        tune(encoder, CHOICES[choice])
    return encoder


@torch.no_grad()
def apart(ours: Encoder, theirs: Encoder, image: Tensor) -> float:
    """The largest difference of features, of the largest feature, once both have the same updates."""
    updates = {name: part for name, part in ours.backbone.named_modules() if isinstance(part, LowRankUpdate)}
    for name, update in updates.items():
        nn.init.normal_(update.up, std=0.02)
        layer = theirs.backbone.get_submodule(name.partition(".parametrizations.")[0])
        layer.lora_A["default"].weight.copy_(update.down)
        layer.lora_B["default"].weight.copy_(update.up)
    one, other = ours.eval()(image).pooled, theirs.eval()(image).pooled
    return float((one - other).abs().max() / one.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    batch = {
        "image": torch.rand(chosen.batch, 1, chosen.size, chosen.size),
        "label": torch.arange(chosen.batch) % 2,
    }
    peer = all(importlib.util.find_spec(name) for name in ("peft", "accelerate"))
    names = [*CHOICES, *(["peft"] if peer else [])]
    steps = {name: Step(build(chosen.model, chosen.size, name), batch) for name in names}
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(chosen.rounds):
        for name, step in steps.items():
            best[name] = min(best[name], step())
    for name, step in steps.items():
        count = sum(parameter.numel() for parameter in step.learning)
        print(f"{name:12} {best[name]:.3f} s, {best[name] / best['full']:.2f} of full, {count:,} parameters learn")
    if peer:
        difference = apart(steps["lora"].task.encoder, steps["peft"].task.encoder, batch["image"])
        print(f"with the same updates features of lora and peft are apart by {difference:.1e} of the largest")
    else:
        print("peft and accelerate are not installed: nothing to compare with")


if __name__ == "__main__":
    main()
