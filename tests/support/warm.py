"""Imported by the server that processes are forked from: what each of them would import and load first is behind them.

Nothing of it computes a gradient: torch refuses to do so in a process that is forked from one that has.
"""

import tempfile
from pathlib import Path

import numpy as np

import beton
from beton.rng import sample_keys

sample_keys(0, 0, np.arange(2))
with tempfile.TemporaryDirectory() as _folder:
    _path = Path(_folder) / "warm.beton"
    beton.write([(np.zeros((40, 48, 3), np.uint8), i) for i in range(4)], _path, workers=1, write_mode="jpg")
    for _stages in ("rrc(32)|flip|normalize", "center(32)|normalize"):
        with beton.Loader(_path, 2, image=_stages, workers=1) as _loader:
            list(_loader)
