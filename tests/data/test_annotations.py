import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from film_factory import SALT, pattern, store_films, write_png

from mim.config import AugmentConfig
from mim.data.annotations import Annotations, read_annotations
from mim.data.augment import evaluation_transform, train_transform
from mim.data.grades import order_grades
from mim.data.loader import FilmDataset, evaluation_loader
from mim.data.outlines import Polygons, parse_counts, parse_outline
from mim.data.phantom import GRADES, PhantomSettings, draw_film, write_phantom
from mim.data.prepare import prepare
from mim.data.store import PreparedDataset
from mim.errors import MimError

HEIGHT, WIDTH = 60, 90
WHOLE = (0.0, 0.0, 1.0, 1.0)
EVERYTHING = AugmentConfig(vertical_flip=0.5, rotate=25.0, crop_scale=(0.3, 1.0), brightness=0.1, contrast=0.1)


def coco(*annotations: dict[str, Any], size: tuple[int, int] | None = (WIDTH, HEIGHT)) -> dict[str, Any]:
    """Annotations of a.png; b.png has none."""
    sides = {} if size is None else {"width": size[0], "height": size[1]}
    images = [{"id": number, "file_name": name, **sides} for number, name in enumerate(("a.png", "b.png"))]
    listed = [{"image_id": 0, "category_id": 1, **annotation} for annotation in annotations]
    return {
        "images": images,
        "annotations": listed,
        "categories": [{"id": 2, "name": "crown"}, {"id": 1, "name": "caries"}],
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8)])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def compressed(counts: list[int]) -> str:
    """COCO's text of run lengths, as its specification words it: one number after the other."""
    text = ""
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            low = number & 31
            number >>= 5
            more = not ((number == -1 and low & 16) or (number == 0 and not low & 16))
            text += chr((low | 32 if more else low) + 48)
    return text


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("annotations")
    for number, name in enumerate(("a.png", "b.png")):
        write_png(root / "films" / name, pattern(number, HEIGHT, WIDTH))
    return store_films(root / "films", root / "out")


def read(films: PreparedDataset, content: Any, **options: Any) -> Annotations:
    path = films.source / "lesions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(films, films.source, "lesions.json", **options)


def test_what_the_file_says_of_a_lesion_is_known_afterwards(films: PreparedDataset) -> None:
    found = read(
        films,
        coco(
            {"bbox": [9, 6, 18, 12], "attributes": {"Grade": "D2", "tooth": 36, "occluded": False}},
            {"bbox": [45, 30, 9, 6], "category_id": 2, "attributes": {"severity": "E1"}},
            {"bbox": [80, -5, 20, 20]},
        ),
    )
    first, second, third = found.of(0)
    assert found.categories == ("crown", "caries")
    assert (first.category, first.label, first.grade, first.tooth) == ("caries", 1, "D2", "36")
    assert (second.category, second.label, second.grade, second.tooth) == ("crown", 0, "E1", "")
    assert found.grades == ("E1", "D2")
    assert [lesion.severity for lesion in found.of(0)] == [1, 0, None]
    np.testing.assert_allclose(first.box, (0.1, 0.1, 0.3, 0.3))
    np.testing.assert_allclose(third.box, (80 / 90, 0, 1, 0.25))
    assert (first.area, third.area) == (216, 150)
    assert found.of(1) == ()
    only = read(films, coco({"bbox": [1, 1, 5, 5]}, {"bbox": [2, 2, 5, 5], "category_id": 2}), categories=["crown"])
    assert [lesion.label for lesion in only.of(0)] == [0]


def test_boxes_that_reach_beyond_the_film_are_cut_with_a_warning(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    rounded = {"bbox": [80, 50, 10.8, 10.5]}
    np.testing.assert_allclose(read(films, coco(rounded)).of(0)[0].box, (80 / 90, 50 / 60, 1, 1))
    assert "reach beyond" not in caplog.text
    outside = [{"bbox": [80, 50, 40, 5]}, {"bbox": [-3, 5, 20, 5]}]
    found = read(films, coco(rounded, *outside)).of(0)
    np.testing.assert_allclose(found[1].box, (80 / 90, 50 / 60, 1, 55 / 60))
    assert "2 boxes reach beyond their film by more than a pixel" in caplog.text
    assert "(the first is annotation 2)" in caplog.text


def test_a_file_made_on_images_of_another_size_is_scaled(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    small = np.zeros((HEIGHT // 3, WIDTH // 3), bool)
    small[4:10, 6:20] = True
    outlined = {"size": list(small.shape), "counts": run_lengths(small)}
    content = coco({"bbox": [6, 4, 14, 6], "segmentation": outlined}, size=(WIDTH // 3, HEIGHT // 3))
    lesion = read(films, content).of(0)[0]
    assert "2 images have another size" in caplog.text
    np.testing.assert_allclose(lesion.box, (6 / 30, 4 / 20, 20 / 30, 10 / 20))
    assert lesion.area == pytest.approx(6 * 14 * 9)
    np.testing.assert_array_equal(lesion.draw((HEIGHT, WIDTH)), np.kron(small, np.ones((3, 3))).astype(bool))


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_drawn_to_the_pixel_and_shrunk_by_area(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(40, 64)).astype(np.float32)
    mask = cv2.GaussianBlur(noise, (0, 0), 4) > 0.05
    counts = run_lengths(mask)
    assert parse_counts(compressed(counts)).tolist() == counts
    outline = parse_outline({"size": [40, 64], "counts": compressed(counts)}, (64, 40), WHOLE)
    assert outline is not None
    canvas = np.zeros((40, 64), bool)
    outline.draw_on(canvas)
    np.testing.assert_array_equal(canvas, mask)
    small = np.zeros((10, 16), bool)
    outline.draw_on(small)
    np.testing.assert_array_equal(small, mask.reshape(10, 4, 16, 4).mean(axis=(1, 3)) >= 0.5)
    tile = np.zeros((20, 32), bool)
    part = parse_outline({"size": [40, 64], "counts": counts}, (64, 40), (0.5, 0.25, 1.0, 0.75))
    assert part is not None
    part.draw_on(tile)
    np.testing.assert_array_equal(tile, mask[10:30, 32:])


def test_polygons_cover_what_they_enclose() -> None:
    square = parse_outline([[10.0, 5.0, 30.0, 5.0, 30.0, 15.0, 10.0, 15.0]], (64, 40), WHOLE)
    assert square is not None
    canvas = np.zeros((40, 64), bool)
    square.draw_on(canvas)
    wanted = np.zeros_like(canvas)
    wanted[5:15, 10:30] = True
    np.testing.assert_array_equal(canvas, wanted)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = Polygons((np.stack([0.5 + 0.3 * np.cos(angles), 0.5 + 0.3 * np.sin(angles)], axis=1),))
    canvas = np.zeros((200, 200), bool)
    disc.draw_on(canvas)
    y, x = (np.mgrid[:200, :200] + 0.5) / 200 - 0.5
    assert np.mean(canvas != (np.hypot(x, y) <= 0.3)) < 0.003
    outside = Polygons((disc.corners[0] + 3,))
    canvas[:] = False
    outside.draw_on(canvas)
    assert not canvas.any()


def test_a_lesion_smaller_than_a_pixel_keeps_one(films: PreparedDataset) -> None:
    dot = np.zeros((HEIGHT, WIDTH), bool)
    dot[41, 62] = True
    outlines = [None, {"size": [HEIGHT, WIDTH], "counts": run_lengths(dot)}, [[62, 41, 63, 41, 63, 42, 62, 42]]]
    for outline in outlines:
        lesion = read(films, coco({"bbox": [62, 41, 1, 1], "segmentation": outline})).of(0)[0]
        drawn = lesion.draw((HEIGHT // 10, WIDTH // 10))
        assert np.argwhere(drawn).tolist() == [[4, 6]]


HOSTILE = {
    "no box": ({}, "no bbox of four numbers"),
    "text": ({"bbox": ["a", 1, 2, 3]}, "a coordinate that is no number"),
    "not finite": ({"bbox": [1, 1, float("nan"), 2]}, "a coordinate that is not finite"),
    "huge": ({"bbox": [1e308, 1e308, 1e308, 1e308]}, "no area within its image"),
    "outside": ({"bbox": [100, 10, 5, 5]}, "no area within its image"),
    "turned": ({"bbox": [10, 10, -5, 5]}, "no area within its image"),
    "owner": ({"bbox": [1, 1, 2, 2], "image_id": 9}, "image_id of the annotation is of no image"),
    "class": ({"bbox": [1, 1, 2, 2], "category_id": 9}, "category_id is of no category"),
    "runs": ({"bbox": [1, 1, 2, 2], "segmentation": {"size": [60, 90], "counts": [5]}}, "do not add up"),
    "negative": ({"bbox": [1, 1, 2, 2], "segmentation": {"size": [60, 90], "counts": [-5, 5405]}}, "do not add up"),
    "size": ({"bbox": [1, 1, 2, 2], "segmentation": {"size": [1 << 40, 90], "counts": [1]}}, "of another size"),
    "letters": ({"bbox": [1, 1, 2, 2], "segmentation": {"size": [60, 90], "counts": "~~~ooo"}}, "cannot be read"),
    "line": ({"bbox": [1, 1, 2, 2], "segmentation": [[1, 2, 3, 4]]}, "less than three points"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_annotation_gives_one_line(name: str, films: PreparedDataset) -> None:
    annotation, wanted = HOSTILE[name]
    with pytest.raises(MimError, match=wanted) as caught:
        read(films, coco({"bbox": [1, 1, 4, 4]}, annotation))
    assert "data.boxes" in str(caught.value)
    assert "2" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "no list 'images'"),
        ('{"images": [], "annotations": {}}', "no list 'annotations'"),
        (json.dumps({"images": [{"id": 1, "file_name": "z.png"}], "annotations": []}), "none of its 1 images"),
        (json.dumps({"images": [{"id": 1, "file_name": "a\0.png"}], "annotations": []}), "none of its 1 images"),
        (json.dumps(coco({"bbox": [1, 1, 2, 2]}, size=(1 << 40, 1 << 40))), "more than 200,000,000 pixels"),
    ],
)
def test_a_hostile_file_gives_one_line(content: str, wanted: str, films: PreparedDataset) -> None:
    with pytest.raises(MimError, match=wanted) as caught:
        read(films, content)
    assert "data.boxes" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_an_unknown_class_or_grade_are_named(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match=r"absent.json.*data.boxes"):
        read_annotations(films, films.source, "absent.json")
    with pytest.raises(MimError, match=r"'carries' \(data.lesion_categories\): did you mean 'caries'"):
        read(films, coco({"bbox": [1, 1, 2, 2]}), categories=["carries"])
    graded = coco({"bbox": [1, 1, 2, 2], "attributes": {"grade": "worse"}})
    with pytest.raises(MimError, match=r"grade 'worse' is not among those given \(bad\) \(data.grades\)"):
        read(films, graded, grades=["bad"])


def test_grades_are_ordered_where_their_order_is_known() -> None:
    assert order_grades(["10", "9", "", "2"]) == ("2", "9", "10")
    assert order_grades(["D3", "e1", "D1"]) == ("e1", "D1", "D3")
    assert order_grades(["severe", "mild"]) == ("mild", "severe")
    assert order_grades(["deep", "shallow"]) == ()
    assert order_grades(["deep", "shallow"], ["shallow", "middling", "deep"]) == ("shallow", "middling", "deep")
    assert order_grades(reversed(GRADES)) == GRADES


def bright_lesions(root: Path) -> tuple[PreparedDataset, Annotations]:
    """Black films on which whatever is annotated is white: boxes, polygons and run lengths."""
    images, annotations = [], []
    for number in range(6):
        rng = random.Random(number)
        film = np.zeros((120, 180), np.uint8)
        x, y = rng.randrange(10, 120), rng.randrange(10, 70)
        wide, high = rng.randrange(20, 50), rng.randrange(20, 40)
        outline: Any = None
        if number % 3 == 0:
            film[y : y + high, x : x + wide] = 255
        elif number % 3 == 1:
            cv2.ellipse(film, (x + wide // 2, y + high // 2), (wide // 2, high // 2), 0, 0, 360, 255, -1)
            outline = {"size": [120, 180], "counts": compressed(run_lengths(film > 0))}
        else:
            corners = np.array([(x, y), (x + wide, y), (x + wide, y + high)])
            cv2.fillPoly(film, [corners], 255)
            outline = [(corners + 0.5).ravel().tolist()]
        write_png(root / "films" / f"{number}.png", film)
        images.append({"id": number, "file_name": f"{number}.png", "width": 180, "height": 120})
        annotations.append({"image_id": number, "bbox": [x, y, wide, high], "segmentation": outline})
    films = store_films(root / "films", root / "out")
    (root / "films" / "lesions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return films, read_annotations(films, root / "films", "lesions.json")


def test_a_lesion_pixel_stays_on_its_lesion_through_every_augmentation(tmp_path: Path) -> None:
    films, annotations = bright_lesions(tmp_path)
    augment = EVERYTHING.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    dataset = FilmDataset(
        *(films, range(6), train_transform(augment, (96, 144)), 3), lesions=annotations.lesions, boxes=True
    )
    met = 0
    for epoch in range(15):
        for number in range(6):
            sample = dataset[epoch, number]
            bright, lesion = sample["image"] > 0.5, sample["lesion"]
            assert lesion.shape == bright.shape == (1, 96, 144)
            assert lesion.dtype == torch.bool
            union = int((bright | lesion).sum())
            if union > 150:
                met += 1
                assert int((bright & lesion).sum()) / union > 0.8
                border = cv2.morphologyEx(bright[0].numpy().astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7)))
                assert not ((bright != lesion)[0].numpy() & (border == 0)).any()
            inside = torch.zeros_like(lesion)
            for x1, y1, x2, y2 in sample["boxes"].tolist():
                inside[:, max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = True
            if len(sample["boxes"]):
                assert not (lesion & ~inside).any()
    assert met > 36


def test_the_image_is_the_same_with_lesions_and_without(films: PreparedDataset) -> None:
    annotations = read(films, coco({"bbox": [9, 6, 18, 12]}))
    for integers in (False, True):
        arguments = (films, [0, 1], train_transform(EVERYTHING, (32, 48)), 5, [0, 1])
        plain = FilmDataset(*arguments, integers=integers)
        drawn = FilmDataset(*arguments, integers=integers, lesions=annotations.lesions, boxes=True)
        for place in ((0, 0), (3, 1), (7, 0)):
            one, other = plain[place], drawn[place]
            assert torch.equal(one["image"], other["image"])
            assert one.keys() == {"image", "index", "label"}
            assert other.keys() - one.keys() == {"lesion", "boxes", "box_label"}


def test_boxes_are_padded_to_the_film_with_most(films: PreparedDataset) -> None:
    content = coco({"bbox": [9, 6, 18, 12]}, {"bbox": [45, 30, 9, 6], "category_id": 2})
    lesions = read(films, content).lesions
    dataset = FilmDataset(films, [1, 0, 1], evaluation_transform((HEIGHT, WIDTH)), 0, lesions=lesions, boxes=True)
    batch = next(iter(evaluation_loader(dataset, batch_size=2, workers=0)))
    assert batch["boxes"][0].tolist() == [[-1] * 4] * 2
    np.testing.assert_allclose(batch["boxes"][1], [[9, 6, 27, 18], [45, 30, 54, 36]], rtol=1e-6)
    assert batch["box_label"].tolist() == [[-1, -1], [1, 0]]
    assert (batch["boxes"].dtype, batch["box_label"].dtype) == (torch.float32, torch.int64)
    assert batch["lesion"].sum(dim=(1, 2, 3)).tolist() == [0, 18 * 12 + 9 * 6]
    empty = list(evaluation_loader(dataset, batch_size=2, workers=0))[1]
    assert empty["boxes"].shape == (1, 0, 4)
    assert empty["box_label"].shape == (1, 0)
    with pytest.raises(ValueError, match="not given"):
        FilmDataset(films, [0], evaluation_transform((8, 8)), 0, boxes=True)


def test_lesions_follow_into_tiles(films: PreparedDataset, tmp_path: Path) -> None:
    tiled = prepare(
        films.source, tmp_path / "tiles", long_side=64, bits=8, salt=SALT, workers=1, tile=40, tile_overlap=10
    )
    mask = np.zeros((HEIGHT, WIDTH), bool)
    cv2.circle(mask.view(np.uint8), (48, 28), 12, 1, -1)
    corners = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0][:, 0] + 0.5
    for outline in ({"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)}, [corners.ravel().tolist()]):
        annotations = read(films, coco({"bbox": [36, 16, 25, 25], "segmentation": outline}))
        assert annotations.of(0)[0].area == pytest.approx(mask.sum(), rel=0.1)
        annotations = read_annotations(tiled, tiled.source, "lesions.json")
        met = 0
        for number, row in enumerate(tiled.rows):
            for lesion in annotations.of(number):
                assert row.crop is not None
                drawn, wanted = lesion.draw((row.crop.height, row.crop.width)), mask[row.crop.slices]
                border = cv2.morphologyEx(wanted.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
                assert not ((drawn != wanted) & (border == 0)).any()
                met += 1
        assert met >= 2


def test_the_phantom_says_where_its_lesions_are_and_how_deep(tmp_path: Path) -> None:
    settings = PhantomSettings(height=96, width=128, caries_fraction=1.0)
    write_phantom(tmp_path / "set", settings, unlabelled=0, labelled=5, seed=2, progress=False)
    films = store_films(tmp_path / "set" / "labelled", tmp_path / "out")
    annotations = read_annotations(films, tmp_path / "set" / "labelled", "lesions.coco.json")
    assert set(annotations.grades) <= set(GRADES)
    assert annotations.grades == tuple(grade for grade in GRADES if grade in annotations.grades)
    first = draw_film(settings, 2, 1, 0)
    assert [lesion.grade for lesion in annotations.of(0)] == [lesion.grade for lesion in first.lesions]
    for lesion, drawn in zip(annotations.of(0), first.lesions, strict=True):
        np.testing.assert_array_equal(lesion.draw((96, 128)), drawn.mask)
        assert lesion.area == drawn.mask.sum()
