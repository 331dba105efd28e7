"""How many inverted films the doctor finds, and how many sound ones it suspects.

    python benchmarks/inverted.py FOLDER [FOLDER ...]

Of the films of each folder, and of all folders mixed, a share is turned over at random; `find_inverted` does not know
which. Films of a folder count as of one modality.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data import UnreadableRadiograph, read_radiograph
from mim.data.doctor.polarity import find_inverted
from mim.data.scan import scan

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4)


def read_folder(folder: Path, limit: int) -> NDArray[np.uint8]:
    """Films reduced as the doctor reduces them (N, 32, 32)."""
    tiny = []
    for file in scan(folder)[:limit]:
        try:
            pixels = read_radiograph(folder / file.image).pixels
        except UnreadableRadiograph:
            continue
        tiny.append(np.rint(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA) * 255).astype(np.uint8))
    return np.stack(tiny)


def main() -> None:
    """Prints a table in Markdown."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("folders", type=Path, nargs="+")
    line.add_argument("--films", type=int, default=1_000_000, help="at most so many of each folder")
    line.add_argument("--repeats", type=int, default=10, help="draws of each share")
    options = line.parse_args()
    sets = {folder.name: read_folder(folder, options.films) for folder in options.folders}
    if len(sets) > 1:
        fewest = min(map(len, sets.values()))
        sets["all mixed"] = np.concatenate([films[:fewest] for films in sets.values()])
    print("| films | turned over | found | false alarms |\n|---|---|---|---|")
    for name, films in sets.items():
        for share in SHARES:
            found = turned = alarms = sound = 0
            for seed in range(options.repeats):
                chosen = np.random.default_rng(seed).random(len(films)) < share
                given = np.where(chosen[:, None, None], 255 - films, films)
                suspects = set(find_inverted(given, [""] * len(films)).inverted)
                wanted = set(np.flatnonzero(chosen).tolist())
                found, turned = found + len(suspects & wanted), turned + len(wanted)
                alarms, sound = alarms + len(suspects - wanted), sound + len(films) - len(wanted)
            hits = f"{found} of {turned} ({found / turned:.1%})" if turned else "-"
            print(f"| {name}, {len(films)} | {share:.0%} | {hits} | {alarms} of {sound} ({alarms / sound:.2%}) |")
        whole, none = (bool(find_inverted(given, [""] * len(films)).dark_centre) for given in (255 - films, films))
        print(f"| {name}, {len(films)} | 100% | of the set: {whole} | of the set as it is: {none} |")


if __name__ == "__main__":
    main()
