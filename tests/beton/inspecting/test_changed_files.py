"""`check` on a file that is not the one of its card although its samples are good."""

import numpy as np

from beton.inspecting.commands import main
from tests.support.betons import tables, write_beton
from tests.support.photos import draw_photos


def test_bytes_beside_the_samples_that_have_changed_are_reported(tmp_path, capsys):
    path = write_beton(tmp_path / "a.beton", draw_photos(6, 20, 30))
    assert main(["check", str(path)]) == 0
    metadata, table, header = tables(path)
    first = int(metadata["f0"]["data_ptr"].min())
    np.memmap(path, np.uint8, "r+", first - 1, 1)[0] ^= 1  # between the tables and the first sample
    capsys.readouterr()
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "all 6 samples are good" in said
    assert "the file is not the one of its card" in said
