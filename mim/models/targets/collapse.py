"""Noticing that latent targets have become the same everywhere."""

import math

import torch
from torch import Tensor, nn

from mim.errors import MimError

EVERY = 10  # steps from one measurement to the next
PATIENCE = 10  # measurements in a row that must be low
SHARE = 0.2  # of what it was at the start, below which a measure is low
ROWS = 256  # cells that are looked at


class CollapseGuard(nn.Module):
    """Measures how much the targets of different cells differ, and stops a run in which they no longer do.

    Two measures, of `ROWS` cells spread over the batch: the deviation of each dimension over the cells, averaged over
    the dimensions, and the effective rank (`effective_rank`), of which 1 is the least. Either is low when it is below
    a share of what it was at the first step, the rank less 1. A teacher and a student that agree on one vector for all
    cells have a loss of 0 and both measures at their least, and nothing leads them away again.

    All ranks judge the mean over the ranks, and so stop together. What is counted is part of the state, so that a run
    that goes on judges as one that was never stopped.

    Args:
        every: steps from one measurement to the next.
        patience: measurements in a row that must be low.
        share: of the start, below which a measure is low.
    """

    now: Tensor
    start: Tensor

    def __init__(self, every: int = EVERY, patience: int = PATIENCE, share: float = SHARE) -> None:
        super().__init__()
        self.every = every
        self.patience = patience
        self.share = share
        self.steps = 0
        self.low = 0
        self.due = True  # not asked of the count: a compiled forward would be compiled anew for every number
        self.register_buffer("now", torch.zeros(2))  # deviation, effective rank
        self.register_buffer("start", torch.zeros(2))

    def watch(self, targets: Tensor) -> None:
        """Measures targets (B, N, D) if it is time."""
        if self.due:
            self.now.copy_(torch.stack([deviation(targets), effective_rank(targets)]))

    def after_step(self) -> None:
        """Counts a step, and judges what was measured in it.

        Raises:
            MimError: the targets have been nearly the same everywhere for too long.
        """
        if self.due:
            self._judge()
        self.steps += 1
        self.due = self.steps % self.every == 0

    def _judge(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.now)
            self.now /= torch.distributed.get_world_size()
        if self.steps == 0:
            self.start.copy_(self.now)
        (spread, rank), (spread_then, rank_then) = self.now.tolist(), self.start.tolist()
        is_low = spread < self.share * spread_then or rank - 1 < self.share * (rank_then - 1)
        self.low = self.low + 1 if is_low else 0
        if self.low >= self.patience:
            raise MimError(
                f"target.latent: the teacher's targets collapsed: they differ by {spread:.2g} from cell to cell "
                f"({spread_then:.2g} at the start) with an effective rank of {rank:.1f} ({rank_then:.1f}); raise "
                "target.teacher_decay, lower optimizer.lr, or give target.pixels a weight beside target.latent"
            )

    def get_extra_state(self) -> Tensor:
        """The counts."""
        return torch.tensor([self.steps, self.low])

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over the counts."""
        self.steps, self.low = (int(count) for count in state)
        self.due = self.steps % self.every == 0


def deviation(vectors: Tensor) -> Tensor:
    """Deviation of each dimension over all vectors (B, N, D), averaged over the dimensions; a scalar."""
    return _rows(vectors).std(dim=0).mean().float()


def effective_rank(vectors: Tensor) -> Tensor:
    """RankMe (Garrido et al., ICML 2023): exp of the entropy of the singular values of the vectors (B, N, D).

    Returns:
        A scalar from 1, all vectors being multiples of one, to the smaller of D and the number of vectors looked at.
    """
    rows = _rows(vectors)
    with torch.autocast(rows.device.type, enabled=False):
        gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
        singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
    return torch.exp(torch.special.entr(share).sum()).float()


def _rows(vectors: Tensor) -> Tensor:
    """At most `ROWS` of the vectors (B, N, D), spread evenly over them, in float64: squares keep their digits."""
    flat = vectors.detach().flatten(0, 1)
    # what is not finite is the loop's to report; here it must only not stop the algebra
    return torch.nan_to_num(flat[:: math.ceil(len(flat) / ROWS)].double())
