"""What DatasetWriter.from_webdataset writes: tars of WebDataset, and a pipeline of WebDataset's over their samples."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from types import ModuleType
from typing import Any

from beton.errors import UserError
from beton.sources import _tars
from beton.sources.webdataset import samples
from beton.workers import in_order

_COUNTED_AT_A_TIME = 100


class Shards:
    """The samples that `pipeline` makes of those in `shards`, as a data set: len() and [i].

    A sample is read where it lies in its tar and goes through the pipeline alone, so that several processes can work
    on one tar. How many come of each is counted first, by `workers` processes: the pipeline runs twice, as in FFCV.
    Raises UserError where webdataset is not installed, and for shards that are no tars on a disk.
    """

    def __init__(self, shards: Sequence[str], pipeline: Callable, workers: int):
        self._library, self._pipeline = _webdataset(), pipeline
        self._tars, self._keys = _paths(self._library, shards), []
        # Of each sample its tar and its first file, of each file its ending and where its bytes are
        self._tar, self._first = array("q"), array("q", [0])
        self._endings, self._places = [], array("q")
        for number, tar in enumerate(self._tars):
            for key, files in samples(tar):
                self._keys.append(key)
                self._tar.append(number)
                for ending, file in files.items():
                    self._endings.append(ending)
                    self._places.extend((file.offset, file.size))
                self._first.append(len(self._endings))
        self._made_of = array("q")  # the sample of a tar that each sample is made of, ascending
        work = (self._count, 0, len(self._keys), workers, _COUNTED_AT_A_TIME)
        with closing(in_order(*work, processes=True)) as counts:
            for index, count in counts:
                self._made_of.extend([index] * count)

    def __len__(self) -> int:
        return len(self._made_of)

    def __getitem__(self, index: int) -> Any:
        sample = self._made_of[index]
        return list(self._made(sample))[index - bisect_left(self._made_of, sample)]

    def name(self, index: int) -> str:
        """The tar and the key of a sample, for messages."""
        return self._name(self._made_of[index])

    def _name(self, sample: int) -> str:
        return f"{self._tars[self._tar[sample]]}: {self._keys[sample]}"

    def _count(self, sample: int) -> int:
        try:
            return sum(1 for _ in self._made(sample))
        except UserError:
            raise
        except Exception as error:
            what = f"the pipeline fails for {self._name(sample)} ({type(error).__name__}: {error})"
            raise UserError(what, "correct it, or give its operations a `handler`") from error

    def _made(self, sample: int):
        """What the pipeline makes of a sample: none, one or several."""
        tar = self._tars[self._tar[sample]]
        raw = {"__key__": self._keys[sample], "__url__": tar}
        for file in range(self._first[sample], self._first[sample + 1]):
            raw[self._endings[file]] = _tars.read(tar, *self._places[2 * file : 2 * file + 2])
        dataset = self._library.WebDataset.__new__(self._library.WebDataset)
        self._library.DataPipeline.__init__(dataset, lambda: iter([raw]))
        return self._pipeline(dataset)


def _webdataset() -> ModuleType:
    try:
        import webdataset
    except ImportError:
        raise UserError("from_webdataset needs webdataset", "install it: pip install 'webdataset>=1.0,<1.1'") from None
    return webdataset


def _paths(library: ModuleType, shards: Sequence[str]) -> list[str]:
    shards = [shards] if isinstance(shards, str) else shards
    urls = [url for shard in shards for url in library.shardlists.expand_urls(str(shard))]
    for url in urls:
        if "://" in url or url.startswith("pipe:"):
            raise UserError(f"from_webdataset reads tars on a disk, not {url!r}", "fetch them, and give their paths")
    return [url.removeprefix("file:") for url in urls]
