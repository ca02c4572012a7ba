"""A real Chromium, headless, over its DevTools protocol: opens pages, and tells what they do.

Rules of this file: the browser is Debian's package `chromium`, or what CHROMIUM names; one process for all tests of a
run, a new tab for each page; whatever a page writes to its console, raises or asks the network for is kept.
"""

import json
import os
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

TIMEOUT = 30.0  # seconds for one answer


class Tab:
    """One page in the browser."""

    def __init__(self, socket: Connection, numbers: Iterator[int], session: str) -> None:
        self.socket, self.numbers, self.session = socket, numbers, session
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Asks, and waits for the answer. Raises RuntimeError where the browser refuses."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params, "sessionId": self.session}))
        while (message := json.loads(self.socket.recv(TIMEOUT))).get("id") != number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def wait_for(self, method: str) -> dict[str, Any]:
        while True:
            for event in self.events:
                if event["method"] == method:
                    return event
            self.events.append(json.loads(self.socket.recv(TIMEOUT)))

    def open(self, path: Path) -> None:
        """Loads a file, until its scripts have run."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def look(self, *, dark: bool = False, width: int = 1280, height: int = 900, media: str = "") -> None:
        """The window's size, the colours that the reader prefers, "print" for paper. Before `open`."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, script: str) -> Any:
        """What the script gives, as JSON values. Raises AssertionError where it raises."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def point(self, selector: str, n: int = 0) -> None:
        """Moves the pointer onto the middle of the n-th thing of that kind, which is scrolled into sight."""
        box = self.value(
            f"(() => {{ const el = document.querySelectorAll({json.dumps(selector)})[{n}];"
            "el.scrollIntoView({block: 'center'}); const b = el.getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2] })()"
        )
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot of the page, or of what the window shows, as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the page wrote to the console, raised, or was refused."""
        self.value("0")  # what was said before has come
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in names]

    def fetched(self) -> list[str]:
        """What the page asked for, but for itself."""
        self.value("0")
        asked = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in asked if one["request"]["url"] != one["documentURL"]]


class Browser:
    """A running Chromium."""

    def __init__(self, socket: Connection) -> None:
        self.socket, self.numbers = socket, count(1)

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        whole = Tab(self.socket, self.numbers, "")
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        whole.session = session
        try:
            yield whole
        finally:
            self._ask("Target.closeTarget", targetId=target)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv(TIMEOUT))).get("id") != number:
            pass
        result: dict[str, Any] = message["result"]
        return result


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Starts the browser and ends it. Raises RuntimeError, which says what to install, where there is none."""
    command = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if command is None:
        raise RuntimeError("these tests need Chromium: apt-get install chromium, or set CHROMIUM to a browser's path")
    quiet = ("--no-first-run", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
    own = ("--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}")
    with ExitStack() as after:
        process = subprocess.Popen(
            [command, *own, *quiet], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        after.callback(process.wait)
        after.callback(process.terminate)
        assert process.stderr is not None
        after.callback(process.stderr.close)
        said = ""
        while (found := re.search(r"ws://\S+", said)) is None:
            said = process.stderr.readline()
            if not said:
                raise RuntimeError(f"{command} ended with code {process.wait()} before it listened")
        yield Browser(after.enter_context(connect(found[0], max_size=None, proxy=None)))
