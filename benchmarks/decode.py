"""How fast DICOM films are decoded: from a file to a float32 image of 512 pixels on its long side, on one core.

    python benchmarks/decode.py

Films of 2000 x 1500 pixels, 12 bits in 16, are drawn and written as uncompressed, JPEG lossless (process 14, first-
order prediction), JPEG 2000 lossless and RLE files: with a linear window, with a VOI LUT, and as MONOCHROME1 with a
window. All carry the rescale of slope 1 that digital X-ray objects must have. Each is read in four ways:

- mim: `read_radiograph`, one table for all grayscale stages.
- pydicom: `pixel_array`, `apply_modality_lut`, `apply_voi_lut`, scaled to [0, 1], MONOCHROME1 turned over. All passes
  are in float64; the result is cast to float32 before it is reduced.
- MONAI: `LoadImage` with its `PydicomReader`, `ScaleIntensity`, `Resize`. It knows neither window, LUT nor polarity.
- no LUT: stored values from the fastest decoder at hand, reduced as they are. No right reader can be faster.

Before anything is timed, the full-size images of mim and pydicom must be equal to the last bit of float32, and
the stored values those that were drawn. The ways take turns within every repeat, so that a busy machine slows them all.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import gdcm
import imagecodecs
import numpy as np
import pydicom
import torch
from monai.data.image_reader import PydicomReader
from monai.transforms import Compose, LoadImage, Resize, ScaleIntensity
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from mim.data import read_radiograph
from mim.data.decode import reduce_film
from mim.data.phantom import PhantomSettings, draw_film
from mim.data.phantom.dicom import FilmIdentity, film_dataset

LONG_SIDE = 512
TOP = 4095
ENCODINGS = {
    "uncompressed": None,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG 2000 lossless": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLE": gdcm.TransferSyntax.RLELossless,
}
DISPLAYS = ("window", "VOI LUT", "MONOCHROME1")


def main() -> None:
    """Draws, checks, times and prints."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--films", type=int, default=3, help="different films of each kind")
    line.add_argument("--repeats", type=int, default=7)
    line.add_argument("--rows", type=int, default=1500)
    line.add_argument("--columns", type=int, default=2000)
    line.add_argument("--encodings", nargs="+", choices=list(ENCODINGS), default=list(ENCODINGS), metavar="ENCODING")
    options = line.parse_args()
    use_one_core()
    settings = PhantomSettings(height=options.rows, width=options.columns, supersampling=1)
    films = [draw_film(settings, 0, number, 0).pixels for number in range(options.films)]
    print(
        f"{platform.machine()}, {options.films} films of {options.columns} x {options.rows}, {options.repeats} repeats"
    )
    print("films a second: median (best); ratios: median (lowest) over the repeats\n")
    print("| encoding | display | mim | pydicom | MONAI | no LUT | mim : pydicom | mim : MONAI | mim : no LUT |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for encoding in options.encodings:
            for display in DISPLAYS:
                paths = [Path(folder) / f"{number}.dcm" for number in range(len(films))]
                for path, film in zip(paths, films, strict=True):
                    write_film(path, film, encoding, display)
                    check(path, film, display)
                rates = measure(paths, options.repeats)
                print(f"| {encoding} | {display} | {' | '.join(cells(rates))} |", flush=True)


def use_one_core() -> None:
    """Keeps every library on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def write_film(path: Path, film: NDArray[np.uint16], encoding: str, display: str) -> None:
    """Writes (H, W) values of 12 bits."""
    dataset = film_dataset(film, FilmIdentity(seed=0, patient=0, film=0, number=0), pixel_mm=0.017)
    dataset.PixelData = stored_values(film, display).tobytes()
    dataset.PhotometricInterpretation = "MONOCHROME1" if display == "MONOCHROME1" else "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = "1900", "3100"
    if display == "VOI LUT":
        curve = np.rint(TOP * (np.arange(TOP + 1) / TOP) ** 0.6).astype("<u2")
        item = Dataset()
        item.LUTDescriptor, item.LUTData = [TOP + 1, 0, 12], curve.tobytes()
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
        dataset.VOILUTSequence = [item]
        del dataset.WindowCenter, dataset.WindowWidth
    dataset.save_as(path, enforce_file_format=True)
    if ENCODINGS[encoding] is not None:
        encode(path, ENCODINGS[encoding])


def stored_values(film: NDArray[np.uint16], display: str) -> NDArray[np.uint16]:
    return TOP - film if display == "MONOCHROME1" else film


def encode(path: Path, syntax: int) -> None:
    """Encodes a file anew in place."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise RuntimeError("GDCM cannot read the drawn film")
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError("GDCM cannot encode the drawn film")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))  # empties the file
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise RuntimeError("GDCM cannot write the encoded film")


def check(path: Path, film: NDArray[np.uint16], display: str) -> None:
    """Stops unless the file holds the film, and mim shows it as pydicom does, to the last bit."""
    dataset = pydicom.dcmread(path)
    np.testing.assert_array_equal(dataset.pixel_array, stored_values(film, display))
    np.testing.assert_array_equal(stored_by_the_fastest(dataset), stored_values(film, display))
    np.testing.assert_array_equal(read_radiograph(path).pixels, shown_by_pydicom(path))


def by_mim(path: Path) -> NDArray[np.float32]:
    return reduce_film(read_radiograph(path).pixels, LONG_SIDE)


def by_pydicom(path: Path) -> NDArray[np.float32]:
    return reduce_film(shown_by_pydicom(path), LONG_SIDE)


def shown_by_pydicom(path: Path) -> NDArray[np.float32]:
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64) / TOP
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return shown.astype(np.float32)


MONAI = Compose(
    [
        LoadImage(reader=PydicomReader(), image_only=True, ensure_channel_first=True),
        ScaleIntensity(),
        Resize(LONG_SIDE, size_mode="longest", mode="area"),
    ]
)


def by_monai(path: Path) -> torch.Tensor:
    return MONAI(path)


def without_lut(path: Path) -> NDArray[np.float32]:
    stored = stored_by_the_fastest(pydicom.dcmread(path))
    height, width = stored.shape
    size = (LONG_SIDE, round(LONG_SIDE * height / width)) if width >= height else (None, LONG_SIDE)
    return cv2.resize(stored, size, interpolation=cv2.INTER_AREA).astype(np.float32) / TOP


def stored_by_the_fastest(dataset: Dataset) -> NDArray[np.uint16]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == JPEGLosslessSV1:
        return imagecodecs.jpeg8_decode(frame)
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_decode(frame)
    if syntax == RLELossless:
        # fast, but it crashes on broken segments, so nothing that reads strangers' files can use it
        decoded = imagecodecs.dicomrle_decode(frame, "<u2")
        return np.frombuffer(decoded, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
    raise ValueError(f"no decoder for {syntax.name}")


WAYS: dict[str, Callable[[Path], object]] = {
    "mim": by_mim,
    "pydicom": by_pydicom,
    "MONAI": by_monai,
    "no LUT": without_lut,
}


def measure(paths: list[Path], repeats: int) -> dict[str, list[float]]:
    """Returns films a second of each way in each repeat; files are in the page cache, a first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, way in WAYS.items():
            began = time.perf_counter()
            for path in paths:
                way(path)
            if repeat:
                rates[name].append(len(paths) / (time.perf_counter() - began))
    return rates


def cells(rates: dict[str, list[float]]) -> list[str]:
    """Formats the rates of all ways, then the ratio of mim to each other way."""
    texts = [f"{statistics.median(values):.1f} ({max(values):.1f})" for values in rates.values()]
    for name in list(WAYS)[1:]:
        ratios = [mine / theirs for mine, theirs in zip(rates["mim"], rates[name], strict=True)]
        texts.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f})")
    return texts


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
