"""The exceptions a user is meant to read, and the exit status of each."""


class MimError(Exception):
    """Bad input: its message is one line that names the file, key or row and the way out.

    The three doors print it without a traceback and exit with status 2.
    """


class Interrupted(Exception):  # noqa: N818  (not an error: the run is whole and can go on)
    """A run was asked to stop (SIGTERM or SIGUSR1) and stopped after saving a checkpoint.

    The three doors print it without a traceback and exit with status 75, which schedulers read as "try again".

    Args:
        step: Steps done when the run stopped; the checkpoint stands there.
        unit: What is counted, where it is not steps.
    """

    def __init__(self, step: int, unit: str = "step") -> None:
        super().__init__(f"stopped at {unit} {step}; start the same command again to go on")
        self.step = step
