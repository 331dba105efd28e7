"""An encoder as a folder that timm loads by itself, from disk (`local-dir:`) or from a hub (`hf-hub:`)."""

import csv
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from timm.models import save_for_hf

from mim import __version__
from mim.errors import MimError
from mim.files import reason
from mim.models.encoder import Encoder
from mim.models.exported import ExportedEncoder, build_encoder, load_encoder_weights, read_exported

CONFIG = "config.json"
ORIGIN = ("tag", "origin_url", "url", "hf_hub_id", "license", "paper_ids", "paper_name", "notes")  # of other weights
TOLD = ("masking", "decoder", "target")  # settings of a run that belong to what was learnt


def export_for_timm(run: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors and README.md.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` then gives the backbone of the run.

    Args:
        run: a finished run, or any folder with encoder.json and encoder.safetensors.
        folder: to be made; it must not exist, or be empty.

    Raises:
        MimError: the run has no encoder that can be read, or the folder cannot be written.
    """
    exported = read_exported(run)
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(exported.spec)
    load_encoder_weights(encoder, run)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise MimError(f"{folder}: is there already; name another folder, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
            written = Path(beside) / folder.name
            _write(written, exported, encoder)
            (written / "README.md").write_text(_card(run, exported, encoder), encoding="utf-8")
            written.replace(folder)
    except OSError as error:
        raise MimError(f"{folder}: could not be written, {reason(error)}; name another folder") from error


def _write(folder: Path, exported: ExportedEncoder, encoder: Encoder) -> None:
    channels = exported.spec.in_chans
    meets = {
        "input_size": (channels, *exported.spec.image_size),
        "mean": (exported.mean,) * channels,
        "std": (exported.std,) * channels,
        "crop_pct": 1.0,
        "crop_mode": "squash",  # films are resized to the input whatever their shape
    }
    save_for_hf(encoder.backbone, folder, safe_serialization=True, data_config=meets)
    path = folder / CONFIG
    described = json.loads(path.read_text(encoding="utf-8"))
    for key in ORIGIN:  # of the weights that timm publishes under this name
        described["pretrained_cfg"].pop(key, None)
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _card(run: Path, exported: ExportedEncoder, encoder: Encoder) -> str:
    """The model card: what is known, and nothing of patients or places."""
    spec = exported.spec
    count = sum(parameter.numel() for parameter in encoder.backbone.parameters())
    args = f", `timm_args` {json.dumps(spec.timm_args)}" if spec.timm_args else ""
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-feature-extraction",
        "tags: [timm, masked-image-modelling, x-ray]",
        "---",
        "",
        f"# {spec.name}, from mim {__version__}",
        "",
        f"- Architecture: `{spec.name}`{args}, {count:,} parameters, no classifier.",
        f"- Input: {spec.in_chans} channel{'s' if spec.in_chans > 1 else ''}, {spec.image_size[0]} x "
        f"{spec.image_size[1]} pixels (height x width) in [0, 1], from which {exported.mean:g} is subtracted and which "
        f"are then divided by {exported.std:g}.",
        f"- Hiding: by `{spec.hidden}`, in cells of {spec.patch_size} x {spec.patch_size} pixels.",
        *_training(run),
        "",
        "```python",
        "import timm",
        "",
        'backbone = timm.create_model("local-dir:<this folder>", pretrained=True)',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _training(run: Path) -> list[str]:
    """What the run says of its training, where it is at hand."""
    lines = []
    seen = run / "seen.csv"
    if seen.is_file():
        with seen.open(newline="", encoding="utf-8") as file:
            hashes = sorted(row.get("sha256") or "" for row in csv.DictReader(file))
        digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        lines.append(f"- Pretrained on {len(hashes):,} films; SHA-256 of their sorted hashes: `{digest}`.")
    config = _read_settings(run / "config.yaml")
    told = {block: _without_places(config[block]) for block in TOLD if isinstance(config.get(block), dict)}
    if told:
        lines += ["- Settings of the run:", "", "```yaml", yaml.safe_dump(told, sort_keys=False).strip(), "```"]
    return lines


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise MimError(f"{path}: is not YAML any more; mend it, or take it away to do without it") from error
    return settings if isinstance(settings, dict) else {}


def _without_places(block: dict[str, Any]) -> dict[str, Any]:
    """Leaves out texts that may be paths."""
    return {
        key: value for key, value in block.items() if not (isinstance(value, str) and ("/" in value or "\\" in value))
    }
