"""Which objects URLs and patterns stand for, and where each lies in the folder that they are fetched into."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from beton.errors import UserError
from beton.format.parts import is_url, paths_of

# Names in the queries of signed URLs: of S3 and CloudFront, of Google's storage, of Azure's, in this order
_SIGNING = re.compile(
    "x-amz-.*|awsaccesskeyid|signature|expires|policy|key-pair-id|x-goog-.*|googleaccessid"
    "|sig|s[eptvr]|spr|sip|sk(oid|tid|t|e|s|v)",
    re.IGNORECASE,
)


def items_of(text: str, listed: Callable[[str], list[str]]) -> list[str]:
    """The URLs, and the paths of local files, that a text of either with commas stands for.

    `listed` gives the objects that fit a URL with a pattern. Raises UserError for a pattern that nothing fits.
    """
    found = []
    for item in text.split(","):
        if not is_url(item):
            found += paths_of(item)
        elif not has_pattern(item):
            found.append(item)
        else:
            names = sorted(name for name in listed(item) if not name.endswith(".json"))
            if not names:
                raise UserError(f"there is no object {item}", "check the URL: a pattern needs quotes in a shell")
            found += names
    return found


def has_pattern(url: str) -> bool:
    """Whether a URL is a pattern. What follows a `?` of a web address is its query."""
    return re.search(r"[*[]" if url.startswith(("http://", "https://")) else r"[*?[]", url) is not None


def place_of(url: str, cache: str | Path) -> Path:
    """Where the file of a URL lies in `cache`: under its own name, in a folder for the URL's folder."""
    parts = urlsplit(url)
    name = os.path.basename(unquote(parts.path)) or "file"
    above = url.split("?")[0].rpartition("/")[0]
    if query := _unsigned(parts.query):  # which may be what tells two files apart
        above += f"?{query}"
    bucket = re.sub(r"[^A-Za-z0-9.-]", "_", parts.hostname or "") or parts.scheme
    return Path(cache) / f"{bucket}-{hashlib.sha256(above.encode()).hexdigest()[:10]}" / name


def _unsigned(query: str) -> str:
    """A query without what signs it, which is another one each time that it is signed."""
    return "&".join(word for word in query.split("&") if not _SIGNING.fullmatch(word.partition("=")[0]))


def card_url(url: str) -> str | None:
    """The URL of a file's card; None for a URL with a query, which may be signed for that file alone."""
    return None if "?" in url else f"{url}.json"
