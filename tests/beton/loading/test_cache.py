"""Files larger than memory: ranks read each page once, keep to `cache_gb`, and share the same batches out."""

import mmap
import os

import numpy as np
import pytest

import beton
from beton.errors import UserError
from beton.inspecting.merge import split
from tests.support.loaders import within
from tests.support.memory import drop, resident_pages

COUNT, BATCH = 8000, 32  # samples, and of a batch of all ranks


class Photos:
    """Of 3 KB each, whose label is their number."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return np.full((32, 32, 3), index % 251, np.uint8), index


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 381 pages of 64 KB: 25 MB."""
    path = tmp_path_factory.mktemp("large") / "large.beton"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beton.writing.writer.page_size", lambda payload: 64 << 10)
        beton.write(Photos(), path, workers=1, write_mode="raw")
    return path


@pytest.fixture
def ranks(large):
    """ranks(world_size, **arguments): a loader for each rank, all of them together in batches of BATCH."""
    opened = []

    def open_ranks(world_size, path=large, **given):
        given = {"in_memory": False, "drop_last": True, "image": None, "workers": 1} | given
        given = ({} if given["in_memory"] else {"cache_gb": 0.0025}) | given
        size = BATCH // world_size
        made = [beton.Loader(path, size, rank=rank, world_size=world_size, **given) for rank in range(world_size)]
        opened.extend(made)
        return made

    yield open_ranks
    for loader in opened:
        within(60, loader.close)


def steps(loaders, epoch=0, start=0) -> list[np.ndarray]:
    """The samples of each step, of one rank after the other."""
    own = [loader.batches(epoch, start) for loader in loaders]
    return [[batch.label.numpy() for batch in step] for step in zip(*own, strict=True)]


def test_four_ranks_read_each_page_once_within_the_memory(ranks, large):
    drop(large)
    if resident_pages(large).any():
        pytest.skip("this file system keeps its files in memory")
    loaders = ranks(4, image="center(32, 1)")
    size = os.path.getsize(large)
    assert loaders[0].window.lanes == 4 and size / 10 >= 0.0025e9
    drop(large)
    most, seen = 0, [[], [], [], []]
    own = [loader.batches(0) for loader in loaders]
    for number, step in enumerate(zip(*own, strict=True)):
        for rank, batch in enumerate(step):
            seen[rank].append(batch.label.numpy())
            assert (batch.image.flatten(1) == (batch.label % 251)[:, None]).all()
        if number % 5 == 0:
            most = max(most, int(resident_pages(large).sum()) * mmap.PAGESIZE)
    assert 0 < most <= 0.0025e9
    assert resident_pages(large).sum() <= 1  # it is let go of
    together = np.concatenate([np.concatenate(of_rank) for of_rank in seen])
    assert sorted(together.tolist()) == list(range(COUNT))
    pages = loaders[0].pages()
    read = [set(pages.of_sample[np.concatenate(of_rank)].tolist()) for of_rank in seen]
    assert len(set().union(*read)) == pages.count
    # One at each border of two ranks is cut: each reads another part of it
    assert sum(map(len, read)) <= pages.count + 3


def test_any_number_of_ranks_reads_the_same_batches_and_goes_on_in_mid_epoch(ranks):
    def sets(steps):
        return [set(np.concatenate(step).tolist()) for step in steps]

    whole = ranks(1, in_memory=True)
    for given in ({}, {"cache_gb": None}, {"in_memory": True}, {"repeats": 2}, {"indices": range(100, 7900)}):
        expected = sets(steps(ranks(1, **given), 3))
        assert len(set().union(*expected)) > 1000
        for world_size in (2, 4):
            assert sets(steps(ranks(world_size, **given), 3)) == expected
    assert sets(steps(whole, 3)) != sets(steps(ranks(1), 3)) != sets(steps(ranks(1), 4))
    before = ranks(4)
    for loader in before:
        loader.set_epoch(3)
        running = iter(loader)
        for _ in range(100):
            next(running)
        running.close()
    after = ranks(2)
    for loader in after:
        loader.load_state_dict(before[0].state_dict())
    rest = [
        set(np.concatenate(step).tolist()) for step in zip(*[[b.label.numpy() for b in r] for r in after], strict=True)
    ]
    assert rest == sets(steps(ranks(1), 3))[100:]
    with pytest.raises(UserError, match="the state is of a loader with window=.*and this one has None"):
        whole[0].load_state_dict(before[0].state_dict() | {"in_memory": True})


def test_the_augmentations_are_the_same_on_any_number_of_ranks(ranks):
    def images(world_size):
        own = [loader.batches(1) for loader in ranks(world_size, image="rrc(8)|flip")]
        found = [next(batches) for batches in own]
        return {int(n): i.numpy().tobytes() for b in found for n, i in zip(b.label, b.image, strict=True)}

    assert images(1) == images(2) == images(4) and len(images(4)) == BATCH


def test_parts_are_read_as_the_whole_within_the_memory(ranks, large, tmp_path, monkeypatch):
    monkeypatch.setattr("beton.writing.writer.page_size", lambda payload: 64 << 10)
    split(str(large), 3, str(tmp_path))
    loaders = ranks(2, f"{tmp_path}/large-*.beton")
    found = steps(loaders)
    assert loaders[0].window and sorted(np.concatenate(sum(found, [])).tolist()) == list(range(COUNT))
    early = loaders[0].batches(1)
    next(early)
    early.close()


def test_what_fits_is_mixed_as_a_whole_and_what_is_too_little_is_an_error(ranks):
    (loader,) = ranks(1, cache_gb=1.0)
    assert loader.window is None
    with pytest.raises(UserError, match=r"`cache_gb`=0.001 is too little to mix .* on 4 ranks; give at least 0.00\d"):
        ranks(4, cache_gb=0.001)
    with pytest.raises(UserError, match="`cache_gb`=0 is not a number above 0"):
        ranks(1, cache_gb=0)
    for given in ({"in_memory": True}, {"shuffle": False}, {"order": list}):
        with pytest.raises(UserError, match=r"`cache_gb`=0.003 is for shuffled data sets that do not fit into memory"):
            ranks(1, cache_gb=0.003, **given)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """3,000 photos of 0.2 KB, 341 on a page, and 150 of 48 KB, one on a page."""
    path = tmp_path_factory.mktemp("uneven") / "uneven.beton"
    photos = [(np.zeros((8, 8, 3) if i < 3000 else (128, 128, 3), np.uint8), i) for i in range(3150)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beton.writing.writer.page_size", lambda payload: 64 << 10)
        beton.write(photos, path, workers=1, write_mode="raw")
    return path


def test_pages_of_unequal_numbers_of_photos_are_an_error_at_once(ranks, uneven, monkeypatch, capfd):
    given = {"path": uneven, "drop_last": False}
    with pytest.raises(UserError, match="is too little for .*uneven.beton, whose pages hold unequal .*give at least"):
        ranks(1, cache_gb=0.002, **given)
    (loader,) = ranks(1, cache_gb=0.003, **given)
    assert loader.window
    assert sorted(np.concatenate(sum(steps([loader]), [])).tolist()) == list(range(3150))
    assert not capfd.readouterr().err
    # An epoch in mid-training that needs more than the first goes on
    monkeypatch.setattr("beton.loading.cache.Schedule.peak", lambda *_: 20e6)
    assert sorted(np.concatenate(sum(steps([loader], 1), [])).tolist()) == list(range(3150))
    assert capfd.readouterr().err == "note: this epoch takes 0.02 GB of memory, more than `cache_gb`=0.003\n"


def test_a_subset_has_its_photos_in_more_pages_and_needs_more_memory(ranks):
    few = {"indices": range(0, COUNT, 8), "cache_gb": 0.0035}
    with pytest.raises(UserError, match="is too little to mix"):  # at once, and not when the epoch begins
        ranks(1, **few)
    (loader,) = ranks(1, **few | {"cache_gb": 0.02})
    found = np.concatenate(sum(steps([loader]), []))
    assert loader.window and len(set(found.tolist())) == len(found) == 992 and not (found % 8).any()


def test_memory_is_that_of_each_machine(ranks, monkeypatch):
    (alone,) = ranks(1)
    assert ranks(4)[0].window == alone.window
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two machines, with half of it each
    assert ranks(4, cache_gb=0.00125)[0].window == alone.window
