"""Encoders in files: `python -m mim.models.weights export RUN FOLDER` makes a folder that timm loads by itself."""

from mim.models.exported import (
    ExportedEncoder,
    LoadReport,
    build_encoder,
    export_encoder,
    load_encoder_weights,
    read_exported,
)

__all__ = [
    "ExportedEncoder",
    "LoadReport",
    "build_encoder",
    "export_encoder",
    "load_encoder_weights",
    "read_exported",
]
