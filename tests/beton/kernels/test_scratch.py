"""What the kernels keep for each thread."""

import threading
import weakref

import numpy as np

from beton import kernels
from tests.support.betons import RAW


def test_each_thread_has_a_scratch_of_its_own_until_it_ends():
    pixels, found = np.zeros(3 * 4 * 5, np.uint8), []

    def work():
        kernels.decode(pixels, RAW, 4, 5)
        scratch = kernels._scratch()
        assert scratch is kernels._scratch()
        found.append((scratch.address, weakref.ref(scratch)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    work()
    own = kernels._scratch()
    assert [kept() for _, kept in found] == [None, None, None, own]
