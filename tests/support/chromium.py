"""A page in headless Chromium, driven through its debugging pipe (Chrome DevTools Protocol)."""

import json
import os
import select
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_LIMIT = 120  # seconds until Chromium counts as hanging
_QUIET = [f"--disable-{what}" for what in ("gpu", "background-networking", "component-update", "sync", "extensions")]
_QUIET += ["--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe"]


class Chromium:
    """A context with one page; `requests` (URLs) and `complaints` (console, log, exceptions) are those of it so far."""

    def __init__(self, folder):
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if found is None:
            pytest.skip("Chromium is not installed")
        self.requests, self.complaints, self._loads, self._number = [], [], 0, 0
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # It reads commands from descriptor 3 and writes answers to 4
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", shell, found, *_QUIET, f"--user-data-dir={folder}/profile", "about:blank"]
        out = open(folder / "chromium.log", "wb")  # noqa: SIM115  the browser has it
        self._process = subprocess.Popen(command, pass_fds=(to_browser, from_browser), stdout=out, stderr=out)
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)
        out.close()
        self._rest, self._session = b"", None

    def __enter__(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(_LIMIT)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params) -> dict:
        """The answer to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Load a page and wait for all of it."""
        before = self._loads
        self.call("Page.navigate", url=url)
        while self._loads == before:
            self._next()

    def run(self, code: str):
        """The value of an expression of the page."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], _LIMIT)[0], "Chromium does not answer"
            data = os.read(self._read, 1 << 16)
            assert data, "Chromium has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(params)
        elif method == "Page.loadEventFired":
            self._loads += 1
        return message
