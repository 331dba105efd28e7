"""What of the table of labels divides films of several classes, of grades, and of several labels."""

import numpy as np
import pytest

from mim.data import LabelledFilm
from mim.data.groups import Groups
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import LabelKind
from mim.stages.groups import with_label_groups

WRITTEN = ("0", "E1", "D1", "D2")
LABELS = {
    "classes": [0, 1, 2, 1],
    "ordered": [0, 1, 2, 2],
    "several": [[0, 0, -1], [1, 0, 0], [0, 1, -1], [-1, -1, 1]],
}


@pytest.mark.parametrize(("kind", "first"), [("classes", "0"), ("ordered", ""), ("several", "")])
def test_what_has_nothing_has_no_severity(kind: LabelKind, first: str) -> None:
    films = [LabelledFilm(n, f"film{n}", f"{n}.png", 0, f"p{n}", "", "", "test", n, "") for n in range(4)]
    score = np.full((4, 3), 1 / 3)
    named = ([film.image_id for film in films], [film.patient_id for film in films], ["test"] * 4)
    table = LabelPredictions(("a", "b", "c"), kind, *named, np.array(LABELS[kind]), score, np.ones(4))
    groups = Groups({"severity": dict(enumerate(WRITTEN)), "site": dict.fromkeys(range(4), "site 1")}, None)
    found = with_label_groups(table, groups, films)
    assert found.columns == {"severity": (first, *WRITTEN[1:])}, "a site that all share divides nothing"
