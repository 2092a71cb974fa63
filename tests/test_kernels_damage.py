"""Damaged payloads: the decoders of the kernels, compiled with the sanitizers, against thousands of them."""

import subprocess
from pathlib import Path

import pytest
from test_kernels_jpeg import SAMPLINGS, encode, photos, pillow

TESTS = Path(__file__).parent


def jpegs():
    """Small JPEGs of every kind."""
    for i, sampling in enumerate(SAMPLINGS):
        photo = photos((90 + 13 * i, 150 - 17 * i), i, 15)
        for restart in (0, 1, 4):
            yield encode(photo, sampling, 50 + 15 * restart, optimize=restart == 1, restart=restart)
    photo = photos((80, 100), 9, 10)
    yield encode(photo, progressive=True)
    yield pillow(photo, keep_rgb=True)
    yield encode(photos((1, 1), 9, 10))
    yield encode(photos((40, 40), 9, 120), "444", 100)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz_kernels"
    source = TESTS.parent / "pipelines" / "kernels"
    flags = ["-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files = [TESTS / "fuzz_kernels.cpp", source / "jpeg.cpp", *source.glob("blocks_*.cpp")]
    command = ["g++", *flags, f"-I{source}", *files, "-o", path, "-lturbojpeg"]
    subprocess.run(list(map(str, command)), check=True)
    return path


def test_ten_thousand_damaged_payloads(fuzzer, tmp_path):
    files = []
    for i, payload in enumerate(jpegs()):
        files.append(tmp_path / f"{i}.jpg")
        files[-1].write_bytes(payload)
    done = subprocess.run([fuzzer, "1", "10000", *files], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # The damage is neither too weak nor too strong to reach all parts of the decoders
    good, no_jpeg, other_size, damaged, no_blocks = (
        int(part.split()[-1]) for part in done.stdout.split(" (")[0].split(",")
    )
    assert min(good, damaged) > 1000
    assert min(no_jpeg, other_size, no_blocks) > 10
