"""Samples stored in an order that the seed draws: `shuffle`."""

import numpy as np
import pytest

import beton
from beton.inspecting.commands import main
from beton.remote.arrival import mixed
from beton.sources.imagefolder import open_source
from tests.support.betons import card_of, payloads, sha256, write_good, write_source

HOW = {"write_mode": "proportion", "max_resolution": 60, "seed": 5, "rest": "blocks"}


@pytest.fixture(scope="module")
def shuffled(photo_folder, tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("shuffled") / "a.beton", photo_folder / "train", shuffle=1, **HOW)


def test_every_photo_once_in_an_order_of_the_seed(shuffled, photo_folder, tmp_path):
    folder = photo_folder / "train"
    plain = write_good(tmp_path / "plain.beton", folder, **HOW)
    with beton.open(shuffled) as file, beton.open(plain) as other:
        assert file.names != other.names == sorted(other.names) == sorted(file.names)
        assert file.classes == other.classes
        assert [file.classes[label] for label in file.labels] == [name.split("/")[0] for name in file.names]
    card = card_of(shuffled)
    assert card["parameters"]["shuffle"] is True and card_of(plain)["parameters"]["shuffle"] is False
    assert card["samples_per_mode"] == card_of(plain)["samples_per_mode"]
    orders = [card["names"]]
    for seed in (5, 6):
        orders.append(card_of(write_good(tmp_path / "b.beton", folder, shuffle=1, **HOW | {"seed": seed}))["names"])
    assert orders[0] == orders[1] != orders[2]


def test_parts_and_a_write_that_is_resumed_give_the_same_file(shuffled, photo_folder, tmp_path):
    for number in (1, 2, 3):
        write_good(tmp_path / "a.beton", photo_folder / "train", shuffle=1, part=f"{number}/3", **HOW)
    assert main(["merge", str(tmp_path / "merged.beton"), f"{tmp_path}/a-*-of-3.beton"]) == 0
    assert sha256(tmp_path / "merged.beton") == sha256(shuffled)
    assert card_of(tmp_path / "merged.beton")["parameters"]["shuffle"] is True

    def stop(_, done=[]):  # noqa: B006
        done.append(1)
        if len(done) == 50:
            raise KeyboardInterrupt

    own = {**HOW, "shuffle": True, "resume": True, "say": lambda text: None}
    mode = own.pop("write_mode")
    with pytest.raises(KeyboardInterrupt):
        write_source(
            open_source(str(photo_folder / "train"), "train"), tmp_path / "r.beton", mode, progress=stop, **own
        )
    with pytest.raises(beton.UserError, match="names and labels|shuffle"):
        write_source(
            open_source(str(photo_folder / "train"), "train"), tmp_path / "r.beton", mode, **own | {"shuffle": False}
        )
    card = write_source(open_source(str(photo_folder / "train"), "train"), tmp_path / "r.beton", mode, **own)
    assert card["resumed"] == 50 and sha256(tmp_path / "r.beton") == sha256(shuffled)


@pytest.mark.parametrize("how", [{"shuffle": 1}, {"random_subset": 30}, {"shuffle": 1, "random_subset": 30}])
def test_it_is_compared_with_its_folder(photo_folder, tmp_path, capsys, how):
    path = write_good(tmp_path / "a.beton", photo_folder / "train", **HOW, **how)
    assert main(["compare", str(path), str(photo_folder / "train")]) == 0, capsys.readouterr()
    assert main(["compare", str(path), str(photo_folder / "val")]) == 1


def test_a_file_is_shuffled_with_its_bytes_as_they_are(photo_folder, tmp_path):
    passed = write_good(tmp_path / "jpg.beton", photo_folder / "train", write_mode="jpg", jpeg_quality=80)
    again = write_good(tmp_path / "again.beton", passed, dataset="beton", shuffle=1, write_mode="jpg", jpeg_quality=80)
    with beton.open(passed) as file, beton.open(again) as other:
        place = {name: i for i, name in enumerate(file.names)}
        order = [place[name] for name in other.names]
        assert order != sorted(order) == list(range(120))
    one, two = payloads(passed), payloads(again)
    assert [one[i] for i in order] == two


def test_parts_of_any_data_set_have_all_its_classes(tmp_path):
    """So training begins with the first of them (docs/remote.md)."""
    data = [(np.full((8, 8, 3), i % 251, np.uint8), i // 300) for i in range(1200)]
    for shuffle in (False, True):
        path = tmp_path / f"{shuffle}.beton"
        beton.write(data, path, workers=1, write_mode="raw", shuffle=shuffle, seed=3)
        with beton.open(path) as file:
            assert (mixed(file.labels, np.arange(1200) // 300) is None) == shuffle
    assert sorted(payloads(tmp_path / "True.beton")) == sorted(payloads(tmp_path / "False.beton"))
