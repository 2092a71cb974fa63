"""A program that starts ranks in processes of its own (torchrun, submitit), with what a test does to these."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.support.scripts import ENVIRONMENT, ROOT

_LIMIT = 170  # seconds until it counts as hanging


class Launched:
    """`python *words` in a group of its own; what it prints goes to `folder`/output. Ended with the context."""

    def __init__(self, folder: Path, *words, before: tuple = (), **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output"
        command = [*before, sys.executable, *map(str, words)]
        with open(self._output, "w") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=ENVIRONMENT | environment, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *_) -> None:
        processes = self.children() if self.process.poll() is None else []
        for process in [self.process, *processes]:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def processes(self, word: str = "train_") -> list[psutil.Process]:
        """The processes that have `word` in their command line."""
        found = []
        for process in self.children():
            with contextlib.suppress(psutil.Error):
                if any(word in part for part in process.cmdline()):
                    found.append(process)
        return found

    def wait_for(self, what) -> None:
        """Until `what()` is true."""
        deadline = time.monotonic() + _LIMIT
        while not what():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def end(self) -> int:
        """Its status."""
        return self.process.wait(_LIMIT)


def torchrun(folder: Path, *words, before: tuple = (), **environment) -> Launched:
    """torchrun with its options, the script and the script's."""
    return Launched(folder, "-m", "torch.distributed.run", *words, before=before, **environment)


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        os.kill(process.pid, number)
