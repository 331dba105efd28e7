"""Quicker forms of two operations on a CPU."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

# of a matrix of attention that is held whole for the backward pass, 128 MiB: beyond it memory is worth more than time
MOST_LOGITS = 2**26


def quick_on_cpu(device: torch.device) -> AbstractContextManager[Any]:
    """Within it, linear maps and attention take the faster of torch's own kernels, if the device is a CPU.

    - Linear maps in float32 are left to oneDNN instead of to MKL, which is as accurate, and twice as fast where MKL
      does not use the processor's AVX-512.
    - Attention in bfloat16 that needs a gradient is two matrix products and a softmax: the backward pass of
      `scaled_dot_product_attention` in bfloat16 is slower than all of that. Its logits are rounded to bfloat16.

    Compiled code is left as it is.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    return _QuickKernels()


class _QuickKernels(TorchFunctionMode):
    """Replaces the calls of torch's functions that are made within it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        products: Callable[..., Tensor] = _attention_by_products
        if func is F.linear and not kwargs and _suits_onednn(*args):
            return _OneDnnLinear.apply(*args, *([None] if len(args) == 2 else []))
        if func is F.scaled_dot_product_attention and len(args) == 3 and _suits_products(*args, **kwargs):
            return products(*args, kwargs.get("attn_mask"))
        return func(*args, **kwargs)


def _suits_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    float32 = x.dtype == weight.dtype == torch.float32 and (bias is None or bias.dtype == torch.float32)
    on_cpu = x.device.type == "cpu" and x.layout == torch.strided
    return _HAS_ONEDNN and float32 and on_cpu and x.numel() > 0 and not torch.is_autocast_enabled("cpu")


def _suits_products(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> bool:
    plain = not options.get("dropout_p") and not options.get("is_causal") and options.keys() <= _PLAIN_OPTIONS
    mask = options.get("attn_mask")
    plain = plain and (mask is None or mask.is_floating_point())  # a boolean one cannot be added
    small = query.ndim == 4 and math.prod(query.shape[:3]) * key.shape[2] <= MOST_LOGITS
    bfloat16 = query.dtype == key.dtype == value.dtype == torch.bfloat16
    return plain and small and bfloat16 and query.requires_grad and query.device.type == "cpu"


def _attention_by_products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # (B, heads, M, N)
    if bias is not None:
        logits = logits + bias
    mixed: Tensor = logits.softmax(dim=-1) @ value
    return mixed


class _OneDnnLinear(torch.autograd.Function):
    """`F.linear` in float32, forward and backward, by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.t(), None) if of_x else None,
            _product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


_PLAIN_OPTIONS = {"attn_mask", "dropout_p", "is_causal"}
_HAS_ONEDNN: bool = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
