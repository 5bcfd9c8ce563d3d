"""A headless Chromium, driven through its driver's HTTP interface; tests skip where there is none."""

import base64
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
STARTS_WITHIN = 20.0  # seconds


class Browser:
    """One window."""

    def __init__(self, address: str, session: str) -> None:
        self._session = f"{address}/session/{session}"

    def open(self, path: pathlib.Path) -> None:
        call(f"{self._session}/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a piece of JavaScript returns."""
        return call(f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def screenshot(self) -> bytes:
        return base64.b64decode(call(f"{self._session}/screenshot"))


def call(url: str, body: dict | None = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error


@contextlib.contextmanager
def started(folder: pathlib.Path, size: tuple[int, int] = (1400, 900)) -> Iterator[Browser]:
    """A browser for the length of a `with` block."""
    driver, binary = shutil.which("chromedriver"), next(filter(None, map(shutil.which, CHROMIUM)), None)
    if driver is None or binary is None:
        pytest.skip("no Chromium with its driver here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    session = None
    try:
        wait_for(address)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        arguments += [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}"]
        options = {"goog:chromeOptions": {"binary": binary, "args": arguments}}
        try:
            session = call(f"{address}/session", {"capabilities": {"alwaysMatch": options}})["sessionId"]
        except AssertionError as error:
            pytest.skip(f"Chromium does not start here: {error}")
        yield Browser(address, session)
    finally:
        if session:
            call(f"{address}/session/{session}", method="DELETE")
        process.terminate()
        process.wait(10)


def wait_for(address: str) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while True:
        with contextlib.suppress(OSError):
            if call(f"{address}/status")["ready"]:
                return
        if time.monotonic() > until:
            pytest.skip("the browser's driver does not answer")
        time.sleep(0.1)
