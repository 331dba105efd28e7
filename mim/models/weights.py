"""Encoders in files: `python -m mim.models.weights export RUN FOLDER` makes a folder that timm loads by itself."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mim.config import door
from mim.models.exported import (
    ExportedEncoder,
    LoadReport,
    build_encoder,
    export_encoder,
    load_encoder_weights,
    read_exported,
)
from mim.models.timm_folder import export_for_timm

__all__ = [
    "ExportedEncoder",
    "LoadReport",
    "build_encoder",
    "export_encoder",
    "export_for_timm",
    "load_encoder_weights",
    "read_exported",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m mim.models.weights", description="Encoders in files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser(
        "export",
        help="make a folder that timm loads, from disk or from a hub",
        description="Write config.json, model.safetensors and README.md: "
        'timm.create_model("local-dir:FOLDER", pretrained=True) gives the backbone. Nothing is sent anywhere.',
    )
    export.add_argument("run", type=Path, metavar="RUN", help="finished run of train.py or finetune.py")
    export.add_argument("folder", type=Path, metavar="FOLDER", help="to be made; must not exist, or be empty")
    options = parser.parse_args(arguments)

    def work() -> None:
        export_for_timm(options.run, options.folder)
        sys.stdout.write(f'{options.folder}: timm.create_model("local-dir:{options.folder}", pretrained=True)\n')

    return door(work)


if __name__ == "__main__":
    sys.exit(main())
