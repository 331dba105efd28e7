"""Studies to batches: the films of each in their order, filled up to the longest study of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from mim.data.annotations import Lesion
from mim.data.augment import FilmTransform
from mim.data.collate import pad
from mim.data.loader import Batched, Place, film_sample, to_float
from mim.data.seed import derive_seed
from mim.data.store import PreparedDataset
from mim.data.studies import ABSENT, Study

_PADDING: Mapping[str, float] = {"image": 0, "lesion": False, "present": False, "film_label": ABSENT, "film": ABSENT}


class StudyDataset(Batched):
    """Studies of a prepared dataset, as samples.

    Args:
        films: The prepared dataset.
        studies: Which studies, in the order in which `index` below counts them.
        transform: From stored film to pixels; what is random is drawn for each film of a study apart.
        seed: Of all that is random.
        integers: Whether images stay whole numbers as they are stored, for `to_float` to turn into floats.
        lesions: What is annotated on films, by their number in `films` (`Annotations.lesions`); None = not known.
        features: (N, F) float32, what else is known of each study, NaN where it is not (`mim.data.clinical`).

    Raises:
        ValueError: A study has no film, or there are not as many rows of features as studies.
    """

    def __init__(
        self,
        films: PreparedDataset,
        studies: Sequence[Study],
        transform: FilmTransform,
        seed: int,
        *,
        integers: bool = False,
        lesions: Mapping[int, Sequence[Lesion]] | None = None,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        if features is not None and len(features) != len(studies):
            raise ValueError(f"{len(features)} rows of features for {len(studies)} studies")
        if not all(any(film != ABSENT for film in study.films) for study in studies):
            raise ValueError("a study without films")
        self.films = films
        self.studies = tuple(studies)
        self._transform = transform
        self._seed = seed
        self._integers = integers
        self._lesions = lesions
        self._features = features

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return a sample.

        Args:
            place: The epoch, which decides what is random, and the number of the study in `studies`.

        Returns:
            `image`, float32 (S, 1, H, W) in [0, 1], or with `integers` uint8 or uint16, black where a film is absent;
            `present`, bool (S,); `label`; `film_label`, int64 (S,), the films' own classes, -1 where they are not
            known; `film`, int64 (S,), numbers of the films in the dataset, -1 where one is absent; `index`, the number
            of the study; `lesion`, bool (S, 1, H, W), where lesions are given; `features`, float32 (F,), where they
            are given.
        """
        epoch, index = place
        study = self.studies[index]
        height, width = self._transform.image_size
        kind = torch.uint8 if self.films.bits == 8 else torch.uint16
        image = torch.zeros((len(study.films), 1, height, width), dtype=kind)
        lesion = torch.zeros(image.shape, dtype=torch.bool)
        for number, film in enumerate(study.films):
            if film != ABSENT:
                seed = derive_seed(self._seed, "augment", epoch, index, number)
                sample = film_sample(self.films, film, self._transform, seed, self._lesions)
                image[number] = sample["image"]
                if "lesion" in sample:
                    lesion[number] = sample["lesion"]
        film_numbers = torch.tensor(study.films, dtype=torch.int64)
        whole: dict[str, Any] = {
            "image": image if self._integers else to_float(image),
            "present": film_numbers != ABSENT,
            "label": study.label,
            "film_label": torch.tensor(study.film_labels, dtype=torch.int64),
            "film": film_numbers,
            "index": index,
        }
        if self._lesions is not None:
            whole["lesion"] = lesion
        if self._features is not None:
            whole["features"] = torch.from_numpy(self._features[index].copy())
        return whole

    @staticmethod
    def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of studies, filled up to the longest: padding is black, and `present` is False there.

        Args:
            samples: B of them.

        Returns:
            The entries of a sample with one more dimension in front: `image` (B, S, 1, H, W), `present` (B, S), and
            so on; S is that of the longest study.
        """
        equal = [{key: value for key, value in sample.items() if key not in _PADDING} for sample in samples]
        batch: dict[str, Any] = default_collate(equal)
        for key, value in _PADDING.items():
            if key in samples[0]:
                batch[key] = pad([sample[key] for sample in samples], value)
        return batch
