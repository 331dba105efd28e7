"""Dark marks that are no caries: burnout at the neck, Mach bands, wear, hollows, pits and liners."""

import numpy as np

from mim.data.phantom.geometry import CEJ, Anatomy, Contour, Points, Side, Tooth
from mim.data.phantom.lesions import SIDES, Mark, contact_row, junction_bulge, nearest_row, surface_wedge
from mim.data.phantom.settings import PhantomSettings, random_stream


def plan_lookalikes(settings: PhantomSettings, anatomy: Anatomy, seed: int, patient: int, film: int) -> list[Mark]:
    """Draw dark marks that are no caries; they know nothing of the lesions."""
    rng = random_stream(seed, patient, 3, film)
    marks: list[Mark] = []
    for index, tooth in enumerate(anatomy.teeth):
        marks += tooth_lookalikes(index, tooth, settings.distractors, rng)
    return marks


def tooth_lookalikes(index: int, tooth: Tooth, frequency: float, rng: np.random.Generator) -> list[Mark]:
    """Draw the look-alikes of one tooth; the chances are those of one side, pit or filling."""
    marks: list[Mark] = []
    for side in SIDES:
        marks += side_lookalikes(index, tooth, side, frequency, rng)
    h, w = tooth.crown_height, tooth.half_width
    if rng.random() < 0.15 * frequency:  # buccal pit
        centre = np.array([rng.uniform(-0.45, 0.45) * w, rng.uniform(0.45, 0.85) * h])
        pit = blob(centre, rng.uniform(0.5, 1.0), rng)
        marks.append(Mark(index, (pit,), rng.uniform(0.2, 0.45), rng.uniform(0.07, 0.15)))
    if tooth.restoration and tooth.restoration.material != "crown" and rng.random() < 0.25 * frequency:
        liner = tooth.restoration.polygons[0] * [0.95, 1.0] + [0.0, 0.35]
        marks.append(Mark(index, (liner,), rng.uniform(0.15, 0.35), 0.08))
    return marks


def side_lookalikes(index: int, tooth: Tooth, side: Side, frequency: float, rng: np.random.Generator) -> list[Mark]:
    """Draw the look-alikes of one proximal side of a tooth."""
    contour, marks = tooth.contours[0], []
    contact = contour.outer[contact_row(contour, side), 1]
    burnout, ridge, hollow, mach_band = rng.random(4) < np.array([0.30, 0.07, 0.10, 0.20]) * frequency
    if burnout:
        height = CEJ * tooth.crown_height + rng.uniform(0.3, 0.9)
        polygon = neck_saucer(contour, side, height, rng.uniform(1.2, 2.0), rng.uniform(0.5, 1.3))
        marks.append(Mark(index, (polygon,), rng.uniform(0.15, 0.4), rng.uniform(0.1, 0.2)))
    if ridge:
        row = nearest_row(contour, side, contact - rng.uniform(0.8, 1.4))
        polygon = surface_wedge(contour, row, rng.uniform(1.2, 2.0), rng.uniform(0.4, 0.9))
        marks.append(Mark(index, (polygon,), rng.uniform(0.25, 0.5), 0.1))
    if hollow:
        row = nearest_row(contour, side, contact + rng.uniform(0.0, 1.5))
        polygon = surface_wedge(contour, row, rng.uniform(3.5, 5.0), rng.uniform(0.6, 1.0))
        marks.append(Mark(index, (polygon,), rng.uniform(0.05, 0.15), rng.uniform(0.25, 0.4)))
    if mach_band:
        row = nearest_row(contour, side, contact + rng.uniform(-0.3, 1.0))
        polygon = junction_bulge(contour, row, rng.uniform(3.0, 5.0), rng.uniform(0.25, 0.45))
        marks.append(Mark(index, (polygon,), rng.uniform(0.08, 0.2), 0.1))
    return marks


def neck_saucer(contour: Contour, side: Side, height: float, breadth: float, depth: float) -> Points:
    """Closed line of a saucer in the root surface below the enamel."""
    wanted = contour.outer[:, 0] < 0 if side == "left" else contour.outer[:, 0] > 0
    rows = np.flatnonzero(wanted & (np.abs(contour.outer[:, 1] - height) < breadth / 2))
    outside = rows[np.abs(contour.outer[rows, 0]) > 0.5 * np.abs(contour.outer[rows, 0]).max()]
    outside = outside[np.argsort(contour.outer[outside, 1])]
    edge = contour.outer[outside]
    position = (edge[:, 1] - height) / (breadth / 2)
    floor = edge + np.column_stack([(1 if side == "left" else -1) * depth * (1 - position**2), np.zeros(len(edge))])
    return np.concatenate([edge, floor[::-1]])


def blob(centre: Points, radius: float, rng: np.random.Generator) -> Points:
    """Closed line of an uneven disc."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = radius * (1 + 0.15 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(3 * angle + rng.uniform(0, 6)))
    return np.asarray(centre + np.column_stack([reach * np.cos(angle), reach * np.sin(angle)]))
