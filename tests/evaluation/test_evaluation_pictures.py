import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mim.errors import MimError
from mim.evaluation import Reconstruction, film_picture, mask_picture, reconstruction_picture
from mim.evaluation.box_names import name_boxes
from mim.evaluation.pictures import BOX, OUTLINE, UNSEEN


@pytest.fixture
def image() -> np.ndarray:
    return np.full((96, 192), 0.5, dtype=np.float32)


def test_a_film_keeps_its_shape_and_brightness() -> None:
    ramp = np.linspace(0, 1, 100, dtype=np.float32)[None, :].repeat(50, axis=0)
    picture = film_picture(ramp, side=400)
    assert picture.shape == (200, 400)
    assert picture.dtype == np.uint8
    assert (picture[:, 0].max(), picture[:, -1].min()) == (0, 255)
    assert picture[0, 200] == pytest.approx(127.5, abs=2)


def test_a_large_film_is_averaged_not_thinned() -> None:
    stripes = np.zeros((1024, 1024), dtype=np.float32)
    stripes[::2] = 1
    assert np.ptp(film_picture(stripes, side=256)) == 0


def test_hidden_cells_are_marked_and_seen_ones_are_left(image: np.ndarray) -> None:
    visible = np.zeros((6, 12), dtype=bool)
    visible[:, :6] = True
    picture = mask_picture(image, visible, side=192)
    assert picture.shape == (96, 192, 3)
    assert (picture[:, :96] == 128).all()
    assert (picture[:, 96:98] == OUTLINE).all()
    inside = picture[4:-4, 102:-4].astype(int)
    assert inside.mean() < 100
    assert (inside[..., 2] > inside[..., 0]).any()  # hatched in blue


def test_an_opaque_mask_leaves_nothing_of_hidden_cells(image: np.ndarray) -> None:
    bright = image + np.random.default_rng(0).uniform(-0.2, 0.2, image.shape).astype(np.float32)
    visible = np.zeros((6, 12), dtype=bool)
    visible[2, 3] = True
    picture = mask_picture(bright, visible, side=192, opaque=True)
    seen = np.zeros((96, 192), dtype=bool)
    seen[32:48, 48:64] = True
    assert (picture[~seen] == UNSEEN).all()
    assert np.array_equal(picture[seen], mask_picture(bright, None, side=192)[seen])


def test_a_grid_that_does_not_divide_the_picture_is_spread_evenly(image: np.ndarray) -> None:
    visible = np.ones((7, 13), dtype=bool)
    visible[3, 6] = False
    marked = (mask_picture(image, visible, side=500, opaque=True) == UNSEEN).all(axis=2)
    rows, columns = np.nonzero(marked)
    assert rows.min() == pytest.approx(250 * 3 / 7, abs=1)
    assert columns.max() + 1 == pytest.approx(500 * 7 / 13, abs=1)


def test_a_box_is_framed_without_covering_what_is_in_it(image: np.ndarray) -> None:
    picture = mask_picture(image, None, [(40, 20, 60, 50)], side=384)  # twice as large
    assert (picture[40:100, 80:120] == 128).all()
    assert (picture[70, 78] == BOX).all()
    assert (picture[38, 100] == BOX).all()
    assert (picture[70, 121] == BOX).all()


def test_names_beside_boxes_can_be_told_apart_in_other_letters() -> None:
    film = np.zeros((96, 192, 3), dtype=np.uint8)
    drawn = [name_boxes(film, [(10, 40, 60, 80)], [name]) for name in ("кариес", "пломба", "τερηδό", "caries")]
    assert all(picture.shape == film.shape and picture.any() for picture in drawn)
    assert len({picture.tobytes() for picture in drawn}) == len(drawn)


def test_everything_seen_without_boxes_is_the_film(image: np.ndarray) -> None:
    assert (mask_picture(image, None) == film_picture(image)[..., None]).all()
    assert (mask_picture(image, np.ones((2, 4), dtype=bool)) == film_picture(image)[..., None]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 4, 4)), None), r"shape \(3, 4, 4\)"),
        ((np.zeros((0, 4)), None), r"shape \(0, 4\)"),
        ((np.full((4, 4), np.nan), None), "not finite"),
        ((np.zeros((4, 4)), np.ones(4, dtype=bool)), r"mask of shape \(4,\)"),
        ((np.zeros((4, 4)), None, [(1, 2, 3)]), r"box \[1, 2, 3\]"),
        ((np.zeros((4, 4)), None, [(1, 2, 3, float("inf"))]), "four numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(MimError, match=message):
        mask_picture(*arguments)  # type: ignore[arg-type]


def test_a_sheet_holds_three_columns_a_film(image: np.ndarray) -> None:
    tall = np.full((200, 100), 0.25, dtype=np.float32)
    rows = [
        Reconstruction(image, np.zeros((6, 12), dtype=bool), image + 2),
        Reconstruction(tall, np.ones((4, 2), dtype=bool), tall - 9),
    ]
    content = reconstruction_picture(rows, side=192)
    assert content == reconstruction_picture(rows, side=192)
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    third = sheet.shape[1] // 3
    shares = [
        [(sheet[:, start : start + third] == colour).all(axis=2).mean() for start in (0, third, 2 * third)]
        for colour in ((128, 128, 128), UNSEEN, (0, 0, 0))
    ]
    assert [share > 0.1 for share in shares[0]] == [True, False, False]
    assert [share > 0.1 for share in shares[1]] == [False, True, False]
    assert [share > 0.1 for share in shares[2]] == [False, False, True]


def test_an_empty_sheet_and_a_diverged_one_are_refused(image: np.ndarray) -> None:
    with pytest.raises(MimError, match="no films"):
        reconstruction_picture([])
    with pytest.raises(MimError, match="diverged"):
        reconstruction_picture([Reconstruction(image, np.ones((6, 12), dtype=bool), image * np.nan)])


def test_a_real_film_is_drawn(shared_data: Path) -> None:
    path = next((shared_data / "panoramic").rglob("*.jpg"))
    image = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255
    picture = mask_picture(image, np.random.default_rng(0).random((14, 14)) < 0.5, [(100, 100, 140, 150)])
    assert picture.shape == (512, 512, 3)
    assert (picture == OUTLINE).all(axis=2).any()
