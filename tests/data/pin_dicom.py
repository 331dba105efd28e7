"""What is pinned of a film, and the way to pin it anew: `python tests/data/pin_dicom.py FOLDER` (of DICOM files).

The table holds numbers and no pixels: shape, extremes, mean, four pixels at fixed places, and a hash of the film in
8 bits. A change of the table is a change of what users see: say in the commit why the new numbers are the right ones.
"""

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np

from mim.data.radiograph import UnreadableRadiograph, count_frames, read_radiograph

TABLE = Path(__file__).with_name("dicom_pinned.csv")
COLUMNS = ("file", "frame", "voi", "color", "reason", "rows", "columns", "min", "max", "mean", "pixels", "sha256")
PLACES = ((0.25, 0.25), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25))


def measure(path, frame, voi, color):
    """One row of the table, as text."""
    asked = {"file": path.name, "frame": str(frame), "voi": str(voi), "color": color}
    try:
        pixels = read_radiograph(path, frame, voi=voi, color=color).pixels
    except UnreadableRadiograph as error:
        return {**dict.fromkeys(COLUMNS, ""), **asked, "reason": error.reason}
    rows, columns = pixels.shape
    chosen = [pixels[int(rows * down), int(columns * right)] for down, right in PLACES]
    return {
        **asked,
        "reason": "",
        "rows": str(rows),
        "columns": str(columns),
        "min": f"{pixels.min():.6f}",
        "max": f"{pixels.max():.6f}",
        "mean": f"{pixels.mean(dtype=np.float64):.6f}",
        "pixels": " ".join(f"{pixel:.6f}" for pixel in chosen),
        "sha256": hashlib.sha256(np.rint(pixels * 255).astype(np.uint8).tobytes()).hexdigest()[:16],
    }


def requests(path):
    """What is asked of a file: its first and last frame, its second window, and its luminance if it is in colour."""
    yield 0, 0, "skip"
    try:
        frames = count_frames(path)
        if frames > 1:
            yield frames - 1, 0, "skip"
        first, second = (read_radiograph(path, voi=voi).pixels for voi in (0, 1))
        if (first != second).any():
            yield 0, 1, "skip"
    except UnreadableRadiograph as error:
        if error.reason == "colour":
            yield 0, 0, "gray"


def main(folder):
    rows = [measure(path, *request) for path in sorted(folder.glob("*.dcm")) for request in requests(path)]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
