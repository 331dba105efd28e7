"""Settings of `tuning: lora`."""

from typing import Literal

from pydantic import Field

from mim.config.base import Config


class LoraConfig(Config):
    """Low-rank updates beside the weights of the encoder (Hu et al. 2022). Read where `tuning` is `lora`."""

    rank: int = Field(8, ge=1, description="rank of each update; below the narrowest of the adapted layers")
    alpha: float = Field(16.0, gt=0, description="updates are multiplied by alpha / rank")
    layers: Literal["attention", "all"] = Field(
        "all", description="which linear layers are adapted: those of the attention, or all of the encoder's"
    )
    norms: bool = Field(False, description="true = the weights of the encoder's norms learn as well")
