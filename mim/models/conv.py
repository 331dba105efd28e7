"""timm CNNs behind the encoder's contract, with sparse hiding."""

from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import Tensor

from mim.models.building import EncoderRequest
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import Features
from mim.models.sparse import trace_backbone
from mim.models.sparse_cells import VisibleCells
from mim.models.sparse_dense import DenseMask
from mim.models.sparse_run import SparseRun

CNN_PATCH_SIZE = 32


def build_sparse(request: EncoderRequest) -> "SparseConvEncoder":
    """Builds a CNN whose hidden cells are kept empty.

    Raises:
        ValueError: if the image is not a whole number of cells, or the network cannot be hidden.
    """
    cell = request.patch_size or CNN_PATCH_SIZE
    check_divisible(request.image_size, cell)
    backbone = request.backbone()
    if not isinstance(backbone, ResNet | ConvNeXt | EfficientNet):
        raise ValueError(
            f"cells cannot be hidden in a {type(backbone).__name__}; choose a ResNet, a ConvNeXt or an EfficientNet"
        )
    return SparseConvEncoder(backbone, request.spec(cell))


class SparseConvEncoder(Encoder):
    """A timm CNN in which hidden cells are zeros everywhere and norms see visible positions only.

    Raises:
        ValueError: if the backbone has layers that cannot be hidden, or strides that do not fit the cell.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        stages = backbone.feature_info  # finest first; the first may be the stem
        super().__init__(backbone, spec, backbone.num_features, [entry["num_chs"] for entry in stages])
        self._stages = [entry["module"] for entry in stages]
        self._graph, self._stage_nodes = trace_backbone(backbone, self._stages)
        for entry in stages:
            stride = entry["reduction"]
            if spec.patch_size % stride and stride % spec.patch_size:
                raise ValueError(
                    f"patch size {spec.patch_size} and the backbone's stride {stride} do not fit each other"
                )
            if any(side % stride for side in spec.image_size):
                raise ValueError(
                    f"image size {spec.image_size[0]}x{spec.image_size[1]} is not divisible by stride {stride}"
                )

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Interprets the traced backbone under the mask."""
        mask, cells = self._hiding(visible, count)
        run = SparseRun(self.backbone, self._graph, self._stage_nodes, mask, cells)
        # rows of channels are fetched; the plain network is left as it would be run
        final, mean = run.final(image if mask is None else image.contiguous(memory_format=torch.channels_last))
        # (B, D, 1, 1) of a mean: the backbone's own pooling then finds nothing left to pool
        pooled = self.backbone.forward_head(final if mean is None else mean, pre_logits=True)
        return Features(pooled=pooled, maps=run.maps(self._stages))

    def _hiding(self, visible: Tensor | None, count: int | None) -> tuple[DenseMask | None, VisibleCells | None]:
        """What the layers are run under; nothing where all is seen: that is the plain network, to the last bit."""
        if visible is None or count == visible[0].numel():
            return None, None
        if visible.dtype != torch.bool:
            return DenseMask(visible.float()), None  # a gate weighs what it hides, so that is computed as well
        cells = VisibleCells(visible, count, torch.is_grad_enabled())
        if cells.number == visible.numel():
            return None, None
        return DenseMask(visible.float(), several=count is not None and len(visible) > 1), cells
