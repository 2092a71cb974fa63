"""Files from a web server that breaks off, changes its mind or says no; one fetch for all processes of a machine."""

import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import beton
from beton.errors import UserError
from beton.files import partial_path
from beton.inspecting.commands import main
from beton.remote import partial as partials
from beton.remote.arrival import Arrival, mixed
from beton.remote.partial import Partial
from beton.remote.urls import place_of
from tests.support.betons import copied, damage, sha256
from tests.support.loaders import within
from tests.support.remote import STAGES, Server, load, times_sent
from tests.support.scripts import ENVIRONMENT, ROOT, Forked, here
from tests.support.waiting import held_and_written, wait_until

PARTS = [f"train-{number}-of-4.beton" for number in range(1, 5)]


def parts_of(server):
    return [f"{server.url}/{name}" for name in PARTS]


def batches(path, epochs=(0, 1), **more):
    with beton.Loader(path, 7, image=STAGES, seed=4, **{"workers": 2, **more}) as loader:
        return [tuple(batch) for epoch in epochs for batch in loader.batches(epoch)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(*pair) for both in zip(one, other, strict=True) for pair in zip(*both, strict=True)
    )


def each_byte_once(server, name):
    return set(times_sent(server, name, (server.folder / name).stat().st_size)) == {1}


def test_a_file_gives_the_batches_of_the_local_one(server, shown, tmp_path, capfd):
    expected = batches(shown / "train.beton")
    assert same(batches(f"{server.url}/train.beton", cache=tmp_path), expected)
    assert each_byte_once(server, "train.beton") and each_byte_once(server, "train.beton.json")
    size = (shown / "train.beton").stat().st_size
    (line,) = capfd.readouterr().out.splitlines()
    for word in (f"fetched {size / 1e6:.1f} MB in", f"from {server.url}/train.beton into", f"process {os.getpid()}"):
        assert word in line
    assert same(batches(f"{server.url}/train.beton", cache=tmp_path), expected)
    assert each_byte_once(server, "train.beton") and not capfd.readouterr().out  # it is there
    path = place_of(f"{server.url}/train.beton", tmp_path)
    assert sha256(path) == sha256(shown / "train.beton")
    with beton.open(f"{server.url}/train.beton", tmp_path) as file:
        assert file.path == str(path) and len(file) == 96


def test_files_come_one_after_another_in_epoch_0_and_mixed_afterwards(server, shown, tmp_path):
    parts, local = parts_of(server), [shown / name for name in PARTS]
    found = batches(parts, cache=tmp_path, with_indices=True)
    assert all(each_byte_once(server, name) for name in PARTS)
    order = torch.cat([batch[-1] for batch in found[:14]])
    assert (order // 24).tolist() == [part for part in range(4) for _ in range(24)]
    assert (order[:24] != order[:24].sort().values).any() and order.sort().values.tolist() == list(range(96))
    assert same(found[14:], batches(local, [1], with_indices=True))
    # Whatever is there already, and whoever reads
    assert same(batches(parts, cache=tmp_path, with_indices=True, workers=1), found)
    assert same(batches(list(reversed(parts)), cache=tmp_path / "other", with_indices=True), found)
    half = [batches(parts, [0], cache=tmp_path, with_indices=True, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.stack([torch.cat([batch[-1] for batch in own]) for own in half], 1).flatten().equal(order)
    assert same(batches(parts, [0], cache=tmp_path, shuffle=False), batches(local, [0], shuffle=False))


def test_training_begins_while_later_files_are_on_their_way(server, tmp_path):
    server.faults.holds = {PARTS[2]: 20_000}
    with beton.Loader(parts_of(server), 4, image=STAGES, cache=tmp_path, workers=2) as loader:
        read = iter(loader)
        labels = [next(read).label for _ in range(4)]  # what is read ahead is of the second
        assert len(labels) == 4 and not place_of(parts_of(server)[2], tmp_path).exists()
        state = loader.state_dict()
        with (
            beton.Loader(server.folder / "train.beton", 4, image=STAGES) as local,
            pytest.raises(UserError, match="epoch that has the files"),
        ):
            local.load_state_dict(state)
        wait_until(lambda: held_and_written(server, tmp_path, PARTS[2]))
        read.close()  # an epoch that is left early waits for nothing
    server.release()
    with beton.Loader(parts_of(server), 4, image=STAGES, cache=tmp_path, workers=2) as loader:
        loader.load_state_dict(state)
        assert len(list(loader)) == 20
    assert all(each_byte_once(server, name) for name in PARTS)


def test_a_fork_of_a_loader_whose_files_are_on_their_way_does_not_wait_for_ever(server, tmp_path):
    server.faults.holds = {PARTS[2]: 20_000}
    with beton.Loader(parts_of(server), 4, image=STAGES, cache=tmp_path, workers=1) as loader:
        next(iter(loader))
        child = os.fork()
        if not child:
            signal.alarm(30)  # a hang
            try:
                list(loader.batches(0))
            except RuntimeError as error:
                os._exit(17 if "of which this one is a fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        server.release()
        assert len(list(loader)) == 24


@pytest.mark.parametrize("memory", [{}, {"cache_gb": 0.0018}])
def test_files_larger_than_memory_come_one_after_another_in_epoch_0(shown, tmp_path, monkeypatch, memory):
    monkeypatch.setattr("beton.writing.writer.page_size", lambda payload: 16 << 10)
    photos = [(np.zeros((32, 32, 3), np.uint8), i % 3) for i in range(960)]
    beton.write(photos, tmp_path / "large.beton", write_mode="raw", workers=1)
    main(["split", str(tmp_path / "large.beton"), "4"])
    given = {
        "image": None,
        "cache": tmp_path / "cache",
        "in_memory": False,
        "with_indices": True,
        "workers": 1,
    } | memory

    def order(world_size):
        url, size = f"file://{tmp_path}/large-*-of-4.beton", 16 // world_size
        made = [beton.Loader(url, size, rank=rank, world_size=world_size, **given) for rank in range(world_size)]
        assert made[0].window.lanes % 4 == 0 and made[0].window.lanes * made[0].window.pages < 192
        own = [torch.cat([batch[-1] for batch in loader.batches(0)]) for loader in made]
        pages = [set(loader.pages().of_sample[share].tolist()) for loader, share in zip(made, own, strict=True)]
        assert sum(map(len, pages)) <= made[0].pages().count + 4 * (made[0].window.lanes - 1)  # those that are cut
        for loader in made:
            loader.close()
        return torch.stack(own, 1).flatten()

    found = order(1)
    assert (found // 240).tolist() == [part for part in range(4) for _ in range(240)]
    assert found.sort().values.tolist() == list(range(960)) and found[:240].tolist() != sorted(found[:240].tolist())
    assert order(2).equal(found) and order(4).equal(found)


def test_classes_that_come_in_turn_are_not_trained_in_turn(server, shown, tmp_path, capfd):
    assert mixed(np.arange(96) % 3, np.arange(96) // 24) is None
    assert mixed(np.random.default_rng(0).integers(0, 100, 10_000), np.arange(10_000) // 1000) is None
    assert mixed(np.arange(10_000) // 100, np.arange(10_000) // 1000) == 0
    assert mixed(np.arange(10_000) // 100, np.arange(10_000) // 5000) == 0
    shutil.copytree(shown, tmp_path / "sorted")
    data = [(np.zeros((8, 8, 3), np.uint8), i // 300) for i in range(1200)]
    beton.write(data, tmp_path / "sorted/s.beton", workers=1)
    main(["split", str(tmp_path / "sorted/s.beton"), "2"])
    url = f"file://{tmp_path}/sorted/s-*-of-2.beton"
    found = batches(url, [0], cache=tmp_path / "cache")
    assert same(found, batches(f"{tmp_path}/sorted/s-*-of-2.beton", [0]))
    assert "the first epoch waits for all files" in capfd.readouterr().err


@pytest.mark.parametrize("ranged", [True, False])
def test_a_connection_that_breaks_is_tried_again(server, tmp_path, ranged):
    server.faults.ranged = ranged
    server.faults.breaks = {"train.beton": [100, 3000, 0, 5000]}
    with beton.open(f"{server.url}/train.beton", tmp_path) as file:
        assert len(file) == 96
    assert each_byte_once(server, "train.beton") == ranged  # a server without ranges sends all of it again
    server.faults.breaks = {"train-1-of-4.beton": [5000, 0, 0, 0, 0] + [0] * 100}
    with pytest.raises(UserError, match="train-1-of-4.beton broke .* times in a row .*broke off"):
        beton.open(f"{server.url}/train-1-of-4.beton", tmp_path)
    assert not place_of(f"{server.url}/train-1-of-4.beton", tmp_path).exists()
    server.faults.breaks = {}
    beton.open(f"{server.url}/train-1-of-4.beton", tmp_path).close()
    assert each_byte_once(server, "train-1-of-4.beton") == ranged


# Files without cards, as there is none for a signed URL


def plain(folder, count=4):
    """Files of 24 photos each, stored as JPEGs; their paths."""
    rng, paths = np.random.default_rng(2), []
    for number in range(count):
        photos = [(rng.integers(0, 256, (40, 40, 3), np.uint8), i % 3) for i in range(24)]
        paths.append(folder / f"{number}.beton")
        beton.write(photos, paths[-1], workers=1)
        paths[-1].with_name(f"{number}.beton.json").unlink()
    return paths


def test_an_epoch_is_left_though_a_substitute_is_still_on_its_way(tmp_path):
    (tmp_path / "shown").mkdir()
    local = plain(tmp_path / "shown")
    given = {"image": STAGES, "workers": 2, "on_error": "substitute", "with_indices": True}
    with Server(tmp_path / "shown") as server:
        urls = [f"{server.url}/{path.name}" for path in local]
        with beton.Loader(urls, 4, cache=tmp_path / "cache", **given) as loader:
            later = np.concatenate([loader.samples(0, batch) for batch in (1, 2, 3)])
        assert later.max() < 24
        damage(local[0], later)
        shutil.rmtree(tmp_path / "cache")
        server.sent.clear()
        server.faults.holds = {local[2].name: 20_000}
        with beton.Loader(urls, 4, cache=tmp_path / "cache", **given) as loader:
            early = loader.batches(0)
            next(early)
            wait_until(lambda: held_and_written(server, tmp_path / "cache", local[2].name))
            within(60, early.close)
            server.release()
            found = list(loader.batches(0))
        assert sorted(loader.left_out) == sorted(later.tolist())
        assert not set(torch.cat([batch.indices for batch in found]).tolist()) & set(later.tolist())
        # What fetching fails of is no damage
        shutil.rmtree(tmp_path / "cache")
        server.sent.clear()
        server.faults.holds = {local[2].name: 20_000}
        with beton.Loader(urls, 4, cache=tmp_path / "cache", **given) as loader:
            wait_until(lambda: held_and_written(server, tmp_path / "cache", local[2].name))
            server.faults.statuses = {local[2].name: 403}
            server.release()
            with pytest.raises(UserError, match="no permission to read .*/2.beton"):
                list(loader)
        assert set(loader.left_out) <= set(later.tolist())


def test_what_signs_a_url_is_not_shown_and_may_be_another_one_later(tmp_path, capfd):
    (tmp_path / "shown").mkdir()
    local = plain(tmp_path / "shown", 2)
    damage(local[1], [3])
    with Server(tmp_path / "shown") as server:

        def urls(signature):
            return [f"{server.url}/{path.name}?X-Amz-Signature={signature}&Expires=9" for path in local]

        given = {"image": STAGES, "cache": tmp_path / "cache", "workers": 1}
        with beton.Loader(urls("secret"), 4, on_error="skip", **given) as loader:
            assert len(list(loader)) == 12
        shown = "".join(capfd.readouterr()) + repr(loader.left_out)
        assert f"{server.url}/1.beton)" in shown and "fetched" in shown and "secret" not in shown
        sent = len(server.sent)
        with pytest.raises(beton.UserError) as error, beton.Loader(urls("SECRET"), 4, **given) as loader:
            list(loader)
        assert len(server.sent) == sent, "the cache has them, whoever has signed"
        with pytest.raises(beton.UserError) as other:
            beton.Loader(urls("SECRET")[1], 40, **given, drop_last=True)
        for text in (str(error.value), str(other.value), repr(pickle.loads(pickle.dumps(error.value)))):
            assert f"{server.url}/1.beton" in text and "SECRET" not in text
        assert place_of("https://a/f?id=1", "c") != place_of("https://a/f?id=2", "c")


def test_errors_have_names(server, tmp_path):
    url = f"{server.url}/train.beton"
    for status, words in ((403, "no permission .*403"), (404, "there is no object"), (500, "broke 4 times .*500")):
        for name in ("train.beton", "train.beton.json"):
            server.faults.statuses = {name: status}
            if (status, name) != (404, "train.beton.json"):  # a file may have no card
                with pytest.raises(UserError, match=words):
                    beton.open(url, tmp_path)
    server.faults.statuses = {}
    for text, words in (
        ("s3x://a/b.beton", "Protocol not known"),
        (f"{server.url}/train-*.beton", "a web server has no list"),
        (f"file://{tmp_path}/none-*.beton", "there is no object"),
        ("http://127.0.0.1:9/a.beton", "broke 4 times in a row"),
        (f"file://{server.folder}/train.beton.json", "not a complete .beton"),
    ):
        with pytest.raises(UserError, match=words):
            beton.open(text, tmp_path)
    with pytest.raises(UserError, match="none is given; give `cache`"):
        beton.Loader(url, 8, image=STAGES)
    assert not list(tmp_path.rglob("*.beton"))


def test_any_file_system_of_fsspec(shown, tmp_path):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in shown.glob("train-*"):
        memory.pipe(f"/sets/{path.name}", path.read_bytes())
    local = [shown / name for name in PARTS]
    assert same(batches("memory://sets/train-*.beton", [1], cache=tmp_path), batches(local, [1]))
    mixed_up = [f"memory://sets/{name}" for name in PARTS[:2]] + local[2:]
    assert same(batches(mixed_up, [1], cache=tmp_path), batches(local, [1]))
    with beton.Loader(mixed_up, 8, image=STAGES, cache=tmp_path) as loader:
        again = pickle.loads(pickle.dumps(loader))
        assert same(list(map(tuple, again)), list(map(tuple, loader)))
        again.close()


def test_an_object_that_changes_is_an_error(server, tmp_path):
    url, name = f"{server.url}/train.beton", "train.beton"
    server.faults.holds = {name: 50_000}
    arrival = Arrival(url, tmp_path)
    with arrival.open():
        wait_until(lambda: held_and_written(server, tmp_path, name))
        server.faults.etag = "two"
        server.release()
        with pytest.raises(UserError, match="train.beton has changed while it was being fetched"):
            arrival.wait()
    arrival.close()
    server.sent.clear()
    beton.open(url, tmp_path).close()  # nothing of the other version is used
    # At least: the server may still be answering what the first one has asked
    assert min(times_sent(server, name, (server.folder / name).stat().st_size)) >= 1
    server.faults.etag = "three"
    with pytest.raises(UserError, match="has changed since it was fetched into .*delete that folder"):
        beton.Loader(url, 8, image=STAGES, cache=tmp_path)


def test_a_copy_is_used_where_its_server_does_not_answer(shown, tmp_path, capfd):
    with Server(shown) as server:
        url = f"{server.url}/train.beton"
        beton.open(url, tmp_path).close()
    with beton.open(url, tmp_path) as file:
        assert len(file) == 96
    assert "which was fetched before, is used" in capfd.readouterr().out


def test_bytes_that_are_not_those_of_the_card_are_not_used(shown, tmp_path):
    copied(shown / "train.beton", tmp_path / "a.beton")
    with open(tmp_path / "a.beton", "r+b") as file:
        file.seek(100_000)
        file.write(b"another")
    url = f"file://{tmp_path}/a.beton"
    for _ in range(2):
        with pytest.raises(UserError, match="not what its card says .the SHA-256 differs"):
            beton.open(url, tmp_path / "cache")
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    with open(tmp_path / "a.beton", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="its card is of a file of"):
        beton.open(url, tmp_path / "cache")
    (tmp_path / "a.beton.json").unlink()
    with pytest.raises(UserError, match="not a complete .beton"):  # its tables are wrong, which needs no card
        beton.open(url, tmp_path / "cache")
    shutil.copy(shown / "train.beton", tmp_path / "a.beton")
    with beton.open(url, tmp_path / "cache") as file:
        assert len(file) == 96 and file.card is None


FULL = """
import os, shutil, subprocess, sys
from collections import namedtuple
url, folder = sys.argv[1:]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode:
    sys.exit(77)
import beton
for pretended in (False, True):
    if pretended:
        shutil.disk_usage = lambda path: namedtuple("Usage", "free")(1 << 40)
    try:
        beton.open(url, folder)
    except beton.UserError as error:
        print(error)
subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
print(len(beton.open(url, folder)))
"""


def test_full_disk(server, tmp_path):
    """One that is seen to be too small, and one that is full before its time."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small disk with")
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL]
    url = f"{server.url}/train.beton"
    done = subprocess.run(
        [*command, url, tmp_path], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this user may not mount a disk")
    assert done.returncode == 0, done.stderr
    before, within, _, count = done.stdout.splitlines()
    assert "has room for 0.3 MB, and 0.5 MB are to be fetched" in before, done.stderr
    assert "cannot write" in within and "No space left" in within and "give another `cache`" in within
    assert count == "96"


# Several processes


def start(server, tmp_path, count, text=None):
    text, cache = text or ",".join(parts_of(server)), str(tmp_path / "cache")
    return [Forked(tmp_path / f"log{n}", load, text, cache, str(tmp_path / f"out{n}"), {}) for n in range(count)]


def test_one_process_fetches_for_all(server, tmp_path):
    ranks = start(server, tmp_path, 3)
    assert [rank.end() for rank in ranks] == [0] * 3, [rank.errors for rank in ranks]
    assert all(each_byte_once(server, name) for name in [*PARTS, f"{PARTS[0]}.json"])
    texts = [(tmp_path / f"out{n}").read_text() for n in range(3)]
    assert len(texts[0].splitlines()) == 16 and texts == texts[:1] * 3


def test_another_goes_on_where_one_is_killed(server, tmp_path):
    server.faults.holds = {PARTS[1]: 40_000}
    ranks = start(server, tmp_path, 3)
    wait_until(lambda: held_and_written(server, tmp_path / "cache", PARTS[1]))
    holder = next(rank for rank in ranks if _locks(rank.pid, f".{PARTS[1]}.lock"))
    holder.kill()
    assert holder.end() == -9
    server.release()
    others = [rank for rank in ranks if rank is not holder]
    assert [rank.end() for rank in others] == [0, 0], [rank.errors for rank in others]
    assert all(each_byte_once(server, name) for name in PARTS)


def _locks(pid, name):
    """Whether a process holds the lock of a file."""
    inodes = [line.split()[5].split(":")[-1] for line in open("/proc/locks") if f" {pid} " in line]  # noqa: SIM115
    names = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = os.path.realpath(f"/proc/{pid}/fd/{number}")
        if os.path.basename(path) == name:
            names[str(os.stat(path).st_ino)] = path
    return any(inode in names for inode in inodes)


def test_all_get_the_error_of_the_one_that_fetches(server, tmp_path):
    server.faults.holds = {PARTS[1]: 30_000}
    ranks = start(server, tmp_path, 3)
    wait_until(lambda: held_and_written(server, tmp_path / "cache", PARTS[1]))
    server.faults.statuses = {PARTS[1]: 403}
    server.release()
    assert [rank.end() for rank in ranks] == [2] * 3
    assert all(f"no permission to read {server.url}/{PARTS[1]}" in rank.errors for rank in ranks)
    assert not list(tmp_path.rglob(PARTS[1]))


# The command line


def test_fetch_command(server, tmp_path, capsys):
    assert main(["fetch", f"{server.url}/train.beton", f"--cache={tmp_path}"]) == 0
    shown = capsys.readouterr()
    path = shown.out.strip()
    assert shown.err.count("=> fetched") == 1
    assert main(["check", path]) == 0
    with pytest.raises(UserError, match="give `cache`"):
        main(["info", f"{server.url}/train.beton"])


def test_a_trainer_takes_urls(server, shown, tmp_path):
    given = {
        "model.arch": "timm:test_resnet",
        "data.train_dataset": ",".join(parts_of(server)),
        "data.val_dataset": f"{server.url}/train.beton",
        "data.cache": tmp_path / "cache",
        "data.num_workers": 1,
        "data.in_memory": 1,
        "validation.resolution": 32,
        "validation.batch_size": 16,
        "training.batch_size": 16,
        "training.epochs": 1,
        "lr.lr_peak_epoch": 0.5,
        "resolution.min_res": 32,
        "resolution.max_res": 32,
        "logging.folder": tmp_path / "runs",
        "logging.name": "run",
        "logging.worst": 1,
    }
    done = here("train_imagenet.py", *[f"--{name}={value}" for name, value in given.items()])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=> fetched") == 2 and (tmp_path / "runs/run/worst.png").exists()
    assert all(each_byte_once(server, name) for name in [*PARTS, "train.beton"])
    del given["data.cache"]
    done = here("train_imagenet.py", *[f"--{name}={value}" for name, value in given.items()])
    assert done.returncode == 2 and "give data.cache" in done.stderr


# What is noted


@given(st.data())
def test_ranges_cover_a_file_once(tmp_path_factory, data):
    size = data.draw(st.integers(1, 100_000))
    head = data.draw(st.integers(1, 8192))
    end = data.draw(st.integers(1, size))
    at = data.draw(st.integers(end, size))
    path = tmp_path_factory.mktemp("ranges") / "a.beton"
    partial = Partial.begun(path, {"size": size}, head)
    partial.rows[0, 2] = have = partial.rows[0, 1]
    partial = partial.planned(end, at)
    rows = Partial.found(path, {"size": size}).rows
    assert Partial.found(path, {"size": size + 1}) is None
    covered = np.zeros(size, np.int64)
    there = np.zeros(size, np.int64)
    for start, stop, done in rows.tolist():
        assert 0 < stop - start <= partials.RANGE and 0 <= done <= stop - start
        covered[start:stop] += 1
        there[start : start + done] += 1
    assert (covered == 1).all() and there.sum() == have and (there[:have] == 1).all()
    tables = rows[: partial.tables]
    assert ((tables[:, 1] <= end) | (tables[:, 0] >= at)).all()
    assert partial_path(path).stat().st_size == size
