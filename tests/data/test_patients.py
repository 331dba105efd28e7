import numpy as np
import pytest
from film_factory import SALT, store_films, write_csv, write_dicom

from mim.data import attach_labels, split_films
from mim.data.duplicates import perceptual_hash
from mim.data.patients import join_patients
from mim.errors import MimError


def test_a_film_without_id_goes_with_the_films_of_the_same_header():
    written = {1: "smith", 2: "", 3: "", 4: ""}
    assert join_patients(written, {1: "h", 2: "h", 3: "other", 4: ""}) == {1: "smith", 2: "smith", 3: "other", 4: ""}


def test_a_film_without_id_between_two_patients_is_refused():
    with pytest.raises(MimError, match="fill in patient_id for all films"):
        join_patients({1: "smith", 2: "jones", 3: ""}, {1: "h", 2: "h", 3: "h"})


def test_a_table_that_names_every_other_patient_splits_nobody(tmp_path):
    films = tmp_path / "films"
    rng = np.random.default_rng(0)
    for number in range(40):
        write_dicom(films / f"{number:02}.dcm", rng.integers(0, 4096, (40, 40)), patient=f"P{number // 2}")
    rows = [(f"{n:02}.dcm", n // 2 % 2, f"RIS-{n // 2}" if n % 2 else "") for n in range(40)]
    write_csv(films / "labels.csv", ("image", "caries", "patient_id"), *rows)
    labelled = attach_labels(store_films(films, tmp_path / "out"), films, "labels.csv", "caries", SALT)
    splits = split_films(labelled, val_fraction=0.2, test_fraction=0.2, seed=0)
    where = {}
    for name in ("train", "val", "test"):
        for film in getattr(splits, name):
            where.setdefault(int(film.image[:2]) // 2, set()).add(name)
    assert len(where) == 20
    assert all(len(names) == 1 for names in where.values())


def test_a_film_without_detail_looks_like_no_other():
    rows = np.repeat(np.linspace(0, 1, 32, dtype=np.float32)[:, None], 32, axis=1)
    assert perceptual_hash(np.full((32, 32), 0.5, dtype=np.float32)) == perceptual_hash(rows) == ""
    assert len(perceptual_hash(np.random.default_rng(0).random((32, 32)).astype(np.float32))) == 64
