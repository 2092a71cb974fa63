"""python -m beton.ffcv script.py [arguments]: a script that was written for FFCV, on this engine."""

import sys

from beton.errors import UserError
from beton.ffcv import launch

if __name__ == "__main__":
    try:
        launch.check(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    launch.run(sys.argv[1:])  # its exceptions are shown as Python shows those of the script
