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
    """`python *words` in a group of its own; what it prints goes to `folder`/output. Ended with the context.

    `before`: a command that starts it; `core`: number of the only core that it may use.
    """

    def __init__(self, folder: Path, *words, before: tuple = (), core: int | None = None, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output"
        command = [*before, sys.executable, *map(str, words)]
        own = sorted(os.sched_getaffinity(0))
        cores = own if core is None else [own[core % len(own)]]
        with open(self._output, "w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=ENVIRONMENT | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
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


def torchrun(folder: Path, *words, **how) -> Launched:
    """torchrun with its options, the script and the script's."""
    return Launched(folder, "-m", "torch.distributed.run", *words, **how)


@contextlib.contextmanager
def two_machines():
    """Two network namespaces with a cable between them: (name, address, interface) of each. Needs root and iproute2."""
    number = os.getpid() % 100_000
    machines = [(f"t{number}{side}", f"10.213.7.{i + 1}", f"v{number}{side}") for i, side in enumerate("ab")]
    try:
        for name, *_ in machines:
            _ip("netns", "add", name)
        first, second = machines
        _ip("link", "add", first[2], "netns", first[0], "type", "veth", "peer", second[2], "netns", second[0])
        for name, address, interface in machines:
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            for device in ("lo", interface):
                _ip("-n", name, "link", "set", device, "up")
        yield machines
    finally:
        for name, *_ in machines:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def cable(machine: tuple[str, str, str], state: str) -> None:
    """Cut a machine off ("down"), or connect it again ("up")."""
    _ip("-n", machine[0], "link", "set", machine[2], state)


def why_no_namespaces() -> str:
    """Why two_machines() cannot work here; "" where it can."""
    try:
        with two_machines():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs root, iproute2 and network namespaces ({error})"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        os.kill(process.pid, number)
