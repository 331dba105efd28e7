"""Command line: python -m mim.masking.threshold --data FOLDER ... --output FOLDER."""

import sys

from mim.stages.threshold_command import main

if __name__ == "__main__":
    sys.exit(main())
