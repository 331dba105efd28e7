"""What a run was made for: how its films were prepared, and what films they were. Nothing of a patient."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mim.config import FinetuneConfig
from mim.data import ManifestRow, PreparedDataset
from mim.errors import MimError
from mim.files import write_atomically

FORMAT = 1
MADE_FOR = "films.json"

Difference = Literal["modality", "size", "aspect", "brightness", "colour", "unknown"]
"""In what a film may differ from those of the training, for `--allow`."""

DIFFERENCES: tuple[Difference, ...] = get_args(Difference)

X_RAYS = ("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA")
"""DICOM modalities of projection radiography (PS3.3 C.7.3.1.1.1)."""

_SIZE = 2.0  # times the longest side of a training film, or one part of so many of the shortest
_ASPECT = 1.25  # likewise of width to height
_BRIGHTNESS = 0.25  # of the border, beyond those of the training films; an inverted film is further off


@dataclass(frozen=True)
class MadeFor:
    """What a run was made for.

    Attributes:
        preparation: options of the preparation (`DecodeOptions.stored`).
        films: how many training films the rest is of.
        modalities: DICOM modalities among them; "" = some have none, such as PNG.
        long_side: least and greatest longer side in pixels, before films were reduced.
        aspect: least and greatest width to height.
        edge_brightness: least and greatest mean of a film's border, from 0 to 1; None = it is not known.
        salt_check: which salt made the run's hashed ids (`mim.data.privacy.salt_check`); empty = it is not known.
    """

    preparation: Mapping[str, Any]
    films: int
    modalities: tuple[str, ...]
    long_side: tuple[float, float]
    aspect: tuple[float, float]
    edge_brightness: tuple[float, float] | None
    salt_check: str = ""

    @classmethod
    def of(cls, films: PreparedDataset, chosen: Sequence[int]) -> "MadeFor":
        """Describes the films of a prepared dataset that are trained on."""
        rows = [films.rows[index] for index in chosen]
        edges = [row.edge_brightness for row in rows if row.edge_brightness is not None]
        return cls(
            preparation=dict(films.report["options"]),
            films=len(rows),
            modalities=tuple(sorted({row.modality for row in rows})),
            long_side=_range([max(row.width, row.height) for row in rows]),
            aspect=_range([row.width / row.height for row in rows]),
            edge_brightness=_range(edges) if edges else None,
            salt_check=films.salt_check,
        )

    def save(self, folder: Path) -> None:
        """Writes films.json."""
        write_atomically(folder / MADE_FOR, json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "MadeFor | None":
        """Reads films.json; None where a run has none, as those of earlier versions.

        Raises:
            MimError: it cannot be understood.
        """
        path = folder / MADE_FOR
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise MimError(f"{path}: format {content['format']}, this version of mim reads {FORMAT}")
            edges = content["edge_brightness"]
            return cls(
                preparation=dict(content["preparation"]),
                films=int(content["films"]),
                modalities=tuple(map(str, content["modalities"])),
                long_side=_pair(content["long_side"]),
                aspect=_pair(content["aspect"]),
                edge_brightness=None if edges is None else _pair(edges),
                salt_check=str(content.get("salt_check", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MimError(f"{path}: cannot be understood ({type(error).__name__}: {error})") from error

    def differences(self, film: ManifestRow) -> dict[str, str]:
        """In what a film differs from those of the training by more than can be trusted, each in a few words."""
        found: dict[str, str] = {}
        known = [modality for modality in self.modalities if modality]
        # a picture file does not say what it is, and a run of picture files not what it was made for
        fits = film.modality in known if known else film.modality in X_RAYS
        if film.modality and not fits:
            found["modality"] = (
                f"{film.modality}, the run was trained on {', '.join(known) or 'X-rays in picture files'}"
            )
        side = max(film.width, film.height)
        if not self.long_side[0] / _SIZE <= side <= self.long_side[1] * _SIZE:
            low, high = self.long_side
            found["size"] = f"longer side {side} pixels, the run was trained on {low:.0f} to {high:.0f}"
        aspect = film.width / film.height
        if not self.aspect[0] / _ASPECT <= aspect <= self.aspect[1] * _ASPECT:
            low, high = self.aspect
            found["aspect"] = f"width to height {aspect:.2f}, the run was trained on {low:.2f} to {high:.2f}"
        edge = film.edge_brightness
        if edge is not None and self.edge_brightness is not None:
            low, high = self.edge_brightness
            if not low - _BRIGHTNESS <= edge <= high + _BRIGHTNESS:
                text = f"brightness of the border {edge:.2f}, of the training {low:.2f} to {high:.2f}: is it inverted?"
                found["brightness"] = text
        return found


def preparation_of(
    run: Path, config: FinetuneConfig, made_for: MadeFor | None, allowed: Collection[str]
) -> dict[str, Any]:
    """How films are to be prepared for a run.

    Raises:
        MimError: the run does not say what it was made for, and that is not allowed.
    """
    if made_for is None and "unknown" not in allowed:
        raise MimError(
            f"{run}: has no {MADE_FOR}, so it is not known what films it was made for (an earlier version made it); "
            "fine-tune again, or give --allow unknown to take any film, prepared as config.yaml says"
        )
    data = config.data
    names = ("long_side", "bits", "voi", "color", "crop", "tile", "tile_overlap")
    return {name: getattr(data, name) for name in names} if made_for is None else dict(made_for.preparation)


def _range(values: Sequence[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def _pair(values: Sequence[Any]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)
