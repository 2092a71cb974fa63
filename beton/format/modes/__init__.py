"""Storage modes of images, one file each; base.py says what such a file holds."""

from beton.format.modes.base import Mode
from beton.plugins import Plugins

MODES = Plugins("storage mode", "beton.format.modes", "MODE", others=("base",))


def by_code() -> dict[int, Mode]:
    """All modes by their number."""
    return {mode.code: mode for mode in MODES.all().values()}
