"""Hooks for scripts that start Python processes: these are forked too, and need not import everything again.

That they can be started for real: test_profile_loaders.py, test_start.py.
"""

import multiprocessing
import multiprocessing.process
import os
import runpy
import signal
import subprocess
import sys


def forked_children(*folders: str) -> None:
    """From now on `[sys.executable, script or "-m", ...]` is forked from this process. `folders` hold more modules."""
    sys.path += folders
    subprocess.Popen = ForkedChild


class ForkedChild(subprocess.Popen):
    """A subprocess.Popen, but for how a Python process begins."""

    # Its arguments are the same from Python 3.10 to 3.13
    def _execute_child(self, args, *given):
        if args[0] != sys.executable:
            return super()._execute_child(args, *given)
        cwd, env, pipes, new_session = given[4], given[5], given[9:15], given[20]
        sys.stdout.flush(), sys.stderr.flush()
        child = multiprocessing.get_context("fork").Process(
            target=_begin, args=(args[1:], cwd, env, (pipes[0], pipes[3], pipes[5]), new_session)
        )
        child.start()
        multiprocessing.process._children.discard(child)  # so it is waited for here, and not there
        self.pid, self._child_created = child.pid, True
        self._close_pipe_fds(*pipes)
        return None


def _begin(words, cwd, env, standard, new_session) -> None:
    """What the process does; `standard`: what its stdin, stdout and stderr are, -1 for its parent's."""
    for number, file in enumerate(standard):
        if file != -1:
            os.dup2(file, number)
    os.closerange(3, 1024)  # the pipes of its brothers: they would not end
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if new_session:
        os.setsid()
    if cwd:
        os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = list(map(str, words[words[0] == "-m" :]))
    if words[0] == "-m":
        sys.modules.pop(words[1], None)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
