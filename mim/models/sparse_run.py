"""One forward pass of a traced CNN under one mask."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

from torch import Tensor, fx, nn

from mim.models.sparse import ELEMENTWISE
from mim.models.sparse_cells import VisibleCells
from mim.models.sparse_dense import DenseMask
from mim.models.sparse_stacked import run_stacked, stem


class SparseRun(fx.Interpreter):
    """Interprets the graph of a backbone: on stacked visible cells, on masked feature maps, or as it is.

    With visible cells, a layer's output is stacked as long as a cell is made of whole positions. From where a position
    covers several cells the feature maps are whole, and masked: such a position is visible if one of its cells is.

    Args:
        backbone: the traced model.
        graph: its graph.
        stage_nodes: nodes whose outputs are kept, and the names of their stages.
        mask: of whole feature maps, or None = everything is visible.
        cells: the visible cells, or None = feature maps are whole throughout.
    """

    def __init__(
        self,
        backbone: nn.Module,
        graph: fx.Graph,
        stage_nodes: dict[str, str],
        mask: DenseMask | None = None,
        cells: VisibleCells | None = None,
    ) -> None:
        super().__init__(backbone, graph=graph)
        self.extra_traceback = False  # else the node is written into messages that a user reads
        self.stage_nodes = stage_nodes
        self.stage_outputs: dict[str, Callable[[], Tensor]] = {}
        self.mask = mask
        self.cells = cells
        self._stacked: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node and keeps its output if it is a stage's."""
        if self.mask is None:
            output = super().run_node(n)
        elif n.op == "call_module" and not isinstance(self.fetch_attr(str(n.target)), ELEMENTWISE):
            output = self._layer(n, self.mask)
        else:
            output = super().run_node(n)
            if any(source.name in self._stacked for source in n.all_input_nodes):
                self._stacked.add(n.name)
        if n.name in self.stage_nodes:
            self.stage_outputs[self.stage_nodes[n.name]] = partial(self._whole, n, output)
        return output

    def final(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Runs everything.

        Returns:
            (B, D, h, w) or, of visible cells, (n, D, h, w); and its mean over visible positions, (B, D, 1, 1), None
            where all is visible.
        """
        output = self.run(image)
        if self.mask is None:
            return output, None
        (last,) = next(node for node in self.graph.nodes if node.op == "output").all_input_nodes
        if last.name in self._stacked:
            assert self.cells is not None
            return output, self.cells.mean_by_image(output).to(output.dtype)
        return output, self.mask.mean(output).to(output.dtype)

    def _layer(self, n: fx.Node, mask: DenseMask) -> Tensor:
        module = self.fetch_attr(str(n.target))
        (x,), _ = self.fetch_args_kwargs_from_env(n)
        (source,) = n.all_input_nodes
        cells = self.cells
        if cells is None:
            return mask.run(module, x)
        stacked = source.name in self._stacked
        output = run_stacked(module, x, cells) if stacked else self._first(source, module, x)
        if output is None:
            output = mask.run(module, cells.unstack(x) if stacked else x)
            if any(output.shape[2 + axis] % cells.grid[axis] for axis in range(2)):
                return output
            output = cells.stack(output)
        self._stacked.add(n.name)
        return output

    def _first(self, source: fx.Node, module: nn.Module, x: Tensor) -> Tensor | None:
        assert self.cells is not None
        return stem(module, x, self.cells) if source.op == "placeholder" else None

    def maps(self, stages: list[str]) -> Sequence[Tensor]:
        """Gives the outputs of stages as whole feature maps, hidden cells zero, each made when it is asked for."""
        return Maps([self.stage_outputs[name] for name in stages])

    def _whole(self, n: fx.Node, output: Tensor) -> Tensor:
        if n.name in self._stacked:
            assert self.cells is not None
            return self.cells.unstack(output)
        return output if self.mask is None else self.mask.hide(output)


class Maps(Sequence[Tensor]):
    """Feature maps that are laid out when they are first asked for: few decoders want the finest, which cost most."""

    def __init__(self, makers: list[Callable[[], Tensor]]) -> None:
        self._makers = makers
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """One map, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        place = range(len(self))[index]
        if place not in self._made:
            self._made[place] = self._makers[place]()
        return self._made[place]
