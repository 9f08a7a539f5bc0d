"""A headless Chromium, spoken to over the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = (
    shutil.which("chromium") or shutil.which("google-chrome"),
    shutil.which("chromedriver"),
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage"),
)


class Browser:
    """One window."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}/session"
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def call(self, path: str, content: Any = None, method: str = "POST") -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.root + path, data, method=method)
        with self.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self.call("/execute/sync", {"script": script, "args": []})

    def run_later(self, script: str) -> Any:
        """What the script hands to its last argument, a function, once it has it."""
        return self.call("/execute/async", {"script": script, "args": []})

    def visit(self, page: Path) -> None:
        self.call("/url", {"url": page.as_uri()})

    def size(self, width: int, height: int) -> None:
        self.call(
            "/goog/cdp/execute",
            {
                "cmd": "Emulation.setDeviceMetricsOverride",
                "params": {
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": 1,
                    "mobile": False,
                },
            },
        )

    def prefer(self, scheme: str) -> None:
        """Has pages be `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [feature]}}
        self.call("/goog/cdp/execute", command)

    def point(self, x: float, y: float, click: bool = False) -> None:
        steps: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}] if click else []
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.call("/actions", {"actions": [mouse]})

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.call("/se/log", {"type": "browser"})]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Starts a browser whose profile lies in `folder`."""
    assert CHROMIUM and DRIVER
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout
            port = next(int(m[1]) for line in driver.stdout if (m := re.search(r"on port ([1-9]\d*)", line)))
            browser = Browser(port)
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={folder}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = browser.call("", {"capabilities": {"alwaysMatch": wanted}})
            browser.root += f"/{session['sessionId']}"
            yield browser
            browser.call("", method="DELETE")
        finally:
            driver.terminate()
