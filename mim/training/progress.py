"""What a person sees of a run while it runs."""

import sys
from types import TracebackType
from typing import Self, TextIO, cast

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A bar on standard error, or a plain line now and then where that is not a terminal.

    Args:
        total_steps: steps of the whole run.
        step: steps already done.
        shown: false on all ranks but the first.
    """

    def __init__(self, total_steps: int, step: int, *, shown: bool) -> None:
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            disable=not shown,
            file=sys.stderr if terminal else cast(TextIO, _Lines(sys.stderr)),
            mininterval=0.1 if terminal else SECONDS_BETWEEN_LINES,
            dynamic_ncols=terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, loss: float, images_per_second: float, data_wait: float) -> None:
        """Shows that a step is done.

        Args:
            loss: its loss.
            images_per_second: images that all ranks took in a second of it.
            data_wait: share of it in which the loop waited for batches.
        """
        figures = f"loss {loss:.4f}, {images_per_second:.0f} images/s, {data_wait:.0%} waiting for data"
        self._bar.set_postfix_str(figures, refresh=False)
        self._bar.update()


class _Lines:
    """Turns a bar that is drawn over and over into lines one below the other."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip("\r\n") + "\n")

    def flush(self) -> None:
        self._stream.flush()
