"""From geometry to pixels: path lengths, Beer-Lambert attenuation, blur, noise and the 12-bit value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mim.data.phantom.geometry import CEJ, Points, Row, Tooth
from mim.data.phantom.lesions import Mark
from mim.data.phantom.settings import PhantomSettings

Plane = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint8]

# linear attenuation at about 65 kV, 1 / mm; enamel a little above nature, as the contrast of a display is
ENAMEL, DENTINE, BONE, SOFT = 0.29, 0.115, 0.060, 0.022
FILLINGS = {"amalgam": 1.1, "composite": 0.24, "crown": 1.4}
WHITE = 4095


@dataclass(frozen=True)
class Canvas:
    """The fine grid that a film is drawn on."""

    shape: tuple[int, int]
    scale: float  # fine pixels a mm
    x: Plane  # (h, w) mm, in the unrotated frame
    y: Plane

    @classmethod
    def of(cls, settings: PhantomSettings, rotation: float) -> "Canvas":
        """Lay the grid for one film."""
        fine = settings.supersampling
        shape = (settings.height * fine, settings.width * fine)
        scale = fine / settings.pixel_mm
        across = (np.arange(shape[1], dtype=np.float32) + 0.5) / scale - settings.film_width_mm / 2
        down = ((np.arange(shape[0], dtype=np.float32) + 0.5) / scale - settings.film_height_mm / 2)[:, None]
        cos, sin = np.float32(np.cos(rotation)), np.float32(np.sin(rotation))
        x = cos * across + sin * down + np.float32(settings.film_width_mm / 2)
        y = cos * down - sin * across + np.float32(settings.film_height_mm / 2)
        return cls(shape, scale, x, y)

    def pixel_at(self, place: tuple[float, float]) -> tuple[int, int]:
        """Row and column of a place (x, y) in mm on the film."""
        return int(place[1] * self.scale), int(place[0] * self.scale)


@dataclass(frozen=True)
class Window:
    """The part of the canvas that one tooth touches, and how to fill polygons in it."""

    rows: slice
    columns: slice
    tooth: Tooth
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Fine pixels (h, w)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def fill(self, polygons: Sequence[Points]) -> Flags:
        """Fill closed lines of the tooth's frame: (h, w) of 0 and 1."""
        flags = np.zeros(self.shape, np.uint8)
        corner = np.array([self.columns.start, self.rows.start])
        for polygon in polygons:
            points = (self.tooth.to_film(polygon) * self.scale - corner) * 16
            cv2.fillPoly(flags, [np.round(points).astype(np.int32)], 1, lineType=cv2.LINE_8, shift=4)
        return flags

    def height(self) -> Plane:
        """Height v in the tooth's frame of every pixel, mm, (h, w)."""
        inverse = np.linalg.inv(self.tooth.placement[:, :2])
        x = (np.arange(self.columns.start, self.columns.stop) + 0.5) / self.scale - self.tooth.placement[0, 2]
        y = (np.arange(self.rows.start, self.rows.stop) + 0.5) / self.scale - self.tooth.placement[1, 2]
        return np.asarray(inverse[1, 0] * x[None] + inverse[1, 1] * y[:, None], np.float32)

    def depth(self, flags: Flags) -> Plane:
        """Distance of every filled pixel to the edge of the filled part, mm."""
        padded = cv2.copyMakeBorder(flags, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        return np.asarray(
            cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] / np.float32(self.scale), np.float32
        )


def window_of(canvas: Canvas, tooth: Tooth) -> Window | None:
    """Give the window of a tooth, or None where it lies beside the film."""
    points = np.concatenate([tooth.to_film(contour.outer) for contour in tooth.contours]) * canvas.scale
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 6, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 6, [canvas.shape[1], canvas.shape[0]])
    if (high - low < 4).any():
        return None
    return Window(slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])), tooth, canvas.scale)


def chord(depth: Plane, radius: float) -> Plane:
    """Share of the full thickness that a beam meets at a distance from the edge of a rounded body (a superellipse)."""
    table = np.linspace(0, 1, 257)
    values = ((1 - (1 - table) ** 2.6) ** (1 / 2.6)).astype(np.float32)
    return np.asarray(values[np.minimum(depth * np.float32(256 / radius), 256).astype(np.int32)], np.float32)


def smooth_step(values: Plane, start: float | np.floating[Any], stop: float | np.floating[Any]) -> Plane:
    """Rise from 0 at start to 1 at stop (or fall, where stop is below start)."""
    t = np.clip((values - np.float32(start)) / np.float32(stop - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def tooth_paths(window: Window, marks: Sequence[Mark]) -> tuple[Plane, Flags]:
    """Sum enamel, dentine, pulp and restoration of one tooth, less what the marks take away; also its silhouette."""
    tooth = window.tooth
    v = window.height()
    radius = 0.5 * tooth.depth
    wall = np.float32(1.2 * tooth.enamel / len(tooth.contours)) * smooth_step(
        v, 1.12 * tooth.crown_height, 0.6 * tooth.crown_height
    )
    taper = 1 - np.float32(0.3) * smooth_step(v, tooth.crown_height, tooth.crown_height + 9)
    enamel, dentine = np.zeros(window.shape, np.float32), np.zeros(window.shape, np.float32)
    body = np.zeros(window.shape, np.uint8)
    for contour in tooth.contours:
        surface, core = window.fill([contour.outer]), window.fill([contour.inner])
        core &= surface
        part = np.float32(tooth.depth / len(tooth.contours)) * taper
        whole = part * chord(window.depth(surface), radius)
        inside = (part - wall) * chord(window.depth(core), 0.9 * radius)
        inside = np.where(v > CEJ * tooth.crown_height, whole - wall * (surface > 0), inside)
        dentine += np.clip(inside, 0, whole)
        enamel += np.clip(whole - inside, 0, None)
        body |= surface
    chamber = window.fill(tooth.pulp)
    hollow = chord(window.depth(chamber), 2.2) * np.float32(0.40 * tooth.depth)
    hollow = cv2.GaussianBlur(hollow, (0, 0), 0.13 * window.scale)
    dentine = np.maximum(dentine - hollow, np.float32(0.3) * dentine)
    mineral = enamel * np.float32(ENAMEL) + dentine * np.float32(DENTINE)
    for mark in marks:
        loss = cv2.GaussianBlur(window.fill(mark.polygons).astype(np.float32), (0, 0), mark.softness * window.scale)
        mineral *= 1 - np.float32(mark.strength) * loss
    if tooth.restoration:
        filling = window.fill(tooth.restoration.polygons) & body
        thickness = np.float32(0.55 * tooth.depth) * (
            np.float32(0.6) + np.float32(0.4) * chord(window.depth(filling), 0.8)
        )
        share = np.float32(FILLINGS[tooth.restoration.material])
        mineral += (share * thickness - np.float32(0.6) * mineral) * (filling > 0)
    return mineral, body


def texture(rng: np.random.Generator, canvas: Canvas, sigma_mm: float) -> Plane:
    """Smooth noise of unit variance with one grain size, drawn on a grid no finer than it needs."""
    step = max(1, int(sigma_mm * canvas.scale / 2))
    shape = (canvas.shape[0] // step + 2, canvas.shape[1] // step + 2)
    noise = cv2.GaussianBlur(
        rng.standard_normal(shape, dtype=np.float32), (0, 0), max(sigma_mm * canvas.scale / step, 0.3)
    )
    noise /= max(float(noise.std()), 1e-6)
    return np.asarray(cv2.resize(noise, (canvas.shape[1], canvas.shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def bone_attenuation(canvas: Canvas, row: Row, body: Flags, density: float, rng: np.random.Generator) -> Plane:
    """Trabecular bone below its crest, with cortical crest, lamina dura and periodontal ligament."""
    crest = np.interp(canvas.x, row.crest_x, row.crest_y).astype(np.float32)
    crest = cv2.GaussianBlur(crest, (0, 0), 0.5 * canvas.scale)
    crest += np.float32(0.15) * texture(rng, canvas, 1.0)
    below = (crest - canvas.y) if row.upper else (canvas.y - crest)
    depth = smooth_step(below, 0.0, 0.9) * (np.float32(6.5) + np.clip(below, 0, 8) * np.float32(0.35))
    coarse, fine = texture(rng, canvas, 0.32), texture(rng, canvas, 0.16)
    trabeculae = 1 + np.float32(0.20) * (0.8 - np.abs(coarse) * 1.1) + np.float32(0.10) * fine
    trabeculae += np.float32(0.10) * texture(rng, canvas, 2.5)
    outside = cv2.distanceTransform(1 - body, cv2.DIST_L2, 5) / np.float32(canvas.scale)
    ligament = 1 - smooth_step(outside, 0.10, 0.28)
    lamina = np.exp(-(((outside - np.float32(0.42)) / np.float32(0.16)) ** 2))
    rim = np.exp(-(((below - np.float32(0.45)) / np.float32(0.25)) ** 2))
    solid = depth * trabeculae * np.float32(density) + np.float32(2.2) * lamina * (below > 0.2) + np.float32(1.8) * rim
    free = 1 - np.float32(0.45) * ligament
    over_tooth = np.float32(0.42)  # the root takes the place of most of the bone
    return np.asarray(np.float32(BONE) * np.where(body > 0, solid * over_tooth, solid * free), np.float32)


def soft_attenuation(canvas: Canvas, rows: Sequence[Row], rng: np.random.Generator) -> Plane:
    """Cheek and gum: a broad gradient, thicker towards the roots."""
    span_x, span_y = canvas.shape[1] / canvas.scale, canvas.shape[0] / canvas.scale
    slope = rng.normal(0, 2.5, 2)
    cheek = rng.uniform(10, 16) + slope[0] * (canvas.x / span_x - 0.5) + slope[1] * (canvas.y / span_y - 0.5)
    cheek = cheek.astype(np.float32) + np.float32(0.6) * texture(rng, canvas, 5.0)
    for row in rows:
        crest = np.interp(canvas.x, row.crest_x, row.crest_y).astype(np.float32)
        above = (canvas.y - crest) if row.upper else (crest - canvas.y)
        cheek += np.float32(7.0) * smooth_step(above, 3.2, 0.8)
    return np.asarray(np.float32(SOFT) * cheek, np.float32)


def beam_attenuation(
    canvas: Canvas, settings: PhantomSettings, rng: np.random.Generator
) -> tuple[Plane, npt.NDArray[np.bool_]]:
    """Film holder, collimator and scratches: attenuation, and where the beam did not reach."""
    height, width = settings.film_height_mm, settings.film_width_mm
    extra = np.zeros(canvas.shape, np.float32)
    if rng.random() < 0.3:
        middle, half = height / 2 + rng.normal(0, 1.0), rng.uniform(0.8, 1.8)
        start = rng.choice([-1.0, width * rng.uniform(0.6, 0.85)])
        stop = width + 1 if start > 0 else width * rng.uniform(0.15, 0.4)
        band = smooth_step(np.abs(canvas.y - np.float32(middle)), half + 0.15, half - 0.15)
        extra += np.float32(rng.uniform(0.08, 0.25)) * band * ((canvas.x > start) & (canvas.x < stop))
    dark = np.zeros(canvas.shape, bool)
    if rng.random() < 0.12:
        corner = np.array([rng.choice([0.0, width]), rng.choice([0.0, height])])
        centre = np.array([width, height]) / 2 + (np.array([width, height]) / 2 - corner) * rng.uniform(0.2, 0.5)
        reach = np.linalg.norm(corner - centre) - rng.uniform(2.0, 6.0)
        away = np.hypot(canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1]))
        extra += np.float32(4.0) * smooth_step(away, reach - 0.3, reach + 0.3)
        dark = away > reach - 1.0
    for _ in range(int(rng.poisson(0.5 * settings.distractors))):
        centre = rng.uniform([2, 2], [width - 2, height - 2])
        radii = rng.uniform(0.2, 0.8, 2)
        away = ((canvas.x - np.float32(centre[0])) / radii[0]) ** 2 + (
            (canvas.y - np.float32(centre[1])) / radii[1]
        ) ** 2
        extra -= np.float32(rng.uniform(0.1, 0.3)) * np.exp(-away.astype(np.float32))
    return extra, dark


@dataclass(frozen=True)
class Exposure:
    """How a film turned out."""

    blur_mm: float
    photons: float
    gamma: float
    black: float
    white: float

    @classmethod
    def draw(cls, settings: PhantomSettings, rng: np.random.Generator) -> "Exposure":
        """Draw exposure, gain and gamma of one film."""
        return cls(
            blur_mm=settings.blur_mm * float(rng.uniform(0.75, 1.35)),
            photons=float(np.exp(rng.uniform(np.log(900), np.log(4000)))),
            gamma=float(rng.uniform(0.42, 0.62)),
            black=float(rng.uniform(0.0, 0.10)),
            white=float(rng.uniform(0.78, 0.92)),
        )


def expose(
    attenuation: Plane, settings: PhantomSettings, exposure: Exposure, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Turn fine attenuation (h, w) into pixels (H, W) of 0..4095: blur, area reduction, quantum noise, gain, gamma."""
    beam = np.exp(-np.clip(attenuation, 0, 8))
    if exposure.blur_mm > 0:
        beam = cv2.GaussianBlur(beam, (0, 0), exposure.blur_mm * settings.supersampling / settings.pixel_mm)
    beam = cv2.resize(beam, (settings.width, settings.height), interpolation=cv2.INTER_AREA)
    grain = rng.standard_normal(beam.shape, dtype=np.float32)
    grain = np.float32(0.75) * grain + np.float32(0.9) * cv2.GaussianBlur(grain, (0, 0), 0.8)
    beam = beam + np.float32(settings.noise) * np.sqrt(beam / np.float32(exposure.photons)) * grain
    signal = 1 - np.clip(beam, 1e-4, 1) ** np.float32(exposure.gamma)
    value = (signal - np.float32(exposure.black)) / np.float32(exposure.white - exposure.black)
    return np.asarray(np.round(np.clip(value, 0, 1) * WHITE), np.uint16)
