"""One film: anatomy, caries and look-alikes put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mim.data.phantom.anatomy import draw_anatomy
from mim.data.phantom.geometry import Anatomy
from mim.data.phantom.lesions import Lesion, Mark, PlannedLesion, candidate_sites, plan_lesions
from mim.data.phantom.lookalikes import plan_lookalikes
from mim.data.phantom.render import (
    Canvas,
    Exposure,
    Flags,
    Plane,
    Window,
    beam_attenuation,
    bone_attenuation,
    expose,
    soft_attenuation,
    tooth_paths,
    window_of,
)
from mim.data.phantom.settings import PhantomSettings, random_stream

ToothPlace = tuple[Window, Flags]  # where on the canvas a tooth is, and its silhouette there


@dataclass(frozen=True)
class PhantomFilm:
    """One drawn film."""

    pixels: npt.NDArray[np.uint16]  # (H, W), 0..4095, bright = dense
    lesions: list[Lesion]


def draw_film(settings: PhantomSettings, seed: int, patient: int, film: int) -> PhantomFilm:
    """Draw one film, a function of its arguments alone.

    Args:
        settings: Size, look and difficulty.
        seed: Seed of the whole set.
        patient: Number of the patient; all films of one share the traits of the teeth.
        film: Number of the film among the films of the patient.
    """
    anatomy = draw_anatomy(settings, seed, patient, film)
    canvas = Canvas.of(settings, anatomy.rotation)
    rng = random_stream(seed, patient, 4, film)
    beam, unexposed = beam_attenuation(canvas, settings, rng)
    exposure = Exposure.draw(settings, rng)
    sites = [site for site in candidate_sites(settings, anatomy) if not unexposed[canvas.pixel_at(site.place)]]
    planned = plan_lesions(settings, anatomy, sites, seed, patient, film)
    marks = plan_lookalikes(settings, anatomy, seed, patient, film) + [lesion.mark for lesion in planned]
    body, places = attenuate(canvas, anatomy, marks, rng)
    pixels = expose(beam + body, settings, exposure, random_stream(seed, patient, 5, film))
    return PhantomFilm(pixels, [outline(settings, canvas, places[plan.mark.tooth], plan) for plan in planned])


def attenuate(
    canvas: Canvas, anatomy: Anatomy, marks: Sequence[Mark], rng: np.random.Generator
) -> tuple[Plane, dict[int, ToothPlace]]:
    """Sum what soft tissue, teeth and bone take from the beam; also say where each tooth came to lie."""
    total = soft_attenuation(canvas, anatomy.rows, rng)
    places: dict[int, ToothPlace] = {}
    index = 0
    for row in anatomy.rows:
        silhouette = np.zeros(canvas.shape, np.uint8)
        for tooth in row.teeth:
            window = window_of(canvas, tooth)
            if window is not None:
                mineral, body = tooth_paths(window, [mark for mark in marks if mark.tooth == index])
                total[window.rows, window.columns] += mineral
                silhouette[window.rows, window.columns] |= body
                places[index] = window, body
            index += 1
        total += bone_attenuation(canvas, row, silhouette, anatomy.bone_density, rng)
    return total, places


def outline(settings: PhantomSettings, canvas: Canvas, place: ToothPlace, plan: PlannedLesion) -> Lesion:
    """Turn a planned lesion into its mask and box in pixels of the film."""
    window, body = place
    fine = np.zeros(canvas.shape, np.float32)
    inside = window.fill(plan.mark.polygons)
    fine[window.rows, window.columns] = inside & body if (inside & body).any() else inside
    share = cv2.resize(fine, (settings.width, settings.height), interpolation=cv2.INTER_AREA)
    mask = share >= min(0.5, float(share.max()))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Lesion(plan.kind, plan.grade, box, mask)
