"""Several doors, one after the other, in the processes that torchrun started: `[["train", "key=value"], ...]`."""

import json
import sys

from door_calls import call


def main() -> None:
    for name, *arguments in json.loads(sys.argv[1]):
        said = call(name, *arguments)
        sys.stderr.write(said.err)
        if said.status:
            sys.exit(said.status)


if __name__ == "__main__":
    main()
