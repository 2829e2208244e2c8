"""A headless Chromium, spoken to over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from itertools import count

from websockets.sync.client import connect

PROGRAM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), "chromium")
KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37}


class Browser:
    """One page."""

    def __init__(self, profile):
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [PROGRAM, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        where = next(line for line in self.process.stderr if line.startswith("DevTools listening on "))
        self.resources = ExitStack()
        self.socket = self.resources.enter_context(connect(where.split()[-1], max_size=None))
        self.numbers, self.session, self.problems = count(1), None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self.resources.close()
        self.process.kill()
        self.process.wait()

    def call(self, method, **parameters):
        """Call a method of the protocol; note what the page complains about on the way."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            entry = answer.get("params", {}).get("entry", {})
            if answer.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
                self.problems.append(json.dumps(answer["params"]))

    def run(self, expression):
        """Value of a JavaScript expression, whose promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url, width=1000, height=800, dark=False):
        """Show a page in a window of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        about = "document.querySelector('#about')?.textContent"
        self.wait(f"{about} && !{about}.includes('\u2026')")

    def wait(self, expression):
        """Wait until an expression is true."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self.run(f"Boolean({expression})"):
                return
            time.sleep(0.02)
        raise AssertionError(f"not within 30 s: {expression}; {self.problems}")

    def press(self, key):
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            code = KEYS[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
            if key == "Enter" and kind == "rawKeyDown":
                self.call("Input.dispatchKeyEvent", type="char", key=key, text="\r", windowsVirtualKeyCode=code)

    def screenshot(self, file):
        """Write a PNG of the window; return its bytes."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        file.write_bytes(data)
        return data
