"""Users' own operations: what they draw, what they hold, what goes wrong in them, what is compiled once."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from numpy.random import rand

from beton.errors import UserError
from beton.ffcv.pipeline import AllocationQuery, Compiler, Operation, caching
from beton.ffcv.pipeline.state import State
from beton.ffcv.segment import Segment, Source
from beton.ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor, ToTorchImage
from beton.stages.randomness import install

IMAGES = np.random.default_rng(0).integers(0, 100, (8, 6, 5, 3)).astype(np.uint8)
INDICES = np.arange(20, 28)


class Own(Operation):
    """An operation of a function: plain Python, unless `compiled`."""

    def __init__(self, code, compiled=True, memory=True):
        super().__init__()
        self.code, self.compiled, self.memory = code, compiled, memory

    def generate_code(self):
        return self.code

    def declare_state_and_memory(self, previous_state):
        query = AllocationQuery(previous_state.shape, previous_state.dtype) if self.memory else None
        return replace(previous_state, jit_mode=self.compiled), query


def segment(*operations, **more):
    return Segment("image", operations, State(True, torch.device("cpu"), (6, 5, 3), np.dtype("u1")), 8, **more)


def run(made, epoch=0, number=0):
    return made.run(IMAGES.copy(), INDICES, epoch, number)


def noisy():
    offset = 7

    def code(images, target):
        for i in my_range(len(images)):
            target[i] = images[i] + np.random.randint(0, 50) + offset + 50 * rand()
        return target

    code.is_parallel = True
    return code


my_range = Compiler.get_iterator()


def drawing_in_python(tensor, _, indices):
    numbers = (
        torch.rand(len(tensor), 1, 1, 1) + np.random.rand() + rand() + torch.from_numpy(indices)[:, None, None, None]
    )
    return tensor + numbers


drawing_in_python.with_indices = True


def test_draws_depend_on_seed_epoch_and_batch_and_not_on_threads():
    install()  # as a callable of the library does: numba must still know the functions
    chain = [RandomHorizontalFlip(), Own(noisy()), ToTensor(), ToTorchImage(), Own(drawing_in_python, False, False)]
    one = segment(*chain, seed=3)
    wanted = [run(one, 1, number) for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda number: run(one, 1, number), range(12)))
    assert all(torch.equal(a, b) for a, b in zip(wanted, made, strict=True))
    assert torch.equal(wanted[0], run(segment(*chain, seed=3), 1))
    others = [run(one, 2), wanted[1], run(segment(*chain, seed=4), 1), one.run(IMAGES.copy(), INDICES[::-1], 1, 0)]
    assert not any(torch.equal(wanted[0], other) for other in others)


def test_batches_stay_as_they_are_while_any_part_of_them_is_held():
    def ends(images, target):
        return target[1:][1:]

    one = segment(Own(noisy()), Own(ends, False), RandomHorizontalFlip(), ToTensor())
    held = [run(one, 0, number)[2:] for number in range(4)]
    copies = [batch.clone() for batch in held]
    for number in range(20):
        run(one, 1, number)
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))


def test_memory_that_nobody_holds_is_used_again():
    one = segment(RandomHorizontalFlip())
    places = {run(one, 0, number).ctypes.data for number in range(10)}
    assert len(places) == 1


def test_exceptions_name_the_operation_the_pipeline_and_the_samples():
    def boom(images, target):
        if images[0, 0, 0, 0] < 200:
            raise ValueError("no such pixel")
        return images

    for operation in (Own(boom), Own(boom, compiled=False)):
        with pytest.raises(ValueError, match="no such pixel") as caught:
            run(segment(operation), 2, 5)
        assert "Own of the pipeline 'image', in batch 5 of epoch 2, samples 20, 21" in str(caught.value)


class Coded(Exception):
    def __init__(self, code, *, hint):
        super().__init__()
        self.code, self.hint = code, hint


@pytest.mark.parametrize("error", [Coded(7, hint="h"), KeyError("key"), OSError(2, "gone", "file")])
def test_exceptions_keep_their_kind_and_what_they_carry(error):
    def fails(images, target):
        raise error

    with pytest.raises(type(error)) as caught:
        run(segment(Own(fails, compiled=False)), 0)
    found = caught.value
    assert "Own of the pipeline" in str(found) and str(error) in str(found) and found.__cause__ is error
    assert (found.args, vars(found), type(found).__name__) == (error.args, vars(error), type(error).__name__)
    assert getattr(found, "errno", None) == getattr(error, "errno", None)
    again = pickle.loads(pickle.dumps(found)) if not isinstance(error, Coded) else found
    assert str(again) == str(found)


def test_an_iterator_that_is_at_its_end_is_an_error_too():
    with pytest.raises(RuntimeError, match=r"StopIteration.*Own of the pipeline"):
        run(segment(Own(lambda images, target: next(iter(())), compiled=False)), 0)


def test_what_cannot_be_run_is_refused_at_once_by_name():
    def untyped(images, target):
        return images.no_such_thing

    with pytest.raises(
        UserError, match=r"numba cannot compile Own of the pipeline 'image'.*no_such_thing.*jit_mode=False"
    ):
        segment(RandomHorizontalFlip(), Own(untyped)).compile()
    with pytest.raises(UserError, match="Own of the pipeline 'image'.*behind ToDevice"):
        segment(ToTensor(), ToDevice("cuda:0"), Own(untyped))
    with pytest.raises(UserError, match="is no Operation"):
        segment(ToTensor(), lambda batch: batch)
    sharing = Own(untyped)
    sharing.declare_shared_memory = lambda state: AllocationQuery((1,), np.dtype("u1"))
    with pytest.raises(UserError, match="memory that pipelines share"):
        segment(sharing)


def test_a_compiled_operation_behind_to_tensor_gets_an_array():
    class Twice(Own):
        def declare_state_and_memory(self, previous_state):
            query = AllocationQuery(previous_state.shape, previous_state.dtype)
            return replace(previous_state, jit_mode=True), query

    def twice(images, target):
        target[:] = 2 * images
        return target

    one = segment(ToTensor(), Twice(twice), ToTorchImage())
    assert one.parts[1] == ("Twice", "compiled") and one.state.dtype == torch.uint8
    assert torch.equal(run(one), 2 * torch.from_numpy(IMAGES).permute(0, 3, 1, 2))


def test_without_the_compiler_operations_run_as_python():
    Compiler.set_enabled(False)
    try:
        one = segment(Own(lambda images, target: images + np.random.randint(0, 50, images.shape)))
        assert one.parts == [("Own", "plain")] and (run(one) == run(one)).all()
    finally:
        Compiler.set_enabled(True)


def test_a_decoder_of_a_user_reads_the_file():
    records = np.array([(3, 2), (0, 3)], [("ptr", "<u8"), ("size", "<u8")])
    storage = np.arange(10, dtype=np.uint8)

    @numba.njit
    def read(address, state):
        return state[0][address : address + 2]

    class Decoder(Own):
        def generate_code(self):
            read = self.memory_read

            def code(indices, target, metadata, storage_state):
                for row, sample in enumerate(indices):
                    target[row] = read(metadata[sample]["ptr"], storage_state)
                return target

            return code

        def declare_state_and_memory(self, previous_state):
            return replace(previous_state, shape=(2,)), AllocationQuery((2,), np.dtype("u1"))

    source = Source(None, records, read, (storage,))
    state = State(True, torch.device("cpu"), None, np.dtype("u1"))
    one = Segment("bytes", [Decoder(None), ToTensor()], state, 4, source=source, decodes=True)
    one.compile()
    assert one.run(None, np.array([1, 0, 1]), 0, 0).tolist() == [[0, 1], [3, 4], [0, 1]]


def test_functions_of_numba_s_own_threads_run_one_at_a_time():
    @numba.njit(parallel=True)
    def inner(images, target):
        flat, made = images.reshape(-1), target.reshape(-1)
        for i in numba.prange(len(flat)):
            made[i] = flat[i] + 1

    def outer(images, target):
        inner(images, target)
        return target

    assert caching.calls_parallel(outer) and not caching.calls_parallel(noisy())
    one = segment(Own(outer))
    with ThreadPoolExecutor(4) as threads:
        assert all((made == IMAGES + 1).all() for made in threads.map(lambda number: run(one, 0, number), range(20)))


def _adding(amount, table=None):
    def inner(x):
        return x + amount

    def code(images, target):
        target[0, 0, 0, 0] = inner(images[0, 0, 0, 0]) if table is None else table[0]
        return target

    return code


def test_a_digest_sees_all_that_a_function_is_made_of():
    names = {caching.digest(_adding(1)), caching.digest(_adding(2)), caching.digest(_adding(1, np.arange(3)))}
    names |= {caching.digest(_adding(1, np.arange(4))), caching.digest(noisy())}
    assert len(names) == 5 and None not in names
    assert caching.digest(_adding(1, np.arange(3))) == caching.digest(_adding(1, np.arange(3)))
    assert caching.digest(_adding(object())) is None


def test_equal_operations_are_compiled_once_and_changed_attributes_count():
    def scaled(factor):
        def code(images, target):
            images[0, 0, 0, 0] = factor
            return images

        return code

    assert Compiler.compile(scaled(2)) is Compiler.compile(scaled(2)) is not Compiler.compile(scaled(3))
    assert [int(run(segment(Own(scaled(k))))[0, 0, 0, 0]) for k in (1, 2)] == [1, 2]
