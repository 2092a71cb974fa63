"""What is said twice, in Python and in C++: codes, filters, storage modes and signatures agree."""

import ctypes
import re
from pathlib import Path

import pytest

from beton import kernels
from beton.format.modes import MODES
from beton.stages import filters

SOURCES = {path.name: path.read_text() for path in Path(kernels.__file__).parent.glob("*.[ch]*")}
CPP = "\n".join(SOURCES.values())
CTYPES = {
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "void": None,
    "pointer": ctypes.c_void_p,
}


def enum(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name}\b[^{{]*{{([^}}]*)}}", CPP)[1]
    return {word: int(number) for word, number in re.findall(r"(\w+) = (\d+)", body)}


def kind(declaration: str) -> str:
    """The type of a parameter or of a result."""
    return "pointer" if "*" in declaration else declaration.replace("const ", "").split()[0]


def signature(name: str) -> tuple[str, list[str]]:
    found = re.search(rf"EXPORTED ([\w ]+\*?) ?{name}\(([^)]*)\)", CPP)
    return kind(found[1]), [kind(parameter) for parameter in found[2].split(",") if parameter.strip()]


def test_codes():
    codes = enum("Code")
    assert codes.pop("GOOD") == 0
    assert set(codes.values()) == set(kernels.CODES)
    assert codes["DECODE_WHOLE"] == kernels.DECODE_WHOLE
    assert kernels.CODES[codes["NO_JPEG"]] == "it is not a JPEG"
    assert kernels.CODES[codes["DAMAGED"]] == "it is damaged"


def test_filters():
    assert enum("Filter") == {name: getattr(filters, name) for name in ("BILINEAR", "BICUBIC", "AREA")}


def test_storage_modes():
    registered = {name: int(code) for name, code in re.findall(r"const Register (\w+)\((\d+), ", CPP)}
    codes = {name: MODES.get(name).code for name in MODES.names()}
    assert sorted(registered.values()) == sorted(codes.values())
    for name in registered.keys() & codes.keys():
        assert registered[name] == codes[name]


@pytest.mark.parametrize("name", kernels.SIGNATURES)
def test_signatures_for_ctypes(name):
    result, arguments = signature(name)
    found, types_found = kernels.SIGNATURES[name]
    expected = [CTYPES[kind] for kind in arguments]
    assert found == CTYPES[result]
    assert [ctypes.c_void_p if t == ctypes.c_char_p else t for t in types_found] == expected


def test_every_function_is_known():
    assert set(re.findall(r"^EXPORTED .*?(\w+)\(", CPP, re.M)) == set(kernels.SIGNATURES)
