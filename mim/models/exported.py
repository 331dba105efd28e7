"""Encoders on disk: encoder.safetensors holds the weights, encoder.json how to build the network around them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mim.errors import MimError
from mim.files import write_atomically
from mim.models.create import create_encoder
from mim.models.encoder import Encoder, EncoderSpec
from mim.models.resize import resize_positions

FORMAT = 1
FREE_ARGS = ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate")  # hold no weights


@dataclass(frozen=True)
class ExportedEncoder:
    """What encoder.json says.

    Attributes:
        spec: how to build the encoder.
        mean: subtracted from pixels in [0, 1] before the encoder.
        std: what the difference is divided by.
    """

    spec: EncoderSpec
    mean: float
    std: float


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight when a state was loaded.

    Attributes:
        loaded: number of tensors taken as they were.
        adapted: what was changed to fit, in words.
        left: names in the file that the network has no place for.
    """

    loaded: int
    adapted: list[str]
    left: list[str]

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded"]
        parts += [f"adapted: {', '.join(self.adapted)}"] if self.adapted else []
        parts += [f"left out: {', '.join(_by_part(self.left))}"] if self.left else []
        return "; ".join(parts)


def _by_part(names: list[str]) -> list[str]:
    """Names as they are, but one entry for all that lie in the same part of a network."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.partition(".")[0], []).append(name)
    return [own[0] if len(own) == 1 else f"{part}.* ({len(own)} tensors)" for part, own in parts.items()]


def export_encoder(folder: Path, encoder: Encoder, state: dict[str, Tensor], mean: float, std: float) -> None:
    """Writes encoder.safetensors and encoder.json; the weights load strict into timm.create_model.

    Args:
        folder: of the run.
        encoder: gives the architecture.
        state: state_dict of its backbone (of the moving average, where there is one).
        mean: normalisation of the pixels.
        std: normalisation of the pixels.

    Raises:
        OSError: they cannot be written.
    """
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    described = {"format": FORMAT, **asdict(encoder.spec), "mean": mean, "std": std}
    for name, content in (
        ("encoder.safetensors", save(weights, metadata={"format": "pt"})),
        ("encoder.json", f"{json.dumps(described, indent=2)}\n".encode()),
    ):
        write_atomically(folder / name, content)


def read_exported(folder: Path) -> ExportedEncoder:
    """Reads encoder.json of a run.

    Raises:
        MimError: if there is none or it cannot be understood.
    """
    path = folder / "encoder.json"
    if not path.is_file():
        hint = "the run has not finished" if (folder / "config.yaml").is_file() else "it is not a run of train.py"
        raise MimError(f"{folder}: no encoder.json in it; {hint}")
    try:
        described = json.loads(path.read_text())
        if described["format"] != FORMAT:
            raise MimError(f"{path}: format {described['format']}, this version of mim reads {FORMAT}")
        height, width = described["image_size"]
        spec = EncoderSpec(
            name=described["name"],
            image_size=(int(height), int(width)),
            in_chans=int(described["in_chans"]),
            hidden=described["hidden"],
            patch_size=int(described["patch_size"]),
            timm_args=dict(described["timm_args"]),
            fill=described.get("fill"),
        )
        return ExportedEncoder(spec, float(described["mean"]), float(described["std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MimError(f"{path}: cannot be understood ({type(error).__name__}: {error})") from error


def build_encoder(spec: EncoderSpec, pretrained: bool = False) -> Encoder:
    """Builds the encoder that a spec describes."""
    return create_encoder(
        spec.name, spec.image_size, spec.in_chans, spec.hidden, spec.patch_size, pretrained, spec.fill, **spec.timm_args
    )


def load_encoder_weights(encoder: Encoder, folder: Path) -> LoadReport:
    """Loads encoder.safetensors of a run into an encoder of the same architecture; positions are resized to its grid.

    Raises:
        MimError: if the file is missing or damaged, or belongs to another architecture.
    """
    exported = read_exported(folder)
    if exported.spec.name != encoder.spec.name:
        raise MimError(
            f"{folder}: holds a {exported.spec.name}, but the encoder asked for is a {encoder.spec.name} "
            "(encoder=null takes that of the run)"
        )
    given, asked = exported.spec.timm_args, encoder.spec.timm_args
    different = [key for key in sorted({*given, *asked}) if given.get(key) != asked.get(key) and key not in FREE_ARGS]
    if different:
        key = different[0]
        raise MimError(
            f"{folder}: its {exported.spec.name} is of another architecture: timm_args.{key} is {given.get(key)} there "
            f"and {asked.get(key)} here; take the encoder settings of that run (encoder=null does)"
        )
    path = folder / "encoder.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MimError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    own = encoder.backbone.state_dict()
    adapted = resize_positions(state, exported.spec, encoder)
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise MimError(
                f"{path}: weights of another architecture: {name} is {found}, the {encoder.spec.name} asked for has "
                f"{tuple(tensor.shape)}; take the encoder settings of that run (encoder=null does)"
            )
    encoder.backbone.load_state_dict({name: state[name] for name in own})
    return LoadReport(loaded=len(own) - len(adapted), adapted=adapted, left=[name for name in state if name not in own])
