"""What a phantom looks like, and how hard it is."""

from dataclasses import dataclass

import numpy as np

from mim.errors import MimError

SMALLEST_SIDE = 48


@dataclass(frozen=True)
class PhantomSettings:
    """Size, look and difficulty of the drawn films.

    Attributes:
        height: Rows of a film in pixels.
        width: Columns of a film in pixels.
        film_width_mm: Width of the film; its height follows from the pixel counts, pixels are square.
        caries_fraction: Share of the films that carry caries.
        lesion_contrast: Mean share of the mineral that a lesion has lost; 0 draws the very same films without lesions.
        distractors: Factor on the frequency of look-alikes (cervical burnout, Mach bands, pits, wear, scratches).
        restoration_fraction: Share of the teeth with a filling or a crown.
        noise: Factor on the quantum noise; 0 draws none.
        blur_mm: Mean standard deviation of the blur of focus and sensor.
        supersampling: Fine pixels a side of one pixel while drawing.
    """

    height: int = 192
    width: int = 256
    film_width_mm: float = 34.0
    caries_fraction: float = 0.5
    lesion_contrast: float = 0.75
    distractors: float = 1.0
    restoration_fraction: float = 0.25
    noise: float = 1.0
    blur_mm: float = 0.11
    supersampling: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.height, self.width) < SMALLEST_SIDE:
            raise MimError(
                f"phantom: height and width must be at least {SMALLEST_SIDE}, not {self.height}x{self.width}"
            )
        for name in ("caries_fraction", "restoration_fraction", "lesion_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise MimError(f"phantom: {name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("distractors", "noise", "blur_mm"):
            if getattr(self, name) < 0:
                raise MimError(f"phantom: {name} must not be negative, not {getattr(self, name)}")
        if self.film_width_mm <= 0 or self.supersampling < 1:
            raise MimError("phantom: film_width_mm must be above 0 and supersampling at least 1")

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel in mm."""
        return self.film_width_mm / self.width

    @property
    def film_height_mm(self) -> float:
        """Height of the film in mm."""
        return self.height * self.pixel_mm


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Give the generator of one purpose: a function of the seed and the key alone."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))
