"""The pretraining of transformers' ViTMAE and lightly's MAE for `benchmarks/pretraining.py`, around the same encoder.

Three quarters are hidden, the target is normalised pixels, and the decoder is as light as ours, or the one that they
publish as their default: 512 channels and 8 blocks, which behind an encoder this small takes nearly all the time. The
optimiser is the same fused AdamW. What they learn is brought into an encoder of mim by renaming weights, so that
probing and fine-tuning are the same code for all.
"""

import math
import time
from collections.abc import Callable, Iterator

import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from mim.errors import MimError
from mim.models import Encoder

MASK_RATIO = 0.75
LIGHT = {"width": 96, "depth": 1, "heads": 4}
PUBLISHED = {"width": 512, "depth": 8, "heads": 16}
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.95)
WARM_UP = 0.1


class TransformersMAE(nn.Module):
    """ViTMAEForPreTraining of transformers, with the encoder's width, depth, heads, patch and image size.

    Args:
        like: the encoder that it is to be compared with.
        decoder: width, depth and heads.

    Raises:
        MimError: transformers is not installed.
    """

    def __init__(self, like: Encoder, decoder: dict[str, int]) -> None:
        super().__init__()
        try:
            from transformers import ViTMAEConfig, ViTMAEForPreTraining
        except ImportError as error:
            raise MimError(f"arm vitmae: {error}; pip install transformers") from error
        vit = as_vit(like)
        config = ViTMAEConfig(
            hidden_size=vit.embed_dim,
            num_hidden_layers=len(vit.blocks),
            num_attention_heads=vit.blocks[0].attn.num_heads,
            intermediate_size=vit.blocks[0].mlp.fc1.out_features,
            layer_norm_eps=vit.norm.eps,
            image_size=like.image_size[0],
            patch_size=like.patch_size,
            num_channels=like.spec.in_chans,
            mask_ratio=MASK_RATIO,
            norm_pix_loss=True,
            decoder_hidden_size=decoder["width"],
            decoder_num_hidden_layers=decoder["depth"],
            decoder_num_attention_heads=decoder["heads"],
            decoder_intermediate_size=4 * decoder["width"],
        )
        config._attn_implementation = "sdpa"
        self.model = ViTMAEForPreTraining(config)

    def forward(self, image: Tensor) -> Tensor:
        """Gives the loss of (B, C, H, W), normalised."""
        loss: Tensor = self.model(image).loss
        return loss

    def encoder_state(self) -> dict[str, Tensor]:
        """Its encoder's weights under timm's names."""
        theirs = self.model.vit.state_dict()
        ours = {
            "cls_token": theirs["embeddings.cls_token"],
            "pos_embed": theirs["embeddings.position_embeddings"],
            "patch_embed.proj.weight": theirs["embeddings.patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": theirs["embeddings.patch_embeddings.projection.bias"],
            "norm.weight": theirs["layernorm.weight"],
            "norm.bias": theirs["layernorm.bias"],
        }
        names = {
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "attention.o_proj": "attn.proj",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
        for number in range(self.model.config.num_hidden_layers):
            for part in ("weight", "bias"):
                theirs_here = f"layers.{number}"
                query, key, value = (theirs[f"{theirs_here}.attention.{letter}_proj.{part}"] for letter in "qkv")
                ours[f"blocks.{number}.attn.qkv.{part}"] = torch.cat([query, key, value])
                for their_name, our_name in names.items():
                    ours[f"blocks.{number}.{our_name}.{part}"] = theirs[f"{theirs_here}.{their_name}.{part}"]
        return ours


class LightlyMAE(nn.Module):
    """MAE as lightly's documentation builds it, around a timm ViT of the encoder's own architecture.

    Args:
        like: the encoder that it is to be compared with; its own network is copied, not trained.
        decoder: width, depth and heads.

    Raises:
        MimError: lightly is not installed.
    """

    def __init__(self, like: Encoder, decoder: dict[str, int]) -> None:
        super().__init__()
        try:
            from lightly.models import utils
            from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
        except ImportError as error:
            raise MimError(f"arm lightly: {error}; pip install lightly timm") from error
        import copy

        self.utils = utils
        self.patch_size = like.patch_size
        self.backbone = MaskedVisionTransformerTIMM(vit=copy.deepcopy(as_vit(like)))
        self.sequence_length = self.backbone.sequence_length
        self.decoder = MAEDecoderTIMM(
            num_patches=self.sequence_length - 1,
            patch_size=like.patch_size,
            in_chans=like.spec.in_chans,
            embed_dim=like.width,
            decoder_embed_dim=decoder["width"],
            decoder_depth=decoder["depth"],
            decoder_num_heads=decoder["heads"],
        )

    def forward(self, image: Tensor) -> Tensor:
        """Gives the loss of (B, C, H, W), normalised."""
        utils, batch = self.utils, len(image)
        keep, hide = utils.random_token_mask(
            size=(batch, self.sequence_length), mask_ratio=MASK_RATIO, device=image.device
        )
        embedded = self.decoder.embed(self.backbone.encode(images=image, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (batch, self.sequence_length))
        tokens = utils.set_at_index(tokens, keep, embedded.type_as(tokens))
        predicted = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), hide))
        cells = utils.get_at_index(utils.patchify(image, self.patch_size), hide - 1)  # without the class token
        return nn.functional.mse_loss(predicted.float(), utils.normalize_mean_var(cells, dim=-1))

    def encoder_state(self) -> dict[str, Tensor]:
        """Its encoder's weights under timm's names, which are its own."""
        state: dict[str, Tensor] = self.backbone.vit.state_dict()
        return state


PEERS: dict[str, Callable[[Encoder], TransformersMAE | LightlyMAE]] = {
    "vitmae": lambda like: TransformersMAE(like, LIGHT),
    "lightly": lambda like: LightlyMAE(like, LIGHT),
    "vitmae-published": lambda like: TransformersMAE(like, PUBLISHED),
    "lightly-published": lambda like: LightlyMAE(like, PUBLISHED),
}


def as_vit(encoder: Encoder) -> VisionTransformer:
    """The encoder's network, which must be a plain ViT for a peer to have the same.

    Raises:
        MimError: it is not.
    """
    vit = encoder.backbone
    if not isinstance(vit, VisionTransformer) or encoder.image_size[0] != encoder.image_size[1]:
        raise MimError(f"{encoder.spec.name}: the peers can only be built like a plain ViT on square images")
    return vit


def train_peer(
    peer: TransformersMAE | LightlyMAE,
    batches: Iterator[Tensor],
    *,
    seconds: float,
    lr: float,
    bf16: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, float]:
    """Trains a peer for a time: AdamW, warm-up and cosine over the time itself, so that both end as it ends.

    Args:
        peer: what is trained.
        batches: images (B, C, H, W), normalised, without end; the time they take counts.
        seconds: how long.
        lr: peak learning rate.
        bf16: whether to compute in bfloat16 where that is safe, as mim does.
        clock: gives the time in seconds.

    Returns:
        Steps done, and the loss, averaged over the last tenth of the time.
    """
    optimizer = torch.optim.AdamW(param_groups_weight_decay(peer, WEIGHT_DECAY), lr=lr, betas=BETAS, fused=True)
    peer.train()
    began, steps, late = clock(), 0, []
    while (share := (clock() - began) / seconds) < 1:
        rise = share / WARM_UP
        fall = (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2
        for group in optimizer.param_groups:
            group["lr"] = lr * max(rise if share < WARM_UP else fall, 1e-3)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = peer(next(batches))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if share > 0.9:
            late.append(float(loss.detach()))
    return steps, sum(late) / max(1, len(late))
