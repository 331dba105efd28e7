"""A headless browser that is driven over a pipe by the DevTools protocol: no driver, no port, no network."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --disable-default-apps --disable-extensions --disable-dev-shm-usage "
    "--remote-debugging-pipe --window-size=1100,2000"
)
PATIENCE = 60.0  # seconds, for a machine that is busy with other things
COMMANDS, ANSWERS = 3, 4  # the file descriptors that the browser reads from and writes to


class Tab:
    """One page of a browser, with everything that it said and asked for."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.rest = b""
        self.count = 0
        self.session = ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select([self.read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self.read, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        before = len(self.events)
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[before:]):
            self.events.append(self.receive())

    def run(self, script: str, *, wait: bool = False) -> Any:
        """The value of an expression in the page; `wait` for what a promise comes to, which needs scripts."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=wait)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, " ": 32}.get(
            key, ord(key.upper()[0])
        )
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        place = self.run(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)});"
            "it.scrollIntoView({block: 'center'}); const box = it.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def said(self) -> list[str]:
        """Errors and messages of the console, and faults of scripts."""
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def asked_for(self) -> list[str]:
        """Addresses of everything that was fetched, but for what the page itself holds."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [asked["request"]["url"] for asked in sent if not asked["request"]["url"].startswith("data:")]


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Starts a browser with a profile of its own, and ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    commands, answers = os.pipe(), os.pipe()
    # high numbers, so that giving the browser its two cannot overwrite them
    given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50) for fd in (commands[0], answers[1])]

    def place() -> None:
        os.dup2(given[0], COMMANDS)
        os.dup2(given[1], ANSWERS)

    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=noise,
            close_fds=False,
            preexec_fn=place,
        )
        for fd in (commands[0], answers[1], *given):
            os.close(fd)
        try:
            tab = Tab(commands[1], answers[0])
            yield tab
            tab.session = ""
            tab.call("Browser.close")
        finally:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for fd in (commands[1], answers[0]):
                os.close(fd)
