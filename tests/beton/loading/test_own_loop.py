"""beton.Loader in a loop of the user's own: subsets, weights, orders; positions; other processes; statistics."""

import collections
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler, WeightedRandomSampler

import beton
from tests.support.betons import copied, damage
from tests.support.loaders import put_batches

STAGES = "rrc(24)|flip|normalize"
COUNT = 45  # of numbered photos, whose labels are their numbers


def labels(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch.label]


def same(one, other) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_batches_are_dicts_and_name_their_samples_if_asked_to(opened):
    for batch in opened(as_dict=True, with_indices=True):
        assert list(batch) == ["image", "label", "indices"] and torch.equal(batch["indices"], batch["label"])
    assert opened(with_indices=True, columns=("label",)).Batch._fields == ("label", "indices")


def test_indices_are_those_of_what_a_damaged_sample_was_replaced_by(opened, numbered, tmp_path):
    path = damage(copied(numbered["beton"], tmp_path / "a.beton"), [3, 4])
    for policy, count in (("substitute", 45), ("skip", 43)):
        batches = list(opened(path, on_error=policy, with_indices=True))
        assert all(torch.equal(batch.indices, batch.label) for batch in batches)
        found = labels(batches)
        assert len(found) == count and not {3, 4} & set(found)


def test_stages_may_be_a_list_and_fields_a_dict(opened):
    want = opened()
    for given in ({"image": ["rrc(24)", "flip|normalize"]}, {"image": "center(9)", "fields": {"label": None}}):
        found = list(opened(**given))
        assert found[0]._fields == (("image",) if "fields" in given else ("image", "label"))
        if "fields" not in given:
            assert all(map(same, found, want))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_subset_has_its_samples_and_each_is_what_it_is_in_the_whole(opened, in_memory):
    part = [3, 17, 4, 40, 22, 9, 1, 30, 31]
    loader = opened(indices=part, in_memory=in_memory, on_error="substitute")
    batches = list(loader)
    assert sorted(labels(batches)) == sorted(part) and len(loader) == 2 and labels(batches) != labels(loader)
    assert labels(opened(indices=part, shuffle=False)) == part
    whole = {int(label): image for batch in opened() for image, label in zip(batch.image, batch.label, strict=True)}
    for batch in batches:
        assert all(torch.equal(i, whole[int(n)]) for i, n in zip(batch.image, batch.label, strict=True))
    shares = [labels(opened(indices=part, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(sum(shares, [])) == sorted(part) and not set(shares[0]) & set(shares[1])


def test_substitutes_of_a_subset_are_of_the_subset(opened, numbered, tmp_path):
    path, part = damage(copied(numbered["beton"], tmp_path / "a.beton"), range(5, 12)), list(range(16))
    for given in ({"indices": part}, {"weights": [float(i < 16) for i in range(COUNT)]}, {"order": lambda epoch: part}):
        found = labels(opened(path, on_error="substitute", **given))
        assert len(found) == (COUNT if "weights" in given else 16) and set(found) <= {*range(5), *range(12, 16)}


def test_a_sample_that_is_there_twice_is_augmented_in_two_ways(opened):
    (batch,) = opened(indices=[7, 7, 7, 2], shuffle=False)
    assert batch.label.tolist() == [7, 7, 7, 2]
    assert len({image.numpy().tobytes() for image in batch.image[:3]}) == 3
    assert torch.equal(batch.image[0], next(opened(indices=[7]).batches(0)).image[0])


def test_weights_draw_with_replacement_in_proportion(opened):
    weights = np.arange(COUNT) % 3  # a third of them never
    loader = opened(weights=weights, image=None)
    counts = collections.Counter(label for _ in range(200) for label in labels(loader))
    assert sum(counts.values()) == 200 * COUNT and len(loader) == 6
    for sample in range(COUNT):
        want = 200 * COUNT * weights[sample] / weights.sum()
        assert abs(counts[sample] - want) <= 5 * max(1, want) ** 0.5 and (want or not counts[sample])
    again = opened(weights=weights, image=None, workers=1)
    assert labels(again.batches(3)) == labels(loader.batches(3)) != labels(loader.batches(4))
    few = opened(weights=[0, 1, 1], indices=[5, 6, 7], image=None)
    assert set(labels(few)) <= {6, 7}


def test_an_order_is_a_function_of_the_epoch_or_a_torch_sampler(opened):
    loader = opened(order=lambda epoch: range(epoch, 10 + 2 * epoch), image=None)
    assert len(loader) == 2 and labels(loader) == list(range(10))
    assert labels(loader.batches(3)) == list(range(3, 16))
    loader.set_epoch(8)
    assert len(loader) == 3
    torch.manual_seed(1)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    for make in (
        lambda: RandomSampler(range(COUNT)),
        lambda: RandomSampler(range(COUNT), generator=generator),
        lambda: WeightedRandomSampler([1.0] * COUNT, 30),
    ):
        one, other = (opened(order=make(), image=None) for _ in range(2))
        epochs = [labels(one) for _ in range(3)]
        assert epochs == [labels(other.batches(epoch)) for epoch in range(3)] and epochs[0] != epochs[1]
        assert len(one) == -(-len(epochs[0]) // 8)
    assert torch.equal(torch.get_rng_state(), before)
    shares = [
        labels(opened(order=DistributedSampler(range(COUNT), 2, rank, drop_last=True), image=None)) for rank in (0, 1)
    ]
    assert sorted(sum(shares, [])) == sorted(set(sum(shares, []))) and len(shares[0]) == 22


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"indices": [1, 45]}, "`indices` has 45, and there are 45 samples"),
        ({"indices": [-1]}, "`indices` has -1"),
        ({"indices": []}, "not a list of whole numbers"),
        ({"indices": [0.5]}, "`indices` are float64"),
        ({"indices": [[1]]}, r"shape \(1, 1\)"),
        ({"weights": [1.0]}, "there are 1 `weights` for 45 samples"),
        ({"weights": [-1.0] * 45}, "not a list of numbers from 0 on"),
        ({"weights": [0.0] * 45}, "not a list of numbers from 0 on"),
        ({"weights": [1.0] * 45, "shuffle": False}, "`weights` draw at random, and `shuffle` is False"),
        ({"order": [1, 2], "indices": [1]}, "`order` is given, and `indices`"),
        ({"order": lambda epoch: [99]}, "`order` has 99"),
        ({"indices": [1, 2], "drop_last": True}, "has 2 samples, too few for one batch of 8"),
    ],
)
def test_wrong_samples_are_errors_that_name_the_argument(opened, given, words):
    with pytest.raises(beton.UserError, match=words):
        opened(**given)


# Positions


@pytest.mark.parametrize("more", [{}, {"indices": [*range(40), 3]}, {"weights": [1.0] * COUNT}, {"on_error": "skip"}])
@pytest.mark.parametrize("taken", [0, 1, 4, 6])
def test_a_loader_goes_on_in_mid_epoch_where_another_one_was(opened, taken, more):
    one, other = opened(seed=3, **more), opened(seed=3, workers=1, **more)
    list(one)
    epoch = iter(one)
    for _ in range(taken):
        next(epoch)
    state = one.state_dict()
    assert (state["epoch"], state["batch"]) == (1, taken)
    other.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert other.state_dict() == state
    other.set_epoch(1)  # as trainers do before each epoch
    rest, want = list(other), list(epoch)
    assert len(rest) == len(one) - taken and all(map(same, rest, want))
    assert one.state_dict() == other.state_dict() and one.state_dict()["epoch"] == 2
    assert labels(other) == labels(one.batches(2))


def test_a_position_counts_what_was_handed_out_in_the_latest_epoch(opened):
    loader = opened()
    for batch in loader:  # noqa: B007
        break
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
    first, second = iter(loader), iter(loader)
    next(second), next(first), next(second)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 2)
    next(loader.batches(9))
    assert loader.state_dict()["epoch"] == 2
    loader.close()
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 2)
    loader = opened()
    loader.load_state_dict(opened().state_dict() | {"batch": 3})
    loader.set_epoch(5)
    assert len(list(loader)) == 6, "another epoch begins at its first batch"


@pytest.mark.parametrize("given", [{"seed": 1}, {"batch_size": 9}, {"shuffle": False}, {"drop_last": True}])
def test_a_position_of_other_batches_is_an_error(opened, given):
    with pytest.raises(beton.UserError, match=f"the state is of a loader with {next(iter(given))}="):
        opened().load_state_dict(opened(**given).state_dict())


# Other processes


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_loader_goes_on_in_another_process(opened, numbered, method, monkeypatch):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method}")
    monkeypatch.chdir(numbered["beton"].parent)
    loader = opened(numbered["beton"].name, with_indices=True, seed=2, indices=range(30))
    next(epoch := iter(loader))
    state = loader.state_dict()
    monkeypatch.chdir(os.sep)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=put_batches, args=(loader, queue), daemon=True)
    process.start()
    found = queue.get(timeout=100)
    process.join(60)
    want = list(epoch)
    if method == "fork":  # it is the same object there, and begins its next epoch
        want = list(loader)
    assert process.exitcode == 0 and state["batch"] == 1
    for batch, same_batch in zip(found, want, strict=True):
        assert all((a == b.numpy()).all() for a, b in zip(batch, same_batch, strict=True))


def test_an_open_file_is_opened_again_in_another_process(numbered):
    with beton.open(numbered["beton"]) as file, pickle.loads(pickle.dumps(file)) as other:
        assert other.labels.tolist() == file.labels.tolist() and (other[3].image == file[3].image).all()


# Files


def test_a_file_gives_its_classes_and_parts_without_decoding(numbered, monkeypatch):
    with beton.open(numbered["beton"]) as file:
        monkeypatch.setattr(file, "payload", None)
        assert file.subset(["c003", 7, "c001"]).tolist() == [1, 3, 7]
        one, other = file.split(0.8, seed=1)
        assert (len(one), len(other)) == (36, 9) and sorted([*one, *other]) == list(range(COUNT))
        assert one.tolist() == file.split(0.8, seed=1)[0].tolist() != file.split(0.8)[0].tolist()
        for wrong, words in ((lambda: file.subset(["cat"]), "no class 'cat'"), (lambda: file.split(1.0), "part empty")):
            with pytest.raises(beton.UserError, match=words):
                wrong()


def test_statistics_are_those_of_the_pixels_as_normalize_takes_them(opened, numbered, tmp_path):
    with beton.open(numbered["beton"]) as file:
        moments = np.stack(
            [[(row.image / 255.0).mean((0, 1)), ((row.image / 255.0) ** 2).mean((0, 1))] for row in file]
        )
    for given, samples in (({}, list(range(COUNT))), ({"indices": [3, 9]}, [3, 9])):
        mean, std = opened(**given).statistics("image")
        want, square = moments[samples].mean(axis=0)
        np.testing.assert_allclose(mean, want)
        np.testing.assert_allclose(std, np.sqrt(square - want**2))
    few = opened(seed=2).statistics("image", samples=5)
    assert few == opened(seed=2, workers=1).statistics("image", samples=5) != opened().statistics("image")
    path = damage(copied(numbered["beton"], tmp_path / "a.beton"), [3])
    with pytest.raises(beton.DamagedSample, match="sample 3 "):
        opened(path).statistics("image")
    kept = [i for i in range(COUNT) if i != 3]
    np.testing.assert_allclose(opened(path, on_error="skip").statistics("image").mean, moments[kept].mean(axis=0)[0])
    for name, words in (("label", "'label' holds no images"), ("mask", "has no field 'mask'")):
        with pytest.raises(beton.UserError, match=words):
            opened().statistics(name)
