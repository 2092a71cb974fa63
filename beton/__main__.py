"""python -m beton check|info|preview|compare|export|merge|split|fetch FILE ..."""

import sys

from beton.errors import UserError
from beton.inspecting.commands import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
