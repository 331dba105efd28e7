"""Fine-tune a classifier behind an input masker on labelled films."""

import sys

from mim.config import FinetuneConfig, door, parse_door_arguments


def main() -> None:
    """Reads the settings and runs the stage."""
    arguments = parse_door_arguments(
        FinetuneConfig,
        sys.argv[1:],
        program="finetune.py",
        summary="Fine-tune a classifier behind an input masker on labelled films.",
    )
    if arguments is not None:
        from mim.stages.common import start_logging
        from mim.stages.task_kinds import finetune

        start_logging()
        finetune(arguments.config)


if __name__ == "__main__":
    sys.exit(door(main))
