"""The process in which a loader is measured: runtime/profiling/measure.py, asked by lines of JSON."""

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from beton.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
_LAST_SECONDS = 10  # that a process has to end by itself


class Measuring:
    """A process of runtime/profiling/measure.py for one loader: ask() it, in the end close() it."""

    def __init__(self, loader: str):
        self.loader, self._errors = loader, tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        command = [sys.executable, "-m", "runtime.profiling.measure", loader]
        # A session of its own: a terminal's Ctrl-C is for the parent, which then ends it
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, do: str, limit: float | None = None, **request) -> dict:
        """The answer to a request (see measure.py); raises UserError with its reason, or when the process ended.

        `limit`: seconds until it counts as hanging, and is killed.
        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], limit)[0]:
                os.killpg(self._process.pid, 9)
                raise UserError(f"loader '{self.loader}' has not answered after {limit:.0f} s", "measure without it")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise UserError(f"loader '{self.loader}' ended with status {status}{self._last_words()}", "see there")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"loader '{self.loader}': {answer['error']}", answer["to_do"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        return f" ({lines[-1].strip()})" if lines else ""

    def leave(self) -> None:
        """Tell it that nothing more is asked."""
        with suppress(OSError):
            self._process.stdin.close()

    def close(self) -> None:
        """End it, and the processes that it started."""
        if self._errors.closed:
            return
        self.leave()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)  # whoever is left
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def measure_load(loader: str, task: dict, seconds: float) -> dict:
    """Protocol load: one loader in a fresh process, opened, warmed up and measured once.

    `task`: arguments of beton.loading.task.Task; `seconds`: time at least so long. Returns the figures of
    runtime.profiling.measure.Measured.open and measure.
    """
    with Measuring(loader) as measuring:
        return measuring.ask("open", task=task) | measuring.ask("measure", seconds=seconds)
