"""Radiographs on disk to samples in memory.

What needs torch (`mim.data.augment`, `mim.data.loader`, `mim.data.study_loader`) is imported from its own module, so
that processes which only read films start without it.
"""

from mim.data.cache import dataset_salt, open_or_prepare
from mim.data.labels import LabelledFilm, LabelledFilms, attach_labels
from mim.data.leakage import SeenFilms, check_unseen, excluded_from_pretraining, load_seen, save_seen
from mim.data.manifest import ManifestRow
from mim.data.near_copies import NearCopy, find_near_copies, save_near_copies
from mim.data.privacy import load_salt, salted_hash
from mim.data.radiograph import Radiograph, RadiographMeta, UnreadableRadiograph, read_radiograph
from mim.data.seed import derive_seed
from mim.data.split_file import load_splits, save_splits, split_hash
from mim.data.splits import Splits, count_copies, limit_training, split_films, take_label_fraction
from mim.data.store import PreparedDataset, is_prepared

__all__ = [
    "LabelledFilm",
    "LabelledFilms",
    "ManifestRow",
    "NearCopy",
    "PreparedDataset",
    "Radiograph",
    "RadiographMeta",
    "SeenFilms",
    "Splits",
    "UnreadableRadiograph",
    "attach_labels",
    "check_unseen",
    "count_copies",
    "dataset_salt",
    "derive_seed",
    "excluded_from_pretraining",
    "find_near_copies",
    "is_prepared",
    "limit_training",
    "load_salt",
    "load_seen",
    "load_splits",
    "open_or_prepare",
    "read_radiograph",
    "salted_hash",
    "save_near_copies",
    "save_seen",
    "save_splits",
    "split_films",
    "split_hash",
    "take_label_fraction",
]
