"""timm CNNs behind the encoder's contract, with layer masking."""

from typing import Any

import torch
from timm.layers import BlurPool2d
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from mim.models.building import EncoderRequest
from mim.models.conv import CNN_PATCH_SIZE
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import Features
from mim.models.layer_masking import SHARE_FLOOR, LayerMaskedRun, MaskPyramid, NodePlan, plan_masks
from mim.models.sparse import ELEMENTWISE_CALLS, MaskTrace, is_supported, trace_backbone


class LayerTrace(MaskTrace):
    """Traces into squeeze-and-excitation, whose mean is then one over visible positions; refuses blur pools."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is not traced into."""
        return isinstance(m, BatchNormAct2d) or not any(True for _ in m.children())

    def is_supported(self, m: nn.Module) -> bool:
        """Whether hidden cells can be kept out of this layer."""
        return is_supported(m) and not isinstance(m, BlurPool2d)


def build_layer(request: EncoderRequest) -> "LayerMaskedEncoder":
    """Builds a CNN whose hidden cells are filled from their neighbours, layer by layer.

    Raises:
        ValueError: if the image is not a whole number of cells, or the network cannot be hidden.
    """
    cell = request.patch_size or CNN_PATCH_SIZE
    check_divisible(request.image_size, cell)
    return LayerMaskedEncoder(request.backbone(), request.spec(cell))


class LayerMaskedEncoder(Encoder):
    """A timm CNN that sees neither the colour nor the shape of what hides a cell, trained with masks or not.

    A map's positions are visible where at least one of the pixels that they go back to is, so maps are not zero at
    hidden cells right beside visible ones: as published, what is seen widens with what a layer reads.

    Raises:
        ValueError: if the backbone has layers that cannot be followed by a mask.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        stages = backbone.feature_info  # finest first; the first may be the stem
        super().__init__(backbone, spec, backbone.num_features, [entry["num_chs"] for entry in stages])
        self._stages = [entry["module"] for entry in stages]
        self._graph, self._stage_nodes = trace_backbone(
            backbone, self._stages, LayerTrace(self._stages), ELEMENTWISE_CALLS | {"mean"}
        )
        self._plans = {
            statistics: plan_masks(
                backbone, self._graph, set(self._stage_nodes), spec.patch_size, batch_statistics=statistics
            )
            for statistics in (False, True)
        }

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Interprets the traced backbone under the mask, or runs it plainly where all is visible."""
        if visible is None:
            visible = torch.ones(len(image), *self.grid(), device=image.device)
        precise = torch.promote_types(image.dtype, torch.float32)
        pyramid = MaskPyramid(visible.to(precise), self.patch_size)
        run = LayerMaskedRun(self.backbone, self._graph, self._plan(), self._stage_nodes, pyramid)
        # of a boolean mask the hidden pixels are zero already; a gate passes its gradient on here
        final = run.run(image * pyramid.mask(("cells", 1)).to(image.dtype))  # (B, D, h, w)
        assert run.final is not None
        weight = run.mask(run.final).to(final.dtype)
        share = weight.mean((2, 3), keepdim=True) + SHARE_FLOOR
        # (B, D, 1, 1): the backbone's own pooling then finds nothing left to pool
        pooled = self.backbone.forward_head((final * weight).mean((2, 3), keepdim=True) / share, pre_logits=True)
        return Features(pooled=pooled, maps=[run.stage_outputs[name] for name in self._stages])

    def _plan(self) -> dict[str, NodePlan]:
        norms = (module for module in self.backbone.modules() if isinstance(module, nn.BatchNorm2d))
        return self._plans[any(norm.training or norm.running_mean is None for norm in norms)]
