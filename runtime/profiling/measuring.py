"""The measuring processes of all loaders: opened and compared one after the other, then asked in rounds."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

import pipelines
from beton.errors import UserError
from beton.format.parts import paths_of
from runtime.profiling.agreement import compare
from runtime.profiling.process import Measuring
from runtime.profiling.rounds import Figures

_STANDARD = "torch"  # Pillow's and torchvision's pixels: the reference
_TIMES_THE_FIRST = 10  # an epoch that takes longer than so many times the first one does not end any more


class Measurements:
    """Context that has a process for each loader, and a progress bar with the time that is left.

    `steps`: how many loaders are opened and measurements made; `profile`: the parameters; `folder`: a temporary one.
    """

    def __init__(self, steps: int, profile, folder: Path):
        self._profile, self._folder, self._stack = profile, folder, ExitStack()
        self._processes: dict[int, tuple[Measuring, dict]] = {}
        self._reference: Path | None = None
        self._bar = tqdm(total=steps, unit="step", dynamic_ncols=True, disable=None)

    def open(self, figures: list[Figures], task_of: Callable, cache: Path, stages: str) -> None:
        """Open each loader and read its first epoch; one that does not agree with the reference is skipped.

        task_of(figures): arguments of Task, and the photo folder of which the loader's data set is made, or None.
        `stages`: those of the batches that are compared.
        """
        if self._profile.photos:
            self.say("first batches of the reference")
            with Measuring(_STANDARD) as process:
                photos = str(Path(self._profile.photos).resolve())
                task = {"dataset": photos, "batch_size": 1, "workers": self._profile.num_workers}
                self._reference = self._sample(process, task, stages)
        for f in figures:
            try:
                self._open(f, *task_of(f), cache, stages)
            except UserError as error:
                f.skipped = error.what
            if f.skipped:
                self._bar.total -= self._profile.rounds
            self.done(f, f"{f.protocol}, {'not measured' if f.skipped else 'opened'}: {f.label()}")

    def _open(self, f: Figures, task: dict, photos: str | None, cache: Path, stages: str) -> None:
        started, process = time.perf_counter(), self._stack.enter_context(Measuring(f.loader))
        process.ask("ready")
        start = time.perf_counter() - started
        if photos is not None:
            self.say(f"data set of {f.label()}")
            task["dataset"] = process.ask("make", photos=photos, folder=str(cache))["dataset"]
        self.say(f"first batches of {f.label()}")
        if not pipelines.get(f.loader).is_ceiling:
            sample = self._sample(process, task, stages)
            self._reference = self._reference or sample
            f.about["difference"], why = compare(sample, self._reference)
            if why is not None:
                f.skipped = f"not the same batches as the reference: {why}"
                process.close()
                return
        self.say(f"first epoch of {f.label()}")
        f.opened = process.ask("open", task=task) | {"start_seconds": start}
        self._processes[id(f)] = process, task

    def _sample(self, process: Measuring, task: dict, stages: str) -> Path:
        path = self._folder / f"{len(list(self._folder.iterdir()))}.npz"
        process.ask("check", task={**task, "stages": {"image": stages}}, path=str(path))
        return path

    def measure(self, f: Figures, number: int) -> dict:
        """One measurement of a loader in a round."""
        process, task = self._processes[id(f)]
        cold = paths_of(task["dataset"]) if self._profile.cold else None
        f.about["cache"] = "cold" if cold else "warm"
        limit = 60 + 2 * self._profile.seconds + _TIMES_THE_FIRST * f.opened["warm_up_seconds"]
        return process.ask("measure", limit, seconds=self._profile.seconds, protocol=f.protocol, cold=cold)

    def say(self, text: str) -> None:
        """What is being done, beside the bar."""
        self._bar.set_description_str(text)

    def done(self, f: Figures, text: str) -> None:
        """A step is over."""
        self._bar.write(f"=> {text}" + (f" ({f.skipped})" if f.skipped else ""))
        sys.stdout.flush()
        self._bar.update()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        for process, _ in self._processes.values():
            process.leave()  # all at once
        self._stack.close()
