"""Scripts, run in this process or in one of their own.

- here(script, *argv): in this process, as its last line runs it. The quickest; nothing of it may outlive the test.
- forked(script, *argv), Forked: in a process that is forked from a server that has imported everything, so it starts
  at once. It can be killed, and its memory, signals and files are its own.
- run_script(...): a process as a user starts it, which takes seconds. For what concerns that start.
"""

import contextlib
import importlib
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
# uv leaves the packages uncompiled: kept once compiled, an import of torch and timm takes 5 s of CPU time and not 12
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# torch's threads slow each other down when other programs run beside the tests
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
_SCRIPTS = ["write_dataset", "train_imagenet", "train_transformers", "profile_loaders"]
_PRELOAD = [*_SCRIPTS, "pipelines.beton", "pipelines.torch", "runtime.profiling.measure", "runtime.profiling.report"]
_PRELOAD += ["runtime.training.models", "runtime.training.run", "runtime.training.schedules", "tests.support.warm"]
_LIMIT = 250  # seconds until a process counts as hanging; none takes half as long on a busy machine


@dataclass(frozen=True)
class End:
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str


def here(script: str, *argv) -> End:
    """Run a script, such as "benchmarks/storage_modes.py", in this process."""
    # The modules themselves, not those of the test: `run` is the edge that is tested
    from runtime.config import run

    module = importlib.import_module(_module(script))
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    words = mock.patch.object(sys, "argv", [script, *map(str, argv)])
    try:
        with words, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run(module.main, getattr(module, "NAMES", {}))
    except SystemExit as end:
        status = end.code
    except Exception as error:  # noqa: BLE001  reported as an end like the others
        status = 1
        err.write(f"Traceback: {error!r} at {traceback.extract_tb(error.__traceback__)[-1]}\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return End(status or 0, out.getvalue(), err.getvalue())


def _module(script: str) -> str:
    return script.removesuffix(".py").replace("/", ".")


def run_script(*command, timeout=300, cwd=ROOT, **env) -> subprocess.CompletedProcess:
    """Run a script as a user does, e.g. run_script("write_dataset.py", "--cfg.split=train"), or Python's options."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**ENVIRONMENT, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_code(code: str, *arguments, timeout: float = 120) -> str:
    """What Python code prints in a process of its own that can import the repository and the tests."""
    done = run_script("-c", "import sys\n" + code, *arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Forked:
    """A process that calls `function(*arguments)`; what it prints goes to files in `folder`.

    It leads a group of its own. The server is forked once for each test process, so both start at once.
    """

    def __init__(self, folder: Path, function, *arguments):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for name in ("output", "errors"):
            (folder / name).write_bytes(b"")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self.process = context.Process(target=_begin, args=(str(folder), function, arguments))
        with mock.patch.dict(os.environ, ENVIRONMENT):
            self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    def wait_for(self, what) -> None:
        """Until `what()` is true or the process has ended."""
        deadline = time.monotonic() + _LIMIT
        while not what() and self.is_running:
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.001)

    def end(self, timeout: float = _LIMIT) -> int:
        """Wait for the end; the status, negative for a signal."""
        self.process.join(timeout)
        assert not self.process.is_alive(), f"it has not ended; {self.errors}"
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, to what may have ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Kill it with whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join(10)


def forked(script: str, *argv, hook=None, timeout: float = _LIMIT) -> End:
    """Run a script with a main() in a process of its own; `hook` is called in it before."""
    with tempfile.TemporaryDirectory() as folder:
        process = Forked(Path(folder), run_main, script, list(map(str, argv)), hook)
        try:
            return End(process.end(timeout), process.output, process.errors)
        finally:
            process.stop()


def run_main(script: str, argv: list[str], hook=None) -> None:
    """What the last line of a script does."""
    from runtime import config

    sys.argv = [script, *argv]
    if hook:
        hook()
    module = importlib.import_module(_module(script))
    config.run(module.main, getattr(module, "NAMES", {}))


def _begin(folder: str, function, arguments) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, nohup the other
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by hand
    os.chdir(ROOT)
    for name, file in (("output", 1), ("errors", 2)):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), file)
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def options(settings: dict, **changes) -> list[str]:
    """{"a.b": 1} as a command line; changes have __ for the dot. None leaves an option out."""
    settings = settings | {key.replace("__", "."): value for key, value in changes.items()}
    return [f"--{key}={value}" for key, value in settings.items() if value is not None]


def complaint(done, *words: str) -> str:
    """What is wrong with an end that should be status 2 and one line `error: what; what to do` with these words."""
    text = re.sub(r"[^\n]*\r", "", done.stderr)  # on a slow machine a progress bar comes first
    lines = [line for line in text.splitlines() if line.strip()]
    if done.returncode != 2:
        return f"status {done.returncode}: {done.stdout[-300:]} {text[-3000:]}"
    if len(lines) != 1 or not text.endswith("\n"):
        return f"{len(lines)} lines: {text[-3000:]}"
    what, _, to_do = lines[0].removeprefix("error: ").partition("; ")
    if not lines[0].startswith("error: ") or not what.strip() or not to_do.strip():
        return f"it is not `error: what; what to do`: {lines[0][:300]}"
    if not lines[0].isprintable():
        return f"it has letters that cannot be printed: {lines[0][:300]!r}"
    return "".join(f"it does not say {word}: {lines[0][:1000]}" for word in words if word not in lines[0])


def assert_user_error(done, *words: str) -> None:
    """The run ended as a user's mistake does, with these words."""
    found = complaint(done, *words)
    assert not found, found


def wrong(cases) -> str:
    """What is wrong with the ends (in this process) of (script, arguments, words that its error has), a line each."""
    found = []
    for script, argv, words in cases:
        if what := complaint(here(script, *argv), *words):
            found.append(f"{what} - {script} {' '.join(map(str, argv))!r:.1000}")
    return "\n".join(found)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
