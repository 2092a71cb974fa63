"""Cards that cannot be read are user errors."""

import os

import pytest

from beton.errors import UserError
from beton.format.card import card_path, read_card


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe\x00", b'"text"'])
def test_damaged_card_is_a_user_error(tmp_path, content):
    (tmp_path / "a.beton.json").write_bytes(content)
    with pytest.raises(UserError, match="a.beton.json"):
        read_card(card_path(tmp_path / "a.beton"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda card: card.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda card: card.symlink_to("/proc/self/mem"), "^cannot read .*Input/output error"),
    ],
    ids=["folder", "pipe", "unreadable"],
)
def test_card_that_cannot_be_read_is_a_user_error(tmp_path, make, words):
    make(tmp_path / "a.beton.json")
    with pytest.raises(UserError, match=words) as caught:
        read_card(card_path(tmp_path / "a.beton"))
    assert "a.beton.json" in str(caught.value)
