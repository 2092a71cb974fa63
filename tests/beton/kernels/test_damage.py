"""Damaged payloads: the decoders of the kernels, compiled with the sanitizers, against thousands of them."""

import subprocess

import pytest

from tests.support.jpegs import SAMPLINGS, encode, noisy, pillow
from tests.support.kernels import compiled


def jpegs():
    """Small JPEGs of every kind."""
    for i, sampling in enumerate(SAMPLINGS):
        photo = noisy((90 + 13 * i, 150 - 17 * i), i, 15)
        for restart in (0, 1, 4):
            yield encode(photo, sampling, 50 + 15 * restart, optimize=restart == 1, restart=restart)
    photo = noisy((80, 100), 9, 10)
    yield encode(photo, progressive=True)
    yield pillow(photo, keep_rgb=True)
    yield encode(noisy((1, 1), 9, 10))
    yield encode(noisy((40, 40), 9, 120), "444", 100)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz_kernels"
    flags = ["-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(compiled(path, "fuzz.cpp", flags), check=True)
    return path


def test_ten_thousand_damaged_payloads(fuzzer, tmp_path):
    files = []
    for i, payload in enumerate(jpegs()):
        files.append(tmp_path / f"{i}.jpg")
        files[-1].write_bytes(payload)
    done = subprocess.run([fuzzer, "1", "10000", *files], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # The damage is neither too weak nor too strong to reach all parts of the decoders
    good, no_jpeg, other_size, damaged, no_blocks, whole = (
        int(part.split()[-1]) for part in done.stdout.split(" (")[0].split(",")
    )
    assert min(good, damaged) > 1000
    assert min(no_jpeg, other_size, no_blocks, whole) > 10
