"""Geometry of a bitewing in mm: teeth with enamel, dentine, pulp and roots, and the bone that holds them.

A tooth is drawn in its own frame: u runs along the row of teeth, v from the cusps (0) towards the apex. Measures are
the round means of dental anatomy textbooks, varied by patient, film and tooth.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Side = Literal["left", "right"]
Material = Literal["amalgam", "composite", "crown"]

STEPS = 16  # points of the smooth contour for each control point
CEJ = 0.93  # height of the cemento-enamel junction on the proximal side, as a share of the crown
MOLAR_CROWN = (  # u / half width, v / crown height, enamel / mean thickness; from the left junction to the fissure
    (-0.80, 0.93, 0.00),
    (-0.90, 0.72, 0.55),
    (-1.00, 0.42, 1.00),
    (-0.95, 0.18, 1.05),
    (-0.74, 0.03, 1.20),
    (-0.48, 0.00, 1.40),
    (-0.22, 0.09, 1.15),
    (0.00, 0.17, 0.90),
)
PREMOLAR_CROWN = (
    (-0.72, 0.93, 0.00),
    (-0.85, 0.72, 0.55),
    (-1.00, 0.44, 1.00),
    (-0.92, 0.24, 1.05),
    (-0.66, 0.12, 1.15),
    (-0.30, 0.03, 1.30),
    (0.00, 0.00, 1.40),
)
# u / half width, mm below the crown; from the right junction to the left one
MOLAR_ROOTS = (
    (0.78, 1.5), (0.77, 4.5), (0.70, 9.0), (0.52, 12.5), (0.34, 10.0), (0.25, 6.5), (0.12, 4.2),
    (0.00, 3.5), (-0.12, 4.2), (-0.25, 6.5), (-0.36, 10.0), (-0.54, 12.5), (-0.72, 9.0), (-0.78, 4.5), (-0.78, 1.5),
)  # fmt: skip
PALATAL_ROOT = (
    (0.74, 1.5),
    (0.55, 4.5),
    (0.36, 9.0),
    (0.10, 13.0),
    (-0.10, 13.0),
    (-0.36, 9.0),
    (-0.55, 4.5),
    (-0.74, 1.5),
)
PREMOLAR_ROOTS = (
    (0.69, 1.5),
    (0.60, 5.0),
    (0.42, 9.5),
    (0.12, 13.5),
    (-0.16, 13.5),
    (-0.44, 9.5),
    (-0.61, 5.0),
    (-0.69, 1.5),
)


@dataclass(frozen=True)
class Contour:
    """One slice of a tooth as closed lines in the tooth's frame; row i of both belongs together."""

    outer: Points  # (N, 2) surface
    inner: Points  # (N, 2) enamel-dentine junction; equal to the surface on the root
    crown_points: int  # the first rows, from the left junction over the cusps to the right one

    @cached_property
    def arc(self) -> npt.NDArray[np.float64]:
        """Length along the surface in mm, (N,)."""
        steps = np.linalg.norm(np.diff(self.outer, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def side(self, side: Side) -> npt.NDArray[np.intp]:
        """Rows of the left or the right half of the crown."""
        half = self.crown_points // 2
        return np.arange(0, half) if side == "left" else np.arange(half, self.crown_points)


@dataclass(frozen=True)
class Restoration:
    """A filling or crown: closed lines in the tooth's frame."""

    material: Material
    polygons: tuple[Points, ...]
    covers: frozenset[str]  # surfaces where caries can no longer be: "left", "right", "occlusal"


@dataclass(frozen=True)
class Tooth:
    """One tooth in its own frame, and where it stands."""

    kind: Literal["premolar", "molar"]
    upper: bool
    half_width: float
    crown_height: float
    depth: float  # buccolingual, mm
    enamel: float  # mean thickness, mm
    contours: tuple[Contour, ...]  # slices from buccal to lingual; the first one carries the landmarks
    pulp: tuple[Points, ...]
    placement: Points  # (2, 3) affine map from the tooth's frame to the film, mm
    restoration: Restoration | None

    def to_film(self, points: Points) -> Points:
        """Map (N, 2) points of the tooth's frame to mm on the film."""
        return points @ self.placement[:, :2].T + self.placement[:, 2]


@dataclass(frozen=True)
class Row:
    """The upper or the lower teeth with the crest of their bone in the unrotated frame of the film."""

    upper: bool
    teeth: tuple[Tooth, ...]
    crest_x: npt.NDArray[np.float64]
    crest_y: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """All that the beam meets, lesions apart."""

    rows: tuple[Row, Row]
    rotation: float  # of the film in radians
    bone_density: float

    @property
    def teeth(self) -> tuple[Tooth, ...]:
        """Upper teeth, then lower teeth."""
        return self.rows[0].teeth + self.rows[1].teeth


@dataclass(frozen=True)
class Patient:
    """What all films of one patient share."""

    size: float
    enamel: float
    pulp: float
    bone_level: float
    bone_density: float
    restoration_odds: float
    wear: float


def smooth_loop(control: Points) -> Points:
    """Turn (K, D) control points into a closed Catmull-Rom curve of K * STEPS points."""
    before, here, after, beyond = (np.roll(control, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, STEPS, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - beyond) * t**2
        + (3 * here - before - 3 * after + beyond) * t**3
    )
    return np.asarray(curve.reshape(-1, control.shape[1]))
