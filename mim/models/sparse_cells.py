"""The visible cells of a batch as a batch of their own, and what each of them fetches from its neighbours."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mim.models.features import places

SPILL = 1024  # rows over which the gradient of positions that do not exist is spread before it is dropped


@dataclass(frozen=True)
class Window:
    """What a convolution or pool reads of a feature map, along rows and columns.

    Attributes:
        kernel: positions that one output reads.
        stride: positions from one output to the next.
        dilation: positions from one that is read to the next.
        before: rows above, columns left of the map that are read as well.
        after: rows below, columns right.
        reflect: whether what lies outside is the map mirrored at its border, not empty.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    reflect: bool = False

    def outputs(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what comes out of a map of `size`."""
        rows, columns = (
            (size[i] + self.before[i] + self.after[i] - reach) // self.stride[i] + 1
            for i, reach in enumerate(self.reach())
        )
        return rows, columns

    def reach(self) -> tuple[int, int]:
        """Height and width of what is read for one output."""
        rows, columns = (self.dilation[i] * (self.kernel[i] - 1) + 1 for i in range(2))
        return rows, columns

    def extent(self, cell: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what is read for one cell of `cell` positions."""
        rows, columns = (cell[i] - self.stride[i] + self.reach()[i] for i in range(2))
        return rows, columns

    def fits(self, cell: tuple[int, int], grid: tuple[int, int]) -> bool:
        """Whether each cell becomes one whole cell of the output, which stands where the cell stood."""
        if any(cell[i] % self.stride[i] for i in range(2)):
            return False
        size = self.outputs((cell[0] * grid[0], cell[1] * grid[1]))
        return size == (grid[0] * cell[0] // self.stride[0], grid[1] * cell[1] // self.stride[1])

    def stays_inside(self, cell: tuple[int, int]) -> bool:
        """Whether nothing outside the cell is read."""
        return self.before == (0, 0) and all(self.extent(cell)[i] <= cell[i] for i in range(2))

    def keeps_all(self) -> bool:
        """Whether one position is read for each output, and none is passed over."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any((*self.before, *self.after))


@dataclass(frozen=True)
class Table:
    """Rows to fetch.

    Attributes:
        rows: (T,) of what is fetched from; `count` = a hidden position, `count + 1` = one outside the image.
        order: (T,) the entries of `rows` by the row that they fetch, None where no gradient is wanted.
        starts: (count + SPILL,) where in `order` the entries of each row start.
        count: rows that there are.
    """

    rows: Tensor
    order: Tensor | None
    starts: Tensor | None
    count: int


class Fetch(torch.autograd.Function):
    """Fetches rows by a table; the gradient is summed by the inverse of the table, not scattered."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, table: Table, outside: float) -> Tensor:
        """(count, C) -> (T, C); hidden positions are zero, those outside the image `outside`."""
        ctx.table = table
        empty = source.new_zeros(2, source.shape[1])
        empty[1] = outside
        return torch.cat([source, empty]).index_select(0, table.rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(T, C) -> (count, C)."""
        table: Table = ctx.table
        assert table.order is not None
        summed = F.embedding_bag(table.order, grads[0].contiguous(), table.starts, mode="sum")
        return summed[: table.count], None, None


class VisibleCells:
    """Where the visible cells of one batch are, and tables of what they fetch, each made once.

    A feature map is held as (n, C, h, w): n visible cells, image by image, in channels-last memory, each of h x w
    positions. With the number of visible cells of an image given, nothing waits for the device.

    Args:
        visible: (B, gh, gw) bool.
        count: visible cells of every image, where they are equally many and that is known.
        gradients: whether gradients will be wanted of what is fetched.
    """

    def __init__(self, visible: Tensor, count: int | None = None, gradients: bool = True) -> None:
        self.batch = visible.shape[0]
        self.grid = (visible.shape[1], visible.shape[2])
        self.gradients = gradients
        self.even = count is not None
        cells = self.grid[0] * self.grid[1]
        device = visible.device
        if count is not None:
            index, _ = places(visible.flatten(1), count)  # (B, count)
            first = torch.arange(self.batch, device=device)[:, None] * cells
            self.place = (index + first).flatten()
        else:
            self.place = visible.flatten().nonzero()[:, 0]
        self.number = len(self.place)
        self.image = self.place // cells  # (n,)
        self.spot = self.place % cells  # (n,) on the grid
        # (B * (gh * gw + 1),) the cell's number among the visible ones; the last of each image lies outside of it
        numbers = torch.full((self.batch, cells + 1), self.number, dtype=torch.int64, device=device)
        numbers[self.image, self.spot] = torch.arange(self.number, device=device)
        self._numbers = numbers.flatten()
        self._tables: dict[tuple[Window, tuple[int, int], bool], Table] = {}
        self._windows: dict[tuple[Window, tuple[int, int]], Tensor] = {}

    def counts(self) -> Tensor:
        """Visible cells of each image, (B, 1) float, at least 1."""
        if self.even:
            return torch.full((self.batch, 1), self.number / self.batch, device=self.image.device)
        ones = torch.ones(self.number, device=self.image.device)
        return torch.zeros(self.batch, device=self.image.device).index_add(0, self.image, ones)[:, None].clamp(min=1)

    def sum_by_image(self, x: Tensor) -> Tensor:
        """(n, C) -> (B, C)."""
        if self.even:
            return x.view(self.batch, -1, x.shape[1]).sum(1)
        return x.new_zeros(self.batch, x.shape[1]).index_add(0, self.image, x)

    def of_image(self, x: Tensor) -> Tensor:
        """(B, ...) -> (n, ...), to each cell what belongs to its image."""
        if self.even:
            return x[:, None].expand(-1, self.number // self.batch, *x.shape[1:]).flatten(0, 1)
        return x.index_select(0, self.image)

    def mean_by_image(self, x: Tensor) -> Tensor:
        """Mean over the visible positions of each image: (n, C, h, w) -> (B, C, 1, 1), at least float32."""
        means = self.sum_by_image(wide(x).mean((2, 3))) / self.counts()
        return means[..., None, None]

    def stack(self, dense: Tensor) -> Tensor:
        """Takes the visible cells of (B, C, H, W), whatever stands elsewhere: (n, C, h, w)."""
        return self.stack_windows(dense, Window((1, 1)))

    def stack_windows(self, dense: Tensor, window: Window) -> Tensor:
        """Takes of (B, C, H, W), zero where hidden, what a layer reads for each visible cell: (n, C, rows, columns)."""
        cell = (dense.shape[2] // self.grid[0], dense.shape[3] // self.grid[1])
        rows, columns = window.extent(cell)
        (top, left), (bottom, right) = window.before, window.after
        spare = (max(rows - cell[0] - top, bottom), max(columns - cell[1] - left, right))
        padded = F.pad(dense, (left, spare[1], top, spare[0])) if any((top, left, *spare)) else dense
        strips = padded.unfold(2, rows, cell[0]).unfold(3, columns, cell[1])  # (B, C, gh, gw, rows, columns)
        taken = strips[self.image, :, self.spot // self.grid[1], self.spot % self.grid[1]]
        return taken.contiguous(memory_format=torch.channels_last)

    def unstack(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (B, C, H, W), zero where hidden."""
        _, channels, h, w = x.shape
        cells = x.new_zeros(self.batch * self.grid[0] * self.grid[1], h, w, channels)
        cells = cells.index_copy(0, self.place, x.permute(0, 2, 3, 1))
        cells = cells.view(self.batch, *self.grid, h, w, channels).transpose(2, 3)  # (B, gh, h, gw, w, C)
        return cells.reshape(self.batch, self.grid[0] * h, self.grid[1] * w, channels).permute(0, 3, 1, 2)

    def fetch(self, x: Tensor, window: Window, outside: float = 0.0) -> Tensor:
        """Fetches what a layer reads for each cell: (n, C, h, w) -> (n, C, rows, columns).

        Hidden positions are zero, those outside the image `outside`.
        """
        cell = (x.shape[2], x.shape[3])
        rows, columns = window.extent(cell)
        fetched = Fetch.apply(rows_of(x), self._table(window, cell, taps=False), outside)
        return fetched.view(self.number, rows, columns, x.shape[1]).permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def fetch_taps(self, x: Tensor, window: Window) -> Tensor:
        """Fetches what a layer reads for each output: (n, C, h, w) -> (outputs, kernel positions * C)."""
        table = self._table(window, (x.shape[2], x.shape[3]), taps=True)
        taps = window.kernel[0] * window.kernel[1]
        return Fetch.apply(rows_of(x), table, 0.0).view(-1, taps * x.shape[1])  # type: ignore[no-any-return]

    def _table(self, window: Window, cell: tuple[int, int], taps: bool) -> Table:
        key = (window, cell, taps)
        if key not in self._tables:
            rows = self._window(window, cell)  # (n, rows, columns)
            if taps:
                for axis in (0, 1):
                    rows = rows.unfold(axis + 1, window.reach()[axis], window.stride[axis])
                rows = rows[..., :: window.dilation[0], :: window.dilation[1]]  # (n, h', w', kernel, kernel)
            self._tables[key] = self._with_inverse(rows.reshape(-1), self.number * cell[0] * cell[1])
        return self._tables[key]

    def _with_inverse(self, rows: Tensor, count: int) -> Table:
        if not self.gradients:
            return Table(rows, None, None, count)
        spill = torch.arange(len(rows), device=rows.device, dtype=rows.dtype) % SPILL
        keys, order = torch.where(rows < count, rows, count + spill).sort(stable=True)
        bags = torch.arange(count + SPILL, device=rows.device, dtype=rows.dtype)
        return Table(rows, order, torch.searchsorted(keys, bags), count)

    def _window(self, window: Window, cell: tuple[int, int]) -> Tensor:
        """Row of each position that is read, as in a `Table`: (n, rows, columns)."""
        key = (window, cell)
        if key not in self._windows:
            spots, local = self._neighbours(window, cell)
            cells = self.grid[0] * self.grid[1]
            numbers = self._numbers[self.image[:, None] * (cells + 1) + spots[self.spot]]  # (n, rows * columns)
            area = cell[0] * cell[1]
            table = (numbers * area + local[self.spot]).clamp(max=self.number * area)
            table = table + (spots == cells)[self.spot]
            self._windows[key] = table.view(self.number, *window.extent(cell))
        return self._windows[key]

    def _neighbours(self, window: Window, cell: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Where each position lies that a cell at each spot of the grid reads.

        Returns:
            The spot it lies in, gh * gw = outside the image, and its place in that cell: (gh * gw, extent) each.
        """
        device = self.place.device
        spots, locals_, inside = [], [], []
        for axis in (0, 1):
            side, cells = cell[axis], self.grid[axis]
            at = torch.arange(window.extent(cell)[axis], device=device) - window.before[axis]
            at = at + torch.arange(cells, device=device)[:, None] * side  # (cells, extent)
            if window.reflect:
                last = cells * side - 1
                at = last - (last - at.abs()).abs()
            spots.append(at.div(side, rounding_mode="floor"))
            locals_.append(at.remainder(side))
            inside.append((at >= 0) & (at < cells * side))
        (sr, sc), (lr, lc), (ir, ic) = spots, locals_, inside
        spot = sr[:, None, :, None] * self.grid[1] + sc[None, :, None, :]  # (gh, gw, rows, columns)
        spot = torch.where(ir[:, None, :, None] & ic[None, :, None, :], spot, self.grid[0] * self.grid[1])
        local = (lr[:, None, :, None] * cell[1] + lc[None, :, None, :]).expand_as(spot)
        return spot.flatten(2).flatten(0, 1), local.flatten(2).flatten(0, 1)


def rows_of(x: Tensor) -> Tensor:
    """(n, C, h, w) -> (n * h * w, C), a view where memory is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def wide(x: Tensor) -> Tensor:
    """The same in float32, or in more if it is: sums of many values lose too much in 16 bits."""
    return x if x.dtype == torch.float64 else x.float()
