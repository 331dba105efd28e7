"""Pretrain an encoder on unlabelled films: hide patches, rebuild them."""

import sys

from mim.config import PretrainConfig, door, parse_door_arguments


def main() -> None:
    """Reads the settings and runs the stage."""
    arguments = parse_door_arguments(
        PretrainConfig,
        sys.argv[1:],
        program="train.py",
        summary="Pretrain an encoder on unlabelled films: hide patches, rebuild them.",
    )
    if arguments is not None:
        from mim.stages.common import start_logging
        from mim.stages.pretrain import pretrain

        start_logging()
        pretrain(arguments.config)


if __name__ == "__main__":
    sys.exit(door(main))
