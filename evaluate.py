"""Measure a run of finetune.py on its test films, or compare two, and write a report."""

import sys

from mim.config import EvaluateConfig, door, parse_door_arguments


def main() -> None:
    """Reads the settings and runs the stage."""
    arguments = parse_door_arguments(
        EvaluateConfig,
        sys.argv[1:],
        program="evaluate.py",
        summary="Measure a run of finetune.py on its test films, or on films that it never saw (--data FOLDER), or "
        "compare two runs on their test films, and write a report.",
        positional=("run", "second_run"),
        options={"--data": "data.path"},
    )
    if arguments is not None:
        from mim.stages.common import start_logging
        from mim.stages.task_kinds import evaluate

        start_logging()
        evaluate(arguments.config)


if __name__ == "__main__":
    sys.exit(door(main))
