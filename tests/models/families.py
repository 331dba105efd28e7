"""One small network of each family that mim covers: the tests of loading and exporting run them all."""

import pytest
import timm

from mim.models.create import FAMILIES

# timm name, image size, arguments of timm that make it small
EXAMPLES = [
    ("vit_tiny_patch16_224", (32, 48), {"depth": 2}),
    ("vit_small_patch14_reg4_dinov2", (28, 42), {"depth": 1}),
    ("deit3_small_patch16_224", (32, 32), {"depth": 1}),
    ("resnet18", (64, 96), {}),
    ("resnet50", (64, 64), {"layers": [1, 1, 1, 1]}),
    ("convnext_atto", (64, 96), {"depths": [1, 1, 1, 1]}),
    ("convnextv2_atto", (64, 64), {"depths": [1, 1, 1, 1]}),
    ("efficientnet_b0", (64, 64), {}),
    ("hiera_tiny_224", (224, 224), {"stages": [1, 1, 1, 1]}),
    ("swin_tiny_patch4_window7_224", (224, 224), {"depths": [1, 1, 1, 1]}),
]


def module_of(name: str) -> str:
    return timm.model_entrypoint(name).__module__.split(".")[-1]


def each_family() -> list[object]:
    """The examples as parameters; what `create_encoder` cannot build in this version is skipped and says so."""
    return [
        pytest.param(
            name,
            size,
            args,
            id=name,
            marks=pytest.mark.skipif(module_of(name) not in FAMILIES, reason=f"no encoder for {module_of(name)} yet"),
        )
        for name, size, args in EXAMPLES
    ]
