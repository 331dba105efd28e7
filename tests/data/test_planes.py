import numpy as np
import pytest

from mim.config import AugmentConfig
from mim.data.annotations import Lesion, draw_lesions
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import film_sample
from mim.data.planes import draw_planes, take_planes
from mim.data.store import FilmLevels

SIZE = (48, 64)
TURNED = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate=20, crop_scale=(0.5, 1.0), contrast=0.1)


class OneFilm:
    """A film that is stored."""

    def __len__(self) -> int:
        return 1

    def levels(self, film: int) -> FilmLevels:
        return FilmLevels(np.random.default_rng(film).integers(0, 255, SIZE).astype(np.uint8), None)


def lesion(label: int, box: tuple[float, float, float, float]) -> Lesion:
    return Lesion(box, f"class {label}", label, "", None, "", 1.0, None)


def lesions(planes: int) -> list[Lesion]:
    """Boxes of each class that overlap their neighbours', and none of the last."""
    return [lesion(label, (0.1 + 0.02 * label, 0.2, 0.5 + 0.02 * label, 0.7)) for label in range(planes - 1)]


@pytest.mark.parametrize("planes", [2, 8, 9, 20])
def test_planes_that_overlap_come_back_as_they_were_drawn(planes: int) -> None:
    own = lesions(planes)
    found = take_planes(draw_planes(own, SIZE, planes), planes)
    assert found.shape == (planes, *SIZE)
    for label in range(planes):
        alone = draw_lesions([one for one in own if one.label == label], SIZE)
        assert np.array_equal(found[label], alone)
    assert not found[-1].any()
    assert planes < 3 or (found[0] & found[1]).any()


@pytest.mark.parametrize("planes", [2, 9])
@pytest.mark.parametrize("seed", range(4))
def test_planes_move_with_the_film_as_each_alone_would(planes: int, seed: int) -> None:
    own = lesions(planes)
    for transform in (evaluation_transform((40, 40)), train_transform(TURNED, (40, 40))):
        together = film_sample(OneFilm(), 0, transform, seed, {0: own}, planes=planes)
        for label in range(planes):
            alone = film_sample(OneFilm(), 0, transform, seed, {0: [one for one in own if one.label == label]})
            differing = int((together["lesion"][label] != alone["lesion"][0]).sum())
            assert differing <= (0 if planes <= 8 else 2), "OpenCV may round a tie otherwise with several bytes"
            assert np.array_equal(together["image"], alone["image"])


def test_a_film_without_lesions_has_empty_planes() -> None:
    sample = film_sample(OneFilm(), 0, evaluation_transform((40, 40)), 0, {}, planes=3)
    assert sample["lesion"].shape == (3, 40, 40)
    assert not sample["lesion"].any()
