"""What is asked of create_encoder, and asking timm for it."""

from dataclasses import dataclass, field
from typing import Any

import timm
from torch import nn

from mim.errors import MimError
from mim.models.encoder import EncoderSpec


class UnknownStructureError(ValueError):
    """A network of a known family is put together in a way in which its tokens cannot be followed."""


@dataclass(frozen=True)
class EncoderRequest:
    """An encoder that is asked for; `create_encoder` says what the fields mean.

    Attributes:
        name: a name that timm knows.
        image_size: height and width in pixels.
        in_chans: channels of the image.
        hidden: how cells are to be hidden; one that the family can do.
        patch_size: side of a cell in pixels, None = what the family says.
        pretrained: whether timm's published weights are loaded.
        timm_args: further arguments of timm.create_model.
        fill: what hidden pixels are replaced by, where they are; see `create_encoder`.
    """

    name: str
    image_size: tuple[int, int]
    in_chans: int
    hidden: str
    patch_size: int | None
    pretrained: bool
    timm_args: dict[str, Any] = field(default_factory=dict)
    fill: str | None = None

    def backbone(self, **args: Any) -> nn.Module:
        """Asks timm for the model. What its arguments may be, and how it fails on others, is timm's affair.

        Args:
            **args: for timm.create_model; those of the request come on top, and no classifier is built unless they
                say so.

        Raises:
            MimError: timm cannot build it.
        """
        given = {"in_chans": self.in_chans, "num_classes": 0, **args, **self.timm_args}
        try:
            backbone: nn.Module = timm.create_model(self.name, pretrained=self.pretrained, **given)
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            hint = "; published weights need a network or a filled cache" if self.pretrained else ""
            raise MimError(f"encoder {self.name}: timm cannot build it: {problem}{hint}") from error
        return backbone

    def spec(self, patch_size: int) -> EncoderSpec:
        """What the encoder is built from again, once the side of a cell is known."""
        return EncoderSpec(
            self.name, self.image_size, self.in_chans, self.hidden, patch_size, dict(self.timm_args), self.fill
        )

    def published(self) -> Any:
        """What timm knows of the published weights of this name, None where it has none."""
        return timm.get_pretrained_cfg(self.name)

    def is_of(self, kind: type[nn.Module]) -> bool:
        """Whether timm defines the model beside a class of its own."""
        return bool(timm.model_entrypoint(self.name).__module__ == kind.__module__)
