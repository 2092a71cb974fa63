"""A real S3 server on the loopback (moto's), behind one that counts what it sends."""

import functools
import os

import pytest
import torch

import beton
from beton.errors import UserError
from tests.support.betons import sha256
from tests.support.remote import STAGES, Server, load, prepare, times_sent
from tests.support.scripts import Forked
from tests.support.training import RESNET, Run
from tests.support.waiting import held_and_written, wait_until

pytest.importorskip("s3fs", reason="s3fs is not installed (extra test)")
pytest.importorskip("moto.server", reason="moto is not installed (extra test)")
PARTS = [f"train-{number}-of-4.beton" for number in range(1, 5)]
URL = "s3://photos/sets/train-*-of-4.beton"


@pytest.fixture(scope="module")
def moto():
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    server.stop()


@pytest.fixture
def s3(moto, shown, monkeypatch):
    """The bucket with the four parts and their cards."""
    moto.create_bucket(Bucket="photos")
    for path in shown.glob("train*"):
        moto.put_object(Bucket="photos", Key=f"sets/{path.name}", Body=path.read_bytes())
    with Server(upstream=moto.meta.endpoint_url) as server:
        server.folder = shown
        environment = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        server.environment = environment
        yield server


def counts(server):
    """How often the bytes of each file were sent: the numbers that occur."""
    return {name: set(times_sent(server, name, (server.folder / name).stat().st_size)) for name in PARTS}


ONCE = {name: {1} for name in PARTS}


def start(s3, tmp_path, number, first=0):
    out, cache = tmp_path / "batches", tmp_path / "cache"
    return Forked(tmp_path / f"log{number}", load, URL, str(cache), str(out), {}, first, s3.environment)


def test_an_epoch_killed_and_resumed_while_files_arrive_fetches_no_byte_twice(s3, shown, tmp_path):
    """Killed in the middle of ranges of the third file: what had been read of them is not fetched again either."""
    s3.faults.holds = {PARTS[2]: 34_100}  # not a whole number of ranges
    run = start(s3, tmp_path, 0)
    out, cache = tmp_path / "batches", tmp_path / "cache"
    run.wait_for(lambda: out.exists() and out.read_text().count("\n") >= 1 and held_and_written(s3, cache, PARTS[2]))
    assert run.is_running, run.errors
    run.kill()
    assert run.end() == -9
    served = {name: s3.bytes_of(name) for name in PARTS}
    sizes = {name: (shown / name).stat().st_size for name in PARTS}
    assert served[PARTS[0]] == sizes[PARTS[0]] and 20_000 < served[PARTS[2]] < sizes[PARTS[2]] // 2
    assert any(0 < sent.size < 8192 for sent in s3.of(PARTS[2])[3:])  # in the middle of a range
    s3.release()
    done = out.read_text().count("\n")
    assert 0 < done < 16
    run = start(s3, tmp_path, 1, first=done)
    assert run.end() == 0, run.errors
    assert counts(s3) == ONCE and all(
        s3.bytes_of(f"{name}.json") == os.stat(shown / f"{name}.json").st_size for name in PARTS
    )
    whole = tmp_path / "whole"
    whole.mkdir()
    again = start(s3, whole, 0)  # the same epoch, fetched anew, without an interruption
    assert again.end() == 0, again.errors
    assert (whole / "batches").read_text() == out.read_text()
    assert "rank 0 (process" in run.output and "(the rest was there)" in run.output


def test_batches_of_a_bucket(s3, shown, tmp_path):
    def labels(path, **more):
        with beton.Loader(path, 8, image=STAGES, workers=2, shuffle=False, **more) as loader:
            return torch.cat([batch.label for batch in loader])

    assert labels(URL, cache=tmp_path).equal(labels(shown / "train.beton"))
    assert counts(s3) == ONCE
    assert sorted(map(sha256, tmp_path.rglob("*.beton"))) == sorted(sha256(shown / name) for name in PARTS)


def test_errors_of_s3_have_names(s3, moto, tmp_path):
    url = "s3://photos/sets/train.beton"
    for text, words in (
        ("s3://photos/sets/none.beton", "there is no object"),
        ("s3://nowhere/a.beton", "there is no object"),
        ("s3://photos/none-*.beton", "there is no object"),
    ):
        with pytest.raises(UserError, match=words):
            beton.open(text, tmp_path)
    s3.faults.statuses = {"train.beton": 403}
    with pytest.raises(UserError, match="no permission"):
        beton.open(url, tmp_path)
    s3.faults.statuses = {}
    s3.faults.breaks = {"train.beton": [5000, 0, 100]}
    beton.open(url, tmp_path).close()
    moto.put_object(Bucket="photos", Key="sets/train.beton", Body=b"another")
    with pytest.raises(UserError, match="has changed since it was fetched"):
        beton.open(url, tmp_path)


def test_an_object_that_changes_between_ranges(s3, moto, shown, tmp_path):
    from beton.remote.arrival import Arrival

    name = PARTS[0]
    s3.faults.holds = {name: 30_000}
    arrival = Arrival(f"s3://photos/sets/{name}", tmp_path)
    with arrival.open():
        wait_until(lambda: held_and_written(s3, tmp_path, name))
        body = (shown / name).read_bytes()
        moto.put_object(Bucket="photos", Key=f"sets/{name}", Body=body[:-1] + b"x")
        s3.release()
        with pytest.raises(UserError, match="has changed while it was being fetched"):
            arrival.wait()
    arrival.close()
    assert not list(tmp_path.rglob(name))


@pytest.mark.slow
def test_training_that_is_killed_while_files_arrive_ends_with_the_weights_of_one_that_is_not(s3, shown, tmp_path):
    given = RESNET | {
        "data.train_dataset": URL,
        "data.val_dataset": shown / "train.beton",
        "training.batch_size": 4,
        "training.epochs": 2,
    }
    hook = functools.partial(prepare, s3.environment)
    s3.faults.holds = {PARTS[2]: 30_000}
    cache, folder = tmp_path / "cache", tmp_path / "killed"
    run = Run(folder, given | {"data.cache": cache}, hook=hook)
    run.wait_for(lambda: (folder / "run/checkpoint.pt").exists() and held_and_written(s3, cache, PARTS[2]))
    assert run.is_running, run.errors
    run.kill()
    run.end()
    s3.release()
    run = Run(folder, given | {"data.cache": cache}, hook=hook)
    assert run.end() == 0, run.errors
    assert "Resuming" in run.output and counts(s3) == ONCE
    whole = Run(tmp_path / "whole", given | {"data.cache": tmp_path / "other"}, hook=hook)
    assert whole.end() == 0, whole.errors
    one, other = (torch.load(r.run / "final_weights.pt") for r in (run, whole))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
