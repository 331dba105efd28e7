import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from mim.evaluation.merge_boxes import WindowBoxes, merge_boxes

SIZE = (100, 180)  # of the image
WINDOWS = [(0, 0, 100, 100), (80, 0, 180, 100)]


def boxes_of(*found: tuple[int, tuple[float, ...], float, int]) -> WindowBoxes:
    """Of tuples (window, box, score, label)."""
    windows, boxes, score, label = zip(*found, strict=True) if found else ((), (), (), ())
    return WindowBoxes(
        np.array(boxes, float).reshape(-1, 4),
        np.array(score, float),
        np.array(label, np.int64),
        np.array(windows, np.int64),
        np.array(WINDOWS, float),
        SIZE,
    )


def test_two_halves_become_the_box_around_them_with_the_higher_score() -> None:
    found = boxes_of((0, (20, 40, 100, 60), 0.6, 0), (1, (80, 41, 150, 59), 0.8, 0))
    boxes, score, label = merge_boxes(found, 0.5, 10)
    assert (boxes.tolist(), score.tolist(), label.tolist()) == ([[20, 40, 150, 60]], [0.8], [0])


def test_a_half_goes_where_the_whole_is_known_whatever_their_overlap() -> None:
    whole = (92, 40, 140, 60)
    found = boxes_of((0, (92, 40, 100, 60), 0.9, 0), (1, whole, 0.4, 0))
    boxes, score, _ = merge_boxes(found, 0.5, 10)
    assert boxes.tolist() == [list(whole)]
    assert score.tolist() == [0.9]


@pytest.mark.parametrize(
    "other",
    [
        (1, (92, 40, 140, 60), 0.4, 1),  # of another class
        (1, (92, 64, 140, 84), 0.4, 0),  # beside it
        (1, (110, 40, 140, 60), 0.4, 0),  # nothing of it in what both windows see
        (1, (81.9, 30, 140, 90), 0.4, 0),  # much larger in what both windows see
    ],
)
def test_what_is_another_object_stays(other) -> None:
    half = (0, (92, 40, 100, 60), 0.9, 0)
    boxes, score, label = merge_boxes(boxes_of(half, other), 0.5, 10)
    assert boxes.tolist() == [list(half[1]), list(other[1])]
    assert score.tolist() == [0.9, 0.4]
    assert label.tolist() == [half[3], other[3]]


def test_the_border_of_the_image_cuts_nothing() -> None:
    """Boxes at the left border of the image, one in another: an object in an object, not two halves."""
    found = boxes_of((0, (0, 10, 60, 90), 0.9, 0), (0, (0, 40, 20, 60), 0.8, 0), (1, (150, 20, 180, 60), 0.7, 0))
    boxes, _, _ = merge_boxes(found, 0.5, 10)
    assert boxes.tolist() == [[0, 10, 60, 90], [0, 40, 20, 60], [150, 20, 180, 60]]


corner = st.integers(6, 60)
inner = st.tuples(st.integers(0, 1), corner, corner, st.integers(4, 30), st.integers(4, 30), st.floats(0.1, 1.0))


@given(st.lists(inner, max_size=12), st.floats(0.2, 0.8))
@settings(deadline=None)
def test_boxes_that_no_window_cuts_are_put_together_by_non_maximum_suppression(drawn, overlap) -> None:
    found = boxes_of(
        *((window, (x + 80 * window, y, x + 80 * window + w, y + h), s, 0) for window, x, y, w, h, s in drawn)
    )
    boxes, score, label = merge_boxes(found, overlap, 100)
    kept = batched_nms(*map(torch.from_numpy, (found.boxes, found.score, found.label)), overlap).numpy()
    assert np.array_equal(boxes, found.boxes[kept])
    assert np.array_equal(score, found.score[kept])
    assert np.array_equal(label, found.label[kept])


side = st.floats(0, 90)
anywhere = st.tuples(
    st.integers(0, 1), side, side, st.floats(1, 60), st.floats(1, 60), st.floats(0.1, 1), st.booleans()
)


@given(st.lists(anywhere, max_size=14))
@settings(deadline=None)
def test_whatever_is_found_no_box_leaves_the_image_and_the_best_score_stays(drawn) -> None:
    rows = []
    for window, x, y, w, h, score, label in drawn:
        rows.append((window, (x + 80 * window, y, min(100, x + w) + 80 * window, min(100, y + h)), score, int(label)))
    found = boxes_of(*rows)
    boxes, score, label = merge_boxes(found, 0.5, 100)
    assert len(boxes) == len(score) == len(label) <= len(rows)
    assert (boxes >= 0).all()
    assert (boxes <= [180, 100, 180, 100]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (np.diff(score) <= 0).all()
    for own in set(found.label.tolist()):
        assert score[label == own].max() == found.score[found.label == own].max()
    if rows:  # every box of a window lies, for the most part, in some box of the image
        for box, of_class in zip(found.boxes, found.label, strict=True):
            mine = boxes[label == of_class]
            inside = (np.minimum(mine[:, 2:], box[2:]) - np.maximum(mine[:, :2], box[:2])).clip(0).prod(axis=1)
            assert inside.max() > 0
    again = merge_boxes(found.take(np.arange(len(rows))[::-1]), 0.5, 100)
    if len(set(found.score.tolist())) == len(rows):
        assert np.allclose(np.sort(again[0], axis=0), np.sort(boxes, axis=0)), "the order of windows says nothing"
