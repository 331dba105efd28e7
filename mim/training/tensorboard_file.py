"""TensorBoard's event file, written in the thread that has the figures and named after no machine."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAME = "events.out.tfevents"  # TensorBoard looks for the last word


class EventFile:
    """Writes scalars for TensorBoard.

    `torch.utils.tensorboard` writes from a thread of its own, whose errors nobody can catch, and puts the host's name
    into the file's.

    Args:
        folder: where the file goes; it is made.
        step: the step the run goes on from; what was written of later ones goes.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{_NAME}.{step:010d}.mim"
        for later in folder.glob(f"{_NAME}.*.mim"):
            if later.name >= self.path.name:
                later.unlink()
        self._file = self.path.open("wb")
        self._records: Any = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        if step:
            self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds figures of a step.

        Raises:
            OSError: they cannot be written.
        """
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._add(step=step, summary=self._summary(value=values))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
        self._file.flush()
