"""How many images a second a pretraining step takes: forward, backward and AdamW, against other masked autoencoders.

    python benchmarks/pretrain_step.py                            # ViT-Ti and ViT-S, float32 and bf16
    python benchmarks/pretrain_step.py --models vit_small_patch16_224 --precisions bf16 --compile

Everyone has the same mathematics: the encoder named, on one channel at 224, a class token, 25 % of the cells visible,
and MAE's decoder of width 512, 8 blocks, 16 heads. Fresh weights, drawn images, the same batch and the same fused
AdamW. Each draws its own mask within the step. The ways:

- mim: `MaskedImageModel` with that decoder.
- transformers: `ViTMAEForPreTraining`.
- lightly: `MaskedVisionTransformerTIMM` with `MaskedVisionTransformerDecoderTIMM`, as in its MAE example.
- MONAI: `MaskedAutoEncoderViT`, and the mean squared error over hidden cells.
- recipes of mim, which are other mathematics: `mim light` has the decoder of configs/pretrain/mae_vit_tiny.yaml,
  `mim cross` that of configs/pretrain/crossmae_vit_small.yaml.

mim and transformers normalise the pixels of a cell, the others have no such option. The ways take turns within every
repeat, so that a busy machine slows them all; ratios are taken within a repeat. Who cannot run in a precision is left
out of it, and why is printed. The peers are in `pip install mim[dev]`.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from lightly.models import utils as lightly_utils
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from monai.networks.nets import MaskedAutoEncoderViT
from timm import create_model
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from mim.models import Encoder, MaskedImageModel, create_decoder, create_encoder
from mim.models.decoders.transformer import TransformerDecoder

SIDE, PATCH, RATIO = 224, 16, 0.75
CELLS = (SIDE // PATCH) ** 2
WIDTH, DEPTH, HEADS = 512, 8, 16  # of MAE's decoder
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Mim(nn.Module):
    """MaskedImageModel, with a random mask as the peers draw theirs."""

    def __init__(self, name: str, decoder: Callable[..., nn.Module]) -> None:
        super().__init__()
        encoder = create_encoder(name, (SIDE, SIDE))
        self.task = MaskedImageModel(encoder, decoder(encoder))

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        ranks = torch.rand(len(image), CELLS).argsort(1).argsort(1)
        visible = (ranks < CELLS - round(RATIO * CELLS)).view(len(image), *self.task.encoder.grid())
        return self.task({"image": image, "visible": visible})["loss"]


class Transformers(nn.Module):
    """transformers' ViTMAE."""

    def __init__(self, name: str) -> None:
        super().__init__()
        vit = create_model(name, num_classes=0)
        self.model = ViTMAEForPreTraining(
            ViTMAEConfig(
                hidden_size=vit.embed_dim,
                num_hidden_layers=len(vit.blocks),
                num_attention_heads=vit.blocks[0].attn.num_heads,
                intermediate_size=4 * vit.embed_dim,
                image_size=SIDE,
                patch_size=PATCH,
                num_channels=1,
                decoder_num_attention_heads=HEADS,
                decoder_hidden_size=WIDTH,
                decoder_num_hidden_layers=DEPTH,
                decoder_intermediate_size=4 * WIDTH,
                mask_ratio=RATIO,
                norm_pix_loss=True,
            )
        )

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.model(pixel_values=image).loss


class Lightly(nn.Module):
    """lightly's MAE."""

    def __init__(self, name: str) -> None:
        super().__init__()
        vit = create_model(name, num_classes=0, in_chans=1)
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)
        self.embed = nn.Linear(vit.embed_dim, WIDTH)
        self.decoder = MaskedVisionTransformerDecoderTIMM(CELLS, WIDTH, DEPTH, HEADS)
        self.predict = nn.Linear(WIDTH, PATCH**2)

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        size = (len(image), 1 + CELLS)
        kept, hidden = lightly_utils.random_token_mask(size, mask_ratio=RATIO)
        encoded = self.embed(self.encoder.encode(image, idx_keep=kept))
        canvas = lightly_utils.repeat_token(self.decoder.mask_token, size)
        canvas = lightly_utils.set_at_index(canvas, kept, encoded.type_as(canvas))
        predicted = self.predict(lightly_utils.get_at_index(self.decoder(canvas), hidden))
        right = lightly_utils.get_at_index(lightly_utils.patchify(image, PATCH), hidden - 1)
        return nn.functional.mse_loss(predicted, right)


class Monai(nn.Module):
    """MONAI's masked autoencoder."""

    def __init__(self, name: str) -> None:
        super().__init__()
        vit = create_model(name, num_classes=0)
        self.model = MaskedAutoEncoderViT(
            in_channels=1,
            img_size=SIDE,
            patch_size=PATCH,
            hidden_size=vit.embed_dim,
            mlp_dim=4 * vit.embed_dim,
            num_layers=len(vit.blocks),
            num_heads=vit.blocks[0].attn.num_heads,
            masking_ratio=RATIO,
            decoder_hidden_size=WIDTH,
            decoder_mlp_dim=4 * WIDTH,
            decoder_num_layers=DEPTH,
            decoder_num_heads=HEADS,
            spatial_dims=2,
            qkv_bias=True,
        )

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        predicted, mask = self.model(image)
        error = (predicted - lightly_utils.patchify(image, PATCH)).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum()


def full_decoder(encoder: Encoder) -> nn.Module:
    return TransformerDecoder(encoder, PATCH**2, WIDTH, DEPTH, HEADS, class_token=True)


WAYS: dict[str, Callable[[str], nn.Module]] = {
    "mim": partial(Mim, decoder=full_decoder),
    "transformers": Transformers,
    "lightly": Lightly,
    "MONAI": Monai,
    "mim light": partial(Mim, decoder=partial(create_decoder, width=192, depth=2, heads=6)),
    "mim cross": partial(Mim, decoder=partial(create_decoder, kind="cross", width=256, depth=4, heads=8, share=0.33)),
}
PEERS = ("transformers", "lightly", "MONAI")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224", "vit_small_patch16_224"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"], choices=["float32", "bf16"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile all of them")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu = of all threads of the process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    print(f"batch {args.batch_size}, {'compiled' if args.compile else 'eager'}, {args.clock} time\n")
    print("| encoder | precision | way | images/s | mim / this |\n|---|---|---|---|---|")
    for name in args.models:
        for precision in args.precisions:
            rates = measure({way: WAYS[way](name) for way in args.ways}, precision, args)
            for way, values in rates.items():
                ratio = ratio_text(rates["mim"], values) if way in PEERS and "mim" in rates else ""
                print(
                    f"| {name} | {precision} | {way} | {statistics.median(values):.1f} ({max(values):.1f}) | {ratio} |"
                )
            print(summary(rates))


def measure(models: dict[str, nn.Module], precision: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns images a second of each way in each repeat; the first rounds warm up and are not counted."""
    torch.manual_seed(0)
    image = torch.rand(args.batch_size, 1, SIDE, SIDE)
    steps = {way: make_step(model, precision, image, compiled=args.compile) for way, model in models.items()}
    rates: dict[str, list[float]] = {way: [] for way in models}
    clock = CLOCKS[args.clock]
    for way in list(steps):
        try:
            steps[way]()
        except RuntimeError as error:
            print(f"{way} does not run in {precision}: {str(error).splitlines()[0]}", file=sys.stderr)
            del steps[way], rates[way]
    for repeat in range(-1, args.repeats):
        for way, step in steps.items():
            began = clock()
            step()
            if repeat >= 0:
                rates[way].append(args.batch_size / (clock() - began))
    return rates


def make_step(model: nn.Module, precision: str, image: Tensor, *, compiled: bool) -> Callable[[], None]:
    """Makes a function that takes one optimiser step."""
    model.train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], 1e-4, betas=(0.9, 0.95), fused=True
    )
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(image)
        loss.backward()
        optimizer.step()

    return step


def ratio_text(mine: list[float], theirs: list[float]) -> str:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"


def summary(rates: dict[str, list[float]]) -> str:
    """Says how each way of mim compares with the fastest peer of each repeat."""
    peers = [values for way, values in rates.items() if way in PEERS]
    if not peers:
        return ""
    fastest = [max(values) for values in zip(*peers, strict=True)]
    ours = {way: values for way, values in rates.items() if way not in PEERS}
    return "\n" + "\n".join(
        f"{way}: {ratio_text(values, fastest)} times the fastest peer" for way, values in ours.items()
    )


if __name__ == "__main__":
    main()
