"""Caries in a tooth's own frame, and the look-alikes that are not caries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mim.data.phantom.geometry import Anatomy, Contour, Points, Side, Tooth
from mim.data.phantom.settings import PhantomSettings, random_stream

Kind = Literal["proximal", "occlusal"]
Surface = Literal["left", "right", "occlusal"]

GRADES = ("E1", "E2", "D1", "D2", "D3")  # outer, inner half of the enamel; outer, middle, inner third of the dentine
GRADE_ODDS = {"proximal": (0.08, 0.17, 0.30, 0.27, 0.18), "occlusal": (0.0, 0.0, 0.35, 0.4, 0.25)}
KINDS: tuple[Kind, Kind] = ("proximal", "occlusal")
PROXIMAL_SHARE = 0.8
SPREAD = 5.5  # mm; caries is commonest about the first molar, which stands in the middle
SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True)
class Lesion:
    """One caries lesion on a film."""

    kind: Kind
    grade: str  # one of GRADES
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last two exclusive
    mask: npt.NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Mark:
    """Where mineral is missing in a tooth: closed lines in its frame, and how much."""

    tooth: int  # index into Anatomy.teeth
    polygons: tuple[Points, ...]
    strength: float  # share of the mineral that is lost
    softness: float  # standard deviation of the edge, mm


@dataclass(frozen=True)
class PlannedLesion:
    """A lesion before it is drawn."""

    kind: Kind
    grade: str
    mark: Mark


@dataclass(frozen=True)
class Site:
    """A surface where caries can be."""

    tooth: int
    surface: Surface
    place: tuple[float, float]  # mm on the film


def candidate_sites(settings: PhantomSettings, anatomy: Anatomy) -> list[Site]:
    """List every sound surface well inside the film."""
    sites = []
    margin = 0.07 * settings.film_width_mm
    for index, tooth in enumerate(anatomy.teeth):
        covered = tooth.restoration.covers if tooth.restoration else frozenset()
        contour = tooth.contours[0]
        surfaces: tuple[Surface, ...] = ("left", "right", "occlusal") if tooth.kind == "molar" else ("left", "right")
        for surface in surfaces:
            if surface in covered:
                continue
            row = contour.crown_points // 2 if surface == "occlusal" else contact_row(contour, surface)
            x, y = tooth.to_film(contour.inner[row][None])[0]
            inside = margin < x < settings.film_width_mm - margin and margin < y < settings.film_height_mm - margin
            if inside:
                sites.append(Site(index, surface, (float(x), float(y))))
    return sites


def contact_row(contour: Contour, side: Side) -> int:
    """Row of the contour that bulges most on one side."""
    rows = contour.side(side)
    u = contour.outer[rows, 0]
    return int(rows[np.argmin(u) if side == "left" else np.argmax(u)])


def plan_lesions(
    settings: PhantomSettings, anatomy: Anatomy, sites: Sequence[Site], seed: int, patient: int, film: int
) -> list[PlannedLesion]:
    """Decide whether the film carries caries, where and how deep: none, or one to three lesions."""
    rng = random_stream(seed, patient, 2, film)
    if rng.random() >= settings.caries_fraction:
        return []
    wanted = int(rng.choice([1, 2, 3], p=[0.25, 0.4, 0.35]))
    left = list(sites)
    planned: list[PlannedLesion] = []
    while left and len(planned) < wanted:
        kind: Kind = KINDS[0] if rng.random() < PROXIMAL_SHARE else KINDS[1]
        fitting = [site for site in left if (site.surface == "occlusal") == (kind == "occlusal")] or left
        off_centre = np.array([site.place[0] for site in fitting]) - settings.film_width_mm / 2
        odds = np.exp(-((off_centre / SPREAD) ** 2) / 2) + 1e-6
        site = fitting[int(rng.choice(len(fitting), p=odds / odds.sum()))]
        left.remove(site)
        planned.append(draw_lesion(settings, anatomy.teeth[site.tooth], site, rng))
    return planned


def draw_lesion(settings: PhantomSettings, tooth: Tooth, site: Site, rng: np.random.Generator) -> PlannedLesion:
    """Draw one lesion at a site."""
    kind: Kind = "occlusal" if site.surface == "occlusal" else "proximal"
    grade = str(rng.choice(GRADES, p=GRADE_ODDS[kind]))
    strength = settings.lesion_contrast * rng.uniform(0.8, 1.2) * (1.1 if grade in ("D2", "D3") else 1.0)
    if site.surface == "occlusal":
        polygons = occlusal_lesion(tooth, grade, rng)
    else:
        polygons = proximal_lesion(tooth, site.surface, grade, rng)
    return PlannedLesion(kind, grade, Mark(site.tooth, polygons, float(min(strength, 1.0)), rng.uniform(0.07, 0.13)))


def proximal_lesion(tooth: Tooth, side: Side, grade: str, rng: np.random.Generator) -> tuple[Points, ...]:
    """A wedge in the enamel at or below the contact; from D1 on it widens along the junction into the dentine."""
    contour = tooth.contours[0]
    contact = contour.outer[contact_row(contour, side), 1]
    centre = nearest_row(contour, side, contact + rng.uniform(0.15, 1.0))
    breadth = rng.uniform(1.5, 2.2)
    share = {"E1": rng.uniform(0.45, 0.55), "E2": rng.uniform(0.75, 1.0)}.get(grade, 1.0)
    plateau = 1.0 if grade.startswith("E") else 1.5
    enamel = surface_wedge(contour, centre, breadth, share, plateau)
    if grade.startswith("E"):
        return (enamel,)
    depth = {"D1": rng.uniform(0.5, 0.8), "D2": rng.uniform(0.9, 1.3), "D3": rng.uniform(1.5, 2.0)}[grade]
    return (enamel, junction_bulge(contour, centre, breadth * rng.uniform(0.85, 1.3), depth))


def occlusal_lesion(tooth: Tooth, grade: str, rng: np.random.Generator) -> tuple[Points, ...]:
    """A dark spread below the enamel-dentine junction under the fissure."""
    contour = tooth.contours[0]
    breadth = rng.uniform(1.4, 2.3)
    depth = {"D1": rng.uniform(0.6, 0.8), "D2": rng.uniform(0.9, 1.3), "D3": rng.uniform(1.4, 1.9)}[grade]
    centre = contour.crown_points // 2 + int(rng.integers(-6, 7))
    return (junction_bulge(contour, centre, breadth, depth),)


def nearest_row(contour: Contour, side: Side, height: float) -> int:
    """Row of one side of the crown whose height v is nearest to the one asked for."""
    rows = contour.side(side)
    flank = rows[contour.outer[rows, 1] > contour.outer[contact_row(contour, side), 1] - 1.5]
    return int(flank[np.argmin(np.abs(contour.outer[flank, 1] - height))])


def surface_wedge(contour: Contour, centre: int, breadth: float, share: float, plateau: float = 1.0) -> Points:
    """Closed line from the surface to a share of the enamel's thickness, tapering to both ends."""
    position = (contour.arc - contour.arc[centre]) / (breadth / 2)
    rows = np.flatnonzero(np.abs(position) <= 1)
    depth = share * np.clip(plateau * (1 - np.abs(position[rows])), 0, 1)[:, None]
    floor = contour.outer[rows] + (contour.inner[rows] - contour.outer[rows]) * depth
    return np.concatenate([contour.outer[rows], floor[::-1]])


def junction_bulge(contour: Contour, centre: int, breadth: float, depth: float) -> Points:
    """Closed line with its base on the enamel-dentine junction and a round floor, depth in mm."""
    position = (contour.arc - contour.arc[centre]) / (breadth / 2)
    rows = np.flatnonzero(np.abs(position) <= 1)
    base = contour.inner[rows]
    along = base[-1] - base[0]
    inward = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    floor = base + inward * (depth * (1 - position[rows] ** 2) ** 0.9)[:, None]
    return np.concatenate([base, floor[::-1]])
