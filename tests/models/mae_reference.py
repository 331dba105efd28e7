"""MAE (He et al., CVPR 2022) written out for one image at a time, straight from the names in a checkpoint.

It shares nothing with mim: loops instead of batches, attention by matrix products, no SDPA, no scatter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


def random_state(
    width: int = 64,
    depth: int = 2,
    patch: int = 8,
    rows: int = 4,
    channels: int = 3,
    decoder_width: int = 32,
    decoder_depth: int = 2,
    seed: int = 0,
) -> dict[str, Tensor]:
    """A state_dict with the names and shapes of an official pretraining checkpoint, all of it random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.2, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(shape, generator=generator)

    def blocks(prefix: str, count: int, size: int) -> dict[str, Tensor]:
        state = {}
        for place in range(count):
            name = f"{prefix}.{place}"
            for norm in ("norm1", "norm2"):
                state |= {f"{name}.{norm}.weight": draw(size, mean=1), f"{name}.{norm}.bias": draw(size)}
            for layer, (rows_out, rows_in) in {
                "attn.qkv": (3 * size, size),
                "attn.proj": (size, size),
                "mlp.fc1": (4 * size, size),
                "mlp.fc2": (size, 4 * size),
            }.items():
                state[f"{name}.{layer}.weight"] = draw(rows_out, rows_in, scale=rows_in**-0.5)
                state[f"{name}.{layer}.bias"] = draw(rows_out)
        return state

    return {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, rows * rows + 1, width),
        "mask_token": draw(1, 1, decoder_width),
        "decoder_pos_embed": draw(1, rows * rows + 1, decoder_width),
        "patch_embed.proj.weight": draw(width, channels, patch, patch, scale=0.1),
        "patch_embed.proj.bias": draw(width),
        **blocks("blocks", depth, width),
        "norm.weight": draw(width, mean=1),
        "norm.bias": draw(width),
        "decoder_embed.weight": draw(decoder_width, width),
        "decoder_embed.bias": draw(decoder_width),
        **blocks("decoder_blocks", decoder_depth, decoder_width),
        "decoder_norm.weight": draw(decoder_width, mean=1),
        "decoder_norm.bias": draw(decoder_width),
        "decoder_pred.weight": draw(patch * patch * channels, decoder_width),
        "decoder_pred.bias": draw(patch * patch * channels),
    }


def reference_loss(
    state: dict[str, Tensor], images: Tensor, visible: Tensor, heads: int, decoder_heads: int, norm_pix: bool
) -> Tensor:
    """The loss of a batch: images (B, C, H, W), visible (B, gh, gw) with as many hidden cells in every image."""
    errors = []
    for image, seen in zip(images, visible.flatten(1), strict=True):
        patches = cut(image, state["patch_embed.proj.weight"].shape[-1])
        predicted = predict(state, patches, seen, heads, decoder_heads)
        for place in range(len(patches)):
            if not seen[place]:
                # the order of pixels in a prediction is row, column, channel
                right = patches[place].permute(1, 2, 0).reshape(-1)
                if norm_pix:
                    right = (right - right.mean()) / (right.var(unbiased=True) + EPSILON).sqrt()
                errors.append((predicted[place] - right).pow(2).mean())
    return torch.stack(errors).mean()


def cut(image: Tensor, size: int) -> list[Tensor]:
    """The patches (C, size, size) of an image, row by row."""
    rows, columns = image.shape[1] // size, image.shape[2] // size
    return [
        image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        for row in range(rows)
        for column in range(columns)
    ]


def predict(state: dict[str, Tensor], patches: list[Tensor], seen: Tensor, heads: int, decoder_heads: int) -> Tensor:
    """What the decoder says of every patch of one image: (L, patch * patch * C)."""
    weight, bias = state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"]
    kept = [place for place in range(len(patches)) if seen[place]]
    tokens = [state["cls_token"][0, 0] + state["pos_embed"][0, 0]]
    tokens += [weight @ patches[place].reshape(-1) + bias + state["pos_embed"][0, 1 + place] for place in kept]
    encoded = run_blocks(state, "blocks", torch.stack(tokens), heads)
    encoded = norm(state, "norm", encoded)
    small = linear(state, "decoder_embed", encoded)
    canvas = [small[0]]
    for place in range(len(patches)):
        canvas.append(small[1 + kept.index(place)] if place in kept else state["mask_token"][0, 0])
    decoded = run_blocks(state, "decoder_blocks", torch.stack(canvas) + state["decoder_pos_embed"][0], decoder_heads)
    return linear(state, "decoder_pred", norm(state, "decoder_norm", decoded))[1:]


def run_blocks(state: dict[str, Tensor], prefix: str, tokens: Tensor, heads: int) -> Tensor:
    for place in range(len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})):
        name = f"{prefix}.{place}"
        tokens = tokens + attention(state, f"{name}.attn", norm(state, f"{name}.norm1", tokens), heads)
        middle = F.gelu(linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", tokens)))
        tokens = tokens + linear(state, f"{name}.mlp.fc2", middle)
    return tokens


def attention(state: dict[str, Tensor], name: str, tokens: Tensor, heads: int) -> Tensor:
    width = tokens.shape[-1]
    query, key, value = linear(state, f"{name}.qkv", tokens).split(width, dim=-1)
    size = width // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        share = (query[:, part] @ key[:, part].T / size**0.5).softmax(dim=-1)
        mixed.append(share @ value[:, part])
    return linear(state, f"{name}.proj", torch.cat(mixed, dim=-1))


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.pow(2).mean(dim=-1, keepdim=True) + EPSILON).sqrt()
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]
