"""A real browser to look at pages with: headless Chromium over its DevTools pipe, by the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Chromium reads commands from descriptor 3 and writes answers to 4.
_ON_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)

_PATIENCE = 60  # seconds


def installed() -> str | None:
    """A Chromium or Chrome that starts; ``None`` where there is none (Ubuntu's may be a mere note on where it is)."""
    found = [path for name in _NAMES if (path := shutil.which(name))]
    return next(
        (path for path in found if subprocess.run([path, "--version"], capture_output=True).returncode == 0), None
    )


class Page:
    """One tab. What it asked the network for and what it threw gathers in ``requests`` and ``errors``."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._last, self._unread, self._session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and wait for what it answers."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, file: Path, width: int, dark: bool = False, script: bool = True) -> None:
        """Load a file as a screen of this width shows it."""
        self.events.clear()
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        self.tell("Emulation.setScriptExecutionDisabled", value=not script)
        self.tell("Page.navigate", url=file.resolve().as_uri())
        while not self._has("Page.loadEventFired"):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as a keyboard would."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, " ": 32}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def write(self, text: str) -> None:
        """Text into the field that has the focus."""
        self.tell("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        """The whole page as a PNG file."""
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, the page's own and ``data:`` left out."""
        asked = [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith("data:")][1:]

    @property
    def errors(self) -> list[str]:
        """What the page threw, said on its console, or tried although its policy forbids it."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for kind in kinds for event in self._of(kind)]

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") == method]

    def _has(self, method: str) -> bool:
        return bool(self._of(method))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE)
            assert ready, f"the browser says nothing for {_PATIENCE} s"
            more = os.read(self._answers.fileno(), 1 << 16)
            assert more, "the browser is gone"
            self._unread += more
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Page]:
    """A headless Chromium with a profile of its own, ended with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    arguments = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
        "--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_PIPES, str(theirs_in), str(theirs_out), *arguments],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(timeout=30)
