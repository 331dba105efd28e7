"""DCMTK as an independent renderer: its command line, and how mim's choice of a window is put into its options."""

import shutil
import subprocess

import cv2
import numpy as np

TOOLS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")  # without decoders, with those of JPEG, with those of JPEG-LS


def is_installed():
    return all(shutil.which(tool) for tool in (*TOOLS, "dcmdjpeg"))


def render(path, voi_options, frame=0):
    """Display values in [0, 1] as DCMTK sees them, 16 bits deep; None where it cannot read the file.

    Modality LUT, VOI and polarity are applied; overlays are not. `+Mm` has the bits of a modality LUT counted, not
    believed: the descriptor must say 8 or 16 (C.11.1.1), which 10-bit LUTs do by stating their container.
    """
    picture = path.with_suffix(".png")
    for tool in TOOLS:
        options = ["--quiet", "-O", "+Mm", "+on2", "+F", str(frame + 1), *voi_options]
        done = subprocess.run([tool, *options, str(path), str(picture)], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            samples = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
            picture.unlink()
            return samples / np.iinfo(samples.dtype).max
    return None


def decode_jpeg(path, target):
    """Write the film without compression."""
    subprocess.run(["dcmdjpeg", "--quiet", str(path), str(target)], check=True, timeout=60)
    return target


def voi_options(dataset, ends=None):
    """The options that select what mim selects by itself.

    Args:
        dataset: Header of the frame.
        ends: Black and white, in modality values, for a film without LUT and window that DCMTK would show otherwise.
    """
    if dataset.get("VOILUTSequence"):
        return ["+Wl", "1"]
    if dataset.get("WindowCenter") is not None:
        function = dataset.get("VOILUTFunction", "LINEAR")
        if function == "LINEAR_EXACT":  # unknown to DCMTK 3.6.7: the LINEAR window with the same ends
            centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
            return _linear(centre - width / 2, centre + width / 2)
        return ["+Wi", "1", "+Wfs" if function == "SIGMOID" else "+Wfl"]
    return ["-W"] if ends is None else _linear(*ends)


def _linear(low, high):
    """A LINEAR window from `low` to `high` (C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2)."""
    return ["+Ww", str(float(low + high) / 2 + 0.5), str(float(high - low + 1)), "+Wfl"]
