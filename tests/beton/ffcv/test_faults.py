"""Rows of the table of faults (tests/support/faults) again, by FFCV's own names: the scenario of the stock side, word for
word, with beton.ffcv behind `import ffcv`. Stock fails each of them (tests/faults, --slow)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from beton.errors import UserError
from tests.support.faults import HEALTHY, named
from tests.support.faults.apart import play_apart
from tests.support.faults.table import Outcome
from tests.support.loaders import within

pytest.importorskip("beton.ffcv")

# The words of each row's error: None, those of the table; none, the right result
ROWS = {
    "exception_in_the_source": ("sample 3", "KeyError"),
    "photo_truncated": ("sample 3",),
    "float_pixels": ("sample 3", "float32"),
    "long_photo": ("sample 3", "65535"),
    "photo_larger_than_a_page": None,
    "label_of_no_class": ("sample 3", "1.5"),
    "no_photos": None,
    "disk_full": None,
    "same_seed": None,
    "process_killed": None,
    "ctrl_c": None,
    "sigterm": None,
    "killed_over_an_older_file": None,
    "truncated_in_the_photos": None,
    "other_version": None,
    "table_address_zero": None,
    "metadata_zero": None,
    "address_beyond_the_file": None,
    "jpeg_zero": None,
    "jpeg_half": None,
    "truncated_while_read": None,
    "index_out_of_range": ("1000000", "out of range"),
    "more_workers_than_cores": None,
    "torch_threads": None,
    "all_batches_kept": None,
    "batch_before": None,
    "epoch_left": None,
    "failing_stage": ("ZeroDivisionError", "a.beton"),
    "same_seeds": None,
    "quasi_random_ranks": None,
    "same_pipeline_twice": None,
    "normalize_in_a_wrong_place": (),
    "scale_changed": None,
    "batch_of_one": None,
    "wide_and_tall": None,
    "no_distutils": None,
}


def test_nothing_is_wrong_where_there_is_no_fault(tmp_path):
    assert play_apart(HEALTHY, "dropin", tmp_path) == Outcome("right")


@pytest.mark.parametrize("name", ROWS)
def test_a_row(name, tmp_path):
    fault = named(name)
    if ROWS[name] is not None:
        fault = replace(fault, words=ROWS[name])
    outcome = play_apart(fault, "dropin", tmp_path)
    assert fault.passes(outcome), outcome
