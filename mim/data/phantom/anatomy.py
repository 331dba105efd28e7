"""The teeth and the bone of one film, set side by side as they stand in a mouth. All measures in mm."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mim.data.phantom.geometry import CEJ, Anatomy, Patient, Points, Row
from mim.data.phantom.settings import PhantomSettings, random_stream
from mim.data.phantom.teeth import draw_tooth


def draw_patient(seed: int, patient: int) -> Patient:
    """Draw the traits of a patient."""
    rng = random_stream(seed, patient, 0)
    return Patient(
        size=float(rng.normal(1.0, 0.04)),
        enamel=float(rng.uniform(1.1, 1.45)),
        pulp=float(rng.uniform(0.6, 1.2)),
        bone_level=float(1.0 + 2.0 * rng.beta(1.5, 2.5)),
        bone_density=float(rng.uniform(0.75, 1.2)),
        restoration_odds=float(rng.uniform(0.3, 1.7)),
        wear=float(rng.uniform(0.0, 0.7)),
    )


def draw_anatomy(settings: PhantomSettings, seed: int, patient: int, film: int) -> Anatomy:
    """Draw the teeth and the bone of one film."""
    traits = draw_patient(seed, patient)
    rng = random_stream(seed, patient, 1, film)
    rotation = float(np.clip(rng.normal(0, 0.025), -0.07, 0.07))
    mesial_left = bool(rng.random() < 0.5)
    middle = settings.film_height_mm / 2 + rng.normal(0, 0.4)
    gap = rng.uniform(-0.4, 0.8)
    first_molar = settings.film_width_mm / 2 + rng.uniform(-2.0, 2.0)
    spee = rng.uniform(0, 0.004)
    rows = []
    for upper in (True, False):
        occlusal = middle + (-gap / 2 if upper else gap / 2)
        shift = (2.0 if upper else -0.5) * (1 if mesial_left else -1)
        layout = RowLayout(upper, mesial_left, first_molar + shift, occlusal, spee, rotation)
        rows.append(draw_row(settings, traits, layout, rng))
    return Anatomy((rows[0], rows[1]), rotation, traits.bone_density)


@dataclass(frozen=True)
class RowLayout:
    """Where a row of teeth stands on the unrotated film, mm."""

    upper: bool
    mesial_left: bool
    first_molar: float
    occlusal: float
    spee: float  # curvature of the occlusal line, 1 / mm
    rotation: float

    def height(self, x: float, film_width: float) -> float:
        """Height of the occlusal line at x."""
        return self.occlusal + self.spee * (x - film_width / 2) ** 2


def draw_row(settings: PhantomSettings, traits: Patient, layout: RowLayout, rng: np.random.Generator) -> Row:
    """Set teeth side by side, both ways from the first molar, until the film is full."""
    kinds: dict[int, tuple[Literal["premolar", "molar"], float]] = {
        -3: ("premolar", 3.7), -2: ("premolar", 3.45), -1: ("premolar", 3.5),
        0: ("molar", 5.3), 1: ("molar", 5.0), 2: ("molar", 4.6),
    }  # fmt: skip
    widths = {place: half * traits.size * rng.normal(1, 0.03) for place, (_, half) in kinds.items()}
    overlap = rng.uniform(-0.1, 0.35)
    slack = {place: -max(-0.15, rng.normal(overlap, 0.2)) for place in kinds}
    centres = {0: 0.0}
    for place in (1, 2):
        centres[place] = centres[place - 1] + widths[place - 1] + widths[place] + slack[place]
    for place in (-1, -2, -3):
        centres[place] = centres[place + 1] - widths[place + 1] - widths[place] - slack[place]
    direction = 1 if layout.mesial_left else -1
    third_molar = rng.random() < 0.6
    teeth, marks = [], []
    for place in sorted(kinds, key=lambda place: direction * place):
        x = layout.first_molar + direction * centres[place]
        tooth_rng = np.random.default_rng(rng.integers(2**63))
        missing = (place == 2 and not third_molar) or tooth_rng.random() < 0.03
        y = layout.height(x, settings.film_width_mm) + tooth_rng.normal(0, 0.15)
        level = traits.bone_level + tooth_rng.normal(0, 0.25)
        crown = (6.6 if kinds[place][0] == "molar" else 7.2) * traits.size * tooth_rng.normal(1, 0.03)
        sign = -1 if layout.upper else 1
        neck = y + sign * (CEJ * crown + level)
        marks += [(x - 0.8 * widths[place], neck), (x, neck + sign * 0.5), (x + 0.8 * widths[place], neck)]
        if missing or not -widths[place] < x < settings.film_width_mm + widths[place]:
            continue
        lean = direction * (tooth_rng.normal(0.03, 0.05) if kinds[place][0] == "molar" else tooth_rng.normal(0, 0.04))
        placement = place_tooth(settings, layout, x, y, lean * sign)
        teeth.append(
            draw_tooth(settings, traits, tooth_rng, kinds[place][0], layout.upper, widths[place], crown, placement)
        )
    crest = np.array(marks)
    return Row(layout.upper, tuple(teeth), crest[:, 0], crest[:, 1])


def place_tooth(settings: PhantomSettings, layout: RowLayout, x: float, y: float, lean: float) -> Points:
    """Give the (2, 3) affine map from the frame of a tooth at (x, y) to mm on the rotated film."""
    flip = np.diag([1.0, -1.0 if layout.upper else 1.0])
    pivot = np.array([0.0, 3.0])  # a leaning tooth turns about its contact points, not its cusps
    turn = rotation_matrix(lean) @ flip
    film = rotation_matrix(layout.rotation)
    centre = np.array([settings.film_width_mm, settings.film_height_mm]) / 2
    offset = np.array([x, y]) + flip @ pivot - turn @ pivot
    return np.column_stack([film @ turn, film @ (offset - centre) + centre])


def rotation_matrix(angle: float) -> Points:
    """Give the (2, 2) rotation by an angle in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
