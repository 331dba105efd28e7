"""A masker that learns which films of a study matter, reading them in their order."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from mim.masking.mask import Mask

Cell = Literal["lstm", "gru"]


class SequenceMasker(nn.Module):
    """An LSTM or GRU over the films of a study gives each of them a weight from 0 to 1.

    Its mask is over films, not over cells: every tensor of it is (B, S), one value a film, where the maskers of single
    films give (B, gh, gw). What is absent is taken out before the recurrence and put back after it with weight 0, so
    neither what stands in its place nor how much of it there is can reach any other film: a film that is missing in
    the middle is skipped, and the two beside it become neighbours.

    The weights are soft: the study's feature is their weighted mean, in which only their ratio counts. With `keep` the
    films with the highest weights alone are looked at in evaluation; training stays soft.

    Args:
        width: D, length of a film's features.
        hidden: units of the recurrence in each direction.
        cell: `lstm` or `gru`.
        bidirectional: whether a film's weight may depend on the films after it, too.
        layers: recurrent layers, one above the other.
        keep: films of a study that are kept in evaluation, those with the highest weights; None = all.

    Raises:
        ValueError: a word that is not known, or a number below 1.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 64,
        cell: Cell = "lstm",
        bidirectional: bool = True,
        layers: int = 1,
        keep: int | None = None,
    ) -> None:
        super().__init__()
        if cell not in ("lstm", "gru"):
            raise ValueError(f"cell must be lstm or gru, not {cell!r}")
        for name, value in (("width", width), ("hidden", hidden), ("layers", layers), ("keep", keep)):
            if value is not None and value < 1:
                raise ValueError(f"the sequence masker's {name} must be at least 1, not {value}")
        self.width = width
        self.keep = keep
        self.norm = nn.LayerNorm(width)
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.recurrent = kind(width, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.score = nn.Linear(hidden * (2 if bidirectional else 1), 1)

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Weighs the films of studies.

        Args:
            batch: `features` (B, S, D) of the films in their order, which may hold anything, NaN included, where a film
                is absent; `present` (B, S) bool, False = padding or a film that is missing.

        Returns:
            A mask over films: `gate` (B, S), the weights, exactly 0 where a film is absent or not kept; `visible`
            (B, S) bool, the films that are looked at; `scores` (B, S), log-odds of the weights, -inf where absent.

        Raises:
            ValueError: a study has no film at all, or a tensor has another shape or type.
        """
        features, present = batch["features"], check_present(batch)
        if features.ndim != 3 or features.shape[:2] != present.shape or features.shape[2] != self.width:
            raise ValueError(
                f"features must be (B, S, {self.width}) for present {tuple(present.shape)}, not {tuple(features.shape)}"
            )
        order = present_films(present)  # (B, L)
        together = self.norm(take_films(features, order))
        packed = pack_padded_sequence(together, present.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        answer: PackedSequence = self.recurrent(packed)[0]
        unpacked, _ = pad_packed_sequence(answer, batch_first=True)
        scores = put_back(self.score(unpacked).squeeze(2).float(), order, present)
        odds = scores.masked_fill(~present, -torch.inf)
        visible = present
        if self.keep is not None and not self.training:
            visible = present & highest(odds, self.keep)
        return Mask(visible=visible, gate=torch.sigmoid(scores).masked_fill(~visible, 0), scores=odds)


def check_present(batch: dict[str, Tensor]) -> Tensor:
    """Gives `batch["present"]`, (B, S) bool.

    Raises:
        ValueError: it is missing, of another type or shape, or says of a study that it has no film.
    """
    if "present" not in batch:
        raise ValueError("a batch of studies needs present (B, S): which of its films are there")
    present = batch["present"]
    if present.dtype != torch.bool or present.ndim != 2:
        raise ValueError(f"present must be (B, S) and boolean, not {tuple(present.shape)} of {present.dtype}")
    if not present.shape[1]:
        raise ValueError("the studies of this batch have room for no film (S = 0): leave out studies without films")
    if not bool(present.any(dim=1).all()):
        empty = int((~present.any(dim=1)).nonzero()[0])
        raise ValueError(f"study {empty} of the batch has no film that is present: leave out studies without films")
    return present


def present_films(present: Tensor) -> Tensor:
    """Finds the films that are there, in their order.

    Args:
        present: (B, S) bool.

    Returns:
        (B, L) places in the study, L the most films that a study has; -1 where it has fewer.
    """
    counts = present.sum(dim=1)
    order = (~present).int().argsort(dim=1, stable=True)[:, : int(counts.max())]
    return order.masked_fill(torch.arange(order.shape[1], device=present.device) >= counts[:, None], -1)


def take_films(values: Tensor, order: Tensor) -> Tensor:
    """(B, S, D) by `present_films` to (B, L, D), with zeros where there is no film."""
    taken = values.gather(1, order.clamp(min=0)[..., None].expand(-1, -1, values.shape[2]))
    return taken.masked_fill((order < 0)[..., None], 0)  # 0 * NaN is NaN: only overwriting keeps it out


def put_back(values: Tensor, order: Tensor, present: Tensor) -> Tensor:
    """(B, L), one value for each film of `present_films`, to (B, S), with zeros where a film is absent."""
    placed = values.new_zeros(len(present), present.shape[1] + 1)  # what has no film is written here and cut off
    return placed.scatter(1, order.masked_fill(order < 0, present.shape[1]), values)[:, :-1]


def highest(scores: Tensor, keep: int) -> Tensor:
    """(B, S) bool: so many films with the highest scores, of equal ones the earlier."""
    ranks = scores.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranks, True)
