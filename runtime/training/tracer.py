"""A Chrome trace of some steps (training.trace), by torch.profiler. Open it in chrome://tracing or ui.perfetto.dev."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from beton.errors import UserError

# The first steps start threads and compile; a trace of many steps is too large to be opened
_BEFORE, _WARM_UP, _RECORDED = 5, 2, 10


class Tracer:
    """Records some steps of the first epoch that is trained; a context."""

    def __init__(self, path: str, device: torch.device):
        self._path = Path(path)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        steps = schedule(wait=_BEFORE, warmup=_WARM_UP, active=_RECORDED, repeat=1)
        self._profile = profile(activities=activities, schedule=steps, on_trace_ready=self._write)
        self._written = False

    def watch(self, batches: Iterable) -> Iterator:
        """The batches; the trace shows the wait for each."""
        batches = iter(batches)
        while True:
            with record_function("waiting for data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def step_ended(self) -> None:
        """A batch has been trained."""
        if not self._written:
            self._profile.step()

    def __enter__(self) -> "Tracer":
        self._profile.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._profile.__exit__(*error)
        if not self._written and error[0] is None:
            few = f"the run has fewer than {_BEFORE + _WARM_UP + 1} steps"
            print(f"=> no trace in {self._path}: {few}", flush=True)

    def _write(self, profiler) -> None:
        """Write the trace aside and rename it."""
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.json")
        try:
            profiler.export_chrome_trace(str(aside))
            os.replace(aside, self._path)
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot write {self._path} ({error})", "give another training.trace") from None
        self._written = True
        print(f"=> Trace of {_RECORDED} steps in {self._path} (chrome://tracing or ui.perfetto.dev)", flush=True)
