"""What the commands of this room have in common."""

import logging
import sys
from collections.abc import Callable

from mim.errors import MimError

logger = logging.getLogger(__name__)


def run_command(work: Callable[[], object]) -> int:
    """Do the work of a command, with its messages and the one line of bad input on standard error.

    Returns:
        The exit status: 0, or 2 for bad input.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        work()
    except MimError as error:
        logger.error("error: %s", error)
        return 2
    return 0
