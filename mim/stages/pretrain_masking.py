"""What the settings of masking ask for, held against the encoder."""

from mim.config import MaskingConfig
from mim.errors import MimError
from mim.masking.patterns import hidden_count
from mim.models import Encoder
from mim.models.guides import AttentionGuide, Guide, HardPatchGuide

READERS = {
    "unit": ("random",),
    "guided_share": ("texture", "hard", "attention"),
    "exact": ("foreground",),
}


def check_masking(masking: MaskingConfig, grid: tuple[int, int]) -> None:
    """Refuses settings that the pattern does not read, and ratios that cannot be.

    Raises:
        MimError: naming the setting.
    """
    for name, patterns in READERS.items():
        if masking.pattern not in patterns and getattr(masking, name) != MaskingConfig.model_fields[name].default:
            raise MimError(
                f"masking.{name} is not read where masking.pattern is {masking.pattern}, but where it is "
                f"{' or '.join(patterns)}; leave it out"
            )
    if isinstance(masking.ratio, tuple):
        if masking.ratio[0] > masking.ratio[1]:
            raise MimError(f"masking.ratio [{masking.ratio[0]}, {masking.ratio[1]}]: the smaller must come first")
        if masking.exact:
            raise MimError("masking.exact asks for equal counts, and a range of masking.ratio gives unequal ones")
    check_ratio(masking, grid)


def check_ratio(masking: MaskingConfig, grid: tuple[int, int]) -> None:
    """Refuses a ratio that hides none or all of the cells of a grid.

    Raises:
        MimError: with the smallest and the largest ratio that there is.
    """
    cells = grid[0] * grid[1]
    for ratio in masking.ratio if isinstance(masking.ratio, tuple) else (masking.ratio,):
        if not 0 < round(ratio * cells) < cells:
            fault = "hides none" if round(ratio * cells) == 0 else "leaves none visible"
            raise MimError(
                f"masking.ratio: {ratio:g} {fault} of the {grid[0]} x {grid[1]} cells of an image; "
                f"from {1 / cells:.2g} to {1 - 1 / cells:.4g} it works"
            )


def visible_count(masking: MaskingConfig, grid: tuple[int, int]) -> int | None:
    """How many cells every film shows, or None where films differ in that."""
    if isinstance(masking.ratio, tuple) or (masking.pattern == "foreground" and not masking.exact):
        return None
    cells = grid[0] * grid[1]
    return cells - hidden_count(cells, masking.ratio)


def build_guide(masking: MaskingConfig, encoder: Encoder) -> Guide | None:
    """Builds the guide of the patterns that have one.

    Raises:
        MimError: the encoder cannot guide in that way.
    """
    if masking.pattern == "hard":
        return HardPatchGuide(encoder, masking.guided_share)
    if masking.pattern == "attention":
        try:
            return AttentionGuide(encoder, masking.guided_share)
        except ValueError as error:
            raise MimError(f"masking.pattern=attention: {error}") from error
    return None
