"""One tooth: its surface, its enamel-dentine junction, its pulp and its restoration."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mim.data.phantom.geometry import (
    MOLAR_CROWN,
    MOLAR_ROOTS,
    PALATAL_ROOT,
    PREMOLAR_CROWN,
    PREMOLAR_ROOTS,
    STEPS,
    Contour,
    Material,
    Patient,
    Points,
    Restoration,
    Tooth,
    smooth_loop,
)
from mim.data.phantom.settings import PhantomSettings


def draw_tooth(
    settings: PhantomSettings,
    traits: Patient,
    rng: np.random.Generator,
    kind: Literal["premolar", "molar"],
    upper: bool,
    half_width: float,
    crown_height: float,
    placement: Points,
) -> Tooth:
    """Draw one tooth in its own frame; sizes in mm."""
    enamel = traits.enamel * rng.normal(1, 0.05)
    scale = (half_width, crown_height, enamel)
    crown = crown_controls(kind, traits.wear, rng) * scale
    roots = root_controls(MOLAR_ROOTS if kind == "molar" else PREMOLAR_ROOTS, half_width, crown_height, rng)
    lingual_roots = roots
    if kind == "molar" and upper:
        lingual_roots = root_controls(PALATAL_ROOT, half_width, crown_height, rng)
    drop = rng.uniform(0.1, 0.8) if kind == "molar" else rng.uniform(0.5, 1.3)
    contours = tuple(
        make_contour(lowered(crown, share * drop, crown_height), below)
        for share, below in ((0.0, roots), (0.55, roots), (1.0, lingual_roots))
    )
    return Tooth(
        kind=kind,
        upper=upper,
        half_width=half_width,
        crown_height=crown_height,
        depth=(9.8 if kind == "molar" else 8.2) * traits.size * rng.normal(1, 0.04),
        enamel=enamel,
        contours=contours,
        pulp=draw_pulp(kind, half_width, crown_height, traits.pulp, rng),
        placement=placement,
        restoration=draw_restoration(settings, traits, rng, contours[0], half_width, crown_height),
    )


def crown_controls(kind: Literal["premolar", "molar"], wear: float, rng: np.random.Generator) -> Points:
    """Give (K, 3) control points of a crown, from the left junction to the right one, in shares of its sizes."""
    half = np.array(MOLAR_CROWN if kind == "molar" else PREMOLAR_CROWN)
    crown = np.concatenate([half, half[-2::-1] * [-1, 1, 1]])
    crown[1:-1, 0] += rng.normal(0, 0.012, len(crown) - 2)
    crown[:, 1] += rng.normal(0, 0.012, len(crown))
    crown[1:-1, 2] *= rng.normal(1, 0.05, len(crown) - 2)
    worn = np.maximum(crown[:, 1], 0.07 * wear)
    crown[:, 2] -= 0.5 * (worn - crown[:, 1])
    crown[:, 1] = worn
    return crown


def root_controls(
    shape: Sequence[tuple[float, float]], half_width: float, crown_height: float, rng: np.random.Generator
) -> Points:
    """Give (K, 3) control points of the roots in mm, from the right junction to the left one."""
    roots = np.array(shape)
    bend = rng.normal(0, 0.08) * (roots[:, 1] / 12) ** 2
    u = (roots[:, 0] + bend + rng.normal(0, 0.012, len(roots))) * half_width
    return np.column_stack([u, roots[:, 1] * rng.uniform(0.9, 1.1) + crown_height, np.zeros(len(roots))])


def lowered(crown: Points, drop: float, crown_height: float) -> Points:
    """Lower the cusps of a slice by a drop in mm, the contact points and all below not at all."""
    lower = crown.copy()
    lower[:, 1] += drop * np.clip(1 - crown[:, 1] / (0.45 * crown_height), 0, 1)
    return lower


def make_contour(crown: Points, roots: Points) -> Contour:
    """Smooth the control points and set the enamel-dentine junction inside the surface."""
    curve = smooth_loop(np.concatenate([crown, roots]))
    outer, thickness = curve[:, :2], np.clip(curve[:, 2:], 0, None)
    return Contour(outer, outer + inward_normals(outer) * thickness, (len(crown) - 1) * STEPS + 1)


def inward_normals(loop: Points) -> Points:
    """Give the (N, 2) unit normals of a closed clockwise curve (v pointing down) towards its inside."""
    tangent = np.roll(loop, -2, axis=0) - np.roll(loop, 2, axis=0)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
    return np.asarray(normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9))


def draw_pulp(
    kind: Literal["premolar", "molar"], half_width: float, crown_height: float, size: float, rng: np.random.Generator
) -> tuple[Points, ...]:
    """Draw the chamber with its horns and one canal a root, as closed lines."""
    w, h = half_width, crown_height
    roof, horn = h * rng.uniform(0.66, 0.76), h * rng.uniform(0.05, 0.14) * size
    canal = 0.38 * size * rng.uniform(0.8, 1.2)
    if kind == "premolar":
        wide = 0.2 * w * size
        return (smooth_loop(np.array([
            (-wide, roof + 0.6), (-0.4 * wide, roof - horn), (0.4 * wide, roof - horn), (wide, roof + 0.6),
            (0.9 * wide, h + 1.5), (canal * 0.8, h + 6), (0.15, h + 13),
            (-0.15, h + 13), (-canal * 0.8, h + 6), (-0.9 * wide, h + 1.5),
        ])),)  # fmt: skip
    wide = 0.46 * w * np.sqrt(size)
    floor = max(h + rng.uniform(0.6, 1.6), roof + 1.2)
    middle = roof + 0.35 * horn
    right_horn = roof - horn * rng.uniform(0.6, 1.2)
    chamber = smooth_loop(np.array([
        (-wide, floor - 0.5), (-1.02 * wide, roof + 0.4), (-0.8 * wide, roof - horn), (-0.5 * wide, middle),
        (0, middle + 0.1), (0.5 * wide, middle), (0.8 * wide, right_horn), (1.02 * wide, roof + 0.4),
        (wide, floor - 0.5), (0.4 * wide, floor), (-0.4 * wide, floor),
    ]))  # fmt: skip
    canals = []
    for sign in (-1, 1):
        middle_line = np.array(
            [(0.86 * wide, floor - 0.9), (0.50 * w, h + 4.0), (0.53 * w, h + 8.0), (0.52 * w, h + 12.0)]
        )
        half = canal * np.array([1.2, 0.9, 0.7, 0.4])
        right, left = middle_line + np.column_stack([half, 0 * half]), middle_line - np.column_stack([half, 0 * half])
        canals.append(np.concatenate([right, left[::-1]]) * [sign, 1])
    return (chamber, *canals)


def draw_restoration(
    settings: PhantomSettings,
    traits: Patient,
    rng: np.random.Generator,
    contour: Contour,
    half_width: float,
    crown_height: float,
) -> Restoration | None:
    """Draw an occlusal filling, one that reaches a neighbour, or a crown; most teeth have none."""
    chance, kind = rng.random(), rng.random()
    material: Material = "amalgam" if rng.random() < 0.6 else "composite"
    w, h = half_width, crown_height
    jitter = rng.normal(0, 0.05, (8, 2)) * [w, h]
    left, side = rng.uniform(0.35, 0.6, 2), rng.random() < 0.5
    if chance >= settings.restoration_fraction * traits.restoration_odds:
        return None
    if kind < 0.1:
        crown = contour.outer[: contour.crown_points]
        return Restoration("crown", (crown[crown[:, 1] < 0.85 * h],), frozenset({"left", "right", "occlusal"}))
    depth = rng.uniform(0.36, 0.5) * h
    cavity = np.array([
        (-left[0] * w, -1), (-left[0] * 0.85 * w, 0.7 * depth), (-0.3 * w, depth), (0.05 * w, 0.9 * depth),
        (0.35 * w, depth), (left[1] * 0.85 * w, 0.7 * depth), (left[1] * w, -1), (0, -1),
    ]) + jitter * [[0.5, 0.5]]  # fmt: skip
    if kind < 0.55:
        return Restoration(material, (smooth_loop(cavity),), frozenset({"occlusal"}))
    sign = 1 if side else -1
    bottom = rng.uniform(0.58, 0.72) * h
    box = np.array([(0.3, -1), (0.35, depth * 0.9), (0.62, depth), (0.66, bottom), (1.2, bottom * 1.02), (1.2, -1)])
    box = (box * [w * sign, 1]) + jitter[:6] * 0.3
    return Restoration(material, (smooth_loop(cavity), box), frozenset({"occlusal", "right" if side else "left"}))
