"""python -m beton.ffcv SCRIPT ... | -m MODULE ...: run it, with `import ffcv` meaning beton.ffcv; in its child
processes too."""

import os
import runpy
import sys

from beton.ffcv import alias

_USAGE = "error: nothing to run; python -m beton.ffcv SCRIPT.py ..., or python -m beton.ffcv -m MODULE ..."


def main(arguments: list[str]) -> int:
    """Run what the arguments name, as `python` would."""
    is_module = arguments[:1] == ["-m"]
    arguments = arguments[is_module:]
    if not arguments or arguments[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        return 2
    what, sys.argv = arguments[0], arguments
    if not is_module and not os.path.exists(what):
        print(f"error: there is no file {what}; give the path of a script, or -m and a module", file=sys.stderr)
        return 2
    alias.install()
    if is_module:
        alias.install_for_children()
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return 0
    sys.path[0] = os.path.dirname(os.path.abspath(what))  # where Python looks first for what a script imports
    alias.install_for_children()
    runpy.run_path(what, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
