import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png
from hypothesis import given
from hypothesis import strategies as st

from mim.data import PreparedDataset, attach_labels, excluded_from_pretraining, load_seen, save_seen, split_films
from mim.data.annotations import read_annotations
from mim.data.build import build
from mim.data.decode import DecodeOptions
from mim.data.prepare import prepare
from mim.data.regions import Rectangle, map_box, tile_rectangles
from mim.data.scan import scan
from mim.errors import MimError


@given(
    left=st.integers(0, 50),
    top=st.integers(0, 50),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(16, 120),
    share=st.floats(0, 0.5),
)
def test_tiles_cover_an_area_at_equal_size_and_overlap_as_asked(left, top, width, height, side, share) -> None:
    area, overlap = Rectangle(left, top, left + width, top + height), int(side * share)
    tiles = tile_rectangles(area, side, overlap)
    covered = np.zeros((height, width), dtype=bool)
    for tile in tiles:
        assert (tile.width, tile.height) == (min(side, width), min(side, height))
        assert tile.left >= left
        assert tile.top >= top
        covered[tile.top - top : tile.bottom - top, tile.left - left : tile.right - left] = True
    assert covered.all()
    assert len(set(tiles)) == len(tiles)
    assert tiles == sorted(tiles, key=lambda tile: (tile.top, tile.left))
    for starts in (sorted({tile.left for tile in tiles}), sorted({tile.top for tile in tiles})):
        assert all(after - before <= side - overlap for before, after in pairwise(starts))


def test_what_is_no_larger_than_the_overlap_lies_whole_in_some_tile() -> None:
    tiles = tile_rectangles(Rectangle(0, 0, 2943, 1435), 512, 64)
    for left in range(0, 2943 - 64, 97):
        box = (left, 700, left + 64, 764)
        assert (64, 64) in [
            (part[2] - part[0], part[3] - part[1]) for tile in tiles if (part := map_box(box, tile)) is not None
        ]


def test_a_box_is_moved_and_cut_and_slivers_are_left_out() -> None:
    part = Rectangle(100, 50, 300, 250)
    assert map_box((110, 60, 120, 80), part) == (10, 10, 20, 30)
    assert map_box((90, 40, 120, 80), part) == (0, 0, 20, 30)
    assert map_box((0, 0, 101, 51), part) is None
    assert map_box((400, 60, 420, 80), part) is None
    assert map_box((90, 40, 120, 80), None) == (90, 40, 120, 80)


@pytest.fixture
def tiled(tmp_path: Path):
    """Two DICOM films of patients A and B and a PNG smaller than a tile, each of the first two with 2 x 3 tiles."""
    for number, patient in enumerate("AB"):
        write_dicom(tmp_path / "films" / f"{patient}.dcm", pattern(number, 100, 180).astype(int) * 16, patient=patient)
    write_png(tmp_path / "films" / "small.png", pattern(9, 40, 50))
    return prepare(
        *(tmp_path / "films", tmp_path / "out"),
        long_side=64,
        bits=8,
        salt=SALT,
        workers=2,
        tile=64,
        tile_overlap=4,
    )


def test_tiles_are_rows_at_native_resolution(tiled) -> None:
    rows = [row for row in tiled.rows if row.image == "A.dcm"]
    assert [row.tile for row in rows] == list(range(6))
    assert [row.crop for row in rows] == tile_rectangles(Rectangle(0, 0, 180, 100), 64, 4)
    assert len({row.image_id for row in tiled.rows}) == len(tiled)
    assert len({row.content for row in rows}) == len({row.perceptual_hash for row in rows}) == 1
    whole = store_films(tiled.source, tiled.path.parent / "whole", long_side=4096)
    for number, row in enumerate(tiled.rows):
        film = next(n for n, other in enumerate(whole.rows) if other.image == row.image)
        part = whole.image(film) if row.crop is None else whole.image(film)[row.crop.slices]
        np.testing.assert_array_equal(tiled.image(number), part)
    assert [(row.tile, row.crop) for row in tiled.rows if row.image == "small.png"] == [(0, None)]


def test_boxes_land_in_their_tiles(tiled) -> None:
    images = [{"id": 1, "file_name": "A.dcm"}, {"id": 2, "file_name": "small.png"}]
    boxes = [(1, [62, 10, 8, 8]), (1, [170, 90, 8, 8]), (2, [5, 5, 10, 20])]
    coco = {"images": images, "annotations": [{"image_id": image, "bbox": box} for image, box in boxes]}
    (tiled.source / "boxes.json").write_text(json.dumps(coco))
    annotations = read_annotations(tiled, tiled.source, "boxes.json")
    found = {film: [lesion.box for lesion in lesions] for film, lesions in annotations.lesions.items()}
    tile = {tiled.rows[number].tile: number for number in found if tiled.rows[number].image == "A.dcm"}
    assert set(tile) == {0, 1, 5}
    assert found[tile[0]] == [(62 / 64, 10 / 64, 1.0, 18 / 64)]
    assert found[tile[1]] == [(2 / 64, 10 / 64, 10 / 64, 18 / 64)]
    assert found[tile[5]] == [((170 - 116) / 64, (90 - 36) / 64, (178 - 116) / 64, (98 - 36) / 64)]
    small = next(number for number, row in enumerate(tiled.rows) if row.image == "small.png")
    assert found[small] == [(0.1, 0.125, 0.3, 0.625)]


def test_a_film_of_the_test_is_known_again_by_any_of_its_tiles(tiled, tmp_path: Path) -> None:
    write_csv(
        tiled.source / "labels.csv",
        ("image", "caries", "split"),
        *(("A.dcm", 0, "test"), ("B.dcm", 1, "train"), ("small.png", 0, "train")),
    )
    excluded = excluded_from_pretraining(tiled, tiled.source, "auto", SALT)
    assert {tiled.rows[number].image for number in excluded} == {"A.dcm"}
    assert len(excluded) == 6
    seen = tmp_path / "seen.csv"
    save_seen(seen, tiled, sorted(excluded)[:1])
    whole = store_films(tiled.source, tmp_path / "whole", long_side=256)
    assert load_seen(seen).contents == {row.content for row in whole.rows if row.image == "A.dcm"}


def test_tiles_of_a_film_are_in_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):
        write_png(tmp_path / "films" / f"{number}.png", pattern(number, 40, 90))
    options = DecodeOptions((tmp_path / "films").resolve(), 64, 8, SALT, tile=40)
    build(scan(tmp_path / "films"), tmp_path / "out", options, 1)
    films = PreparedDataset.open(tmp_path / "out")
    write_csv(tmp_path / "films" / "labels.csv", ("image", "caries"), *((f"{n}.png", n % 2) for n in range(6)))
    labelled = attach_labels(films, tmp_path / "films", "labels.csv", "caries", SALT)
    assert "each tile takes the label of its film" in caplog.text
    splits = split_films(labelled, val_fraction=0.3, test_fraction=0.3, seed=0)
    where = [{film.image for film in part} for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, where)) == len(set.union(*where)) == 6
    assert sum(len(part) for part in (splits.train, splits.val, splits.test)) == 18


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": 128}, "data.tile 128 is more than data.long_side 64"),
        ({"tile_overlap": 3}, "says nothing without data.tile"),
        ({"tile": 32, "tile_overlap": 17}, "from 0 to half of data.tile, 16"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, said: str, tmp_path: Path) -> None:
    with pytest.raises(MimError, match=said):
        DecodeOptions(tmp_path, 64, 8, SALT, **options)
