"""Pages as a browser draws them: measured in narrow and wide windows, light and dark, by headless Chromium."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
_QUIET = (
    "--headless --no-sandbox --hide-scrollbars --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=20000"
)

# Each page is a frame of a window's width: what a script sees of it is what a reader sees.
_MEASURE = """
const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
const opaque = colour => colour.length < 4 || colour[3] > 0;
function luminance([r, g, b]) {  // WCAG 2.2, relative luminance
  const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function contrast(view, element) {
  let behind = element;
  while (behind && !opaque(numbers(view.getComputedStyle(behind).backgroundColor))) behind = behind.parentElement;
  const paper = behind ? numbers(view.getComputedStyle(behind).backgroundColor) : [255, 255, 255];
  const [high, low] = [numbers(view.getComputedStyle(element).color), paper].map(luminance).sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}
function scrolls(element) {
  return element && (getComputedStyle(element).overflowX == "auto" || scrolls(element.parentElement));
}
const says = element => element.textContent.trim().slice(0, 40);
const shape = image => image.width / image.height * image.naturalHeight / image.naturalWidth;
function measure(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, images = [...page.images];
  const elements = [...page.querySelectorAll("body *")], pictures = [...page.querySelectorAll("picture")];
  const words = elements.filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
  const wide = elements.filter(e => !scrolls(e) && e.getBoundingClientRect().right > view.innerWidth + 0.5);
  return {
    page: frame.name, window: view.innerWidth, width: page.documentElement.scrollWidth, images: images.length,
    empty: images.filter(i => !i.complete || !i.naturalWidth || !i.width || !i.height).map(i => i.alt),
    stretched: images.filter(i => Math.abs(shape(i) - 1) > 0.05).map(i => i.alt),
    wide: wide.map(e => e.tagName + " " + says(e)),
    faint: words.map(e => [contrast(view, e), says(e)]).sort((a, b) => a[0] - b[0])[0],
    dark: pictures.map(p => p.querySelector("img").currentSrc == p.querySelector("source").srcset),
    paper: luminance(numbers(view.getComputedStyle(page.body).backgroundColor)),
    fetched: view.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
  };
}
addEventListener("load", () => {
  const said = document.querySelector("pre");
  try {
    said.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
  } catch (error) {
    said.textContent = JSON.stringify(String(error));
  }
});
"""


def measured(pages: Sequence[Path], folder: Path, *, widths: Sequence[int], dark: bool) -> list[dict]:
    """What a browser makes of each page in windows of these widths; keys as in `measure` above."""
    frames = "".join(
        f'<iframe name="{page.parent.name}" width="{width}" height="900" style="border:0" '
        f'srcdoc="{html.escape(page.read_text(encoding="utf-8"))}"></iframe>'
        for page in pages
        for width in widths
    )
    source = folder / "frames.html"
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    source.write_text(f"{head}<script>{_MEASURE}</script><pre></pre>{frames}", encoding="utf-8")
    shown = browse(source, "--dump-dom", folder=folder, dark=dark)
    return json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)[1]))


def browse(page: Path, *options: str, folder: Path, dark: bool = False) -> str:
    """Open a page; returns what the browser prints."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(BROWSER), *_QUIET.split(), f"--user-data-dir={folder / 'profile'}", scheme, *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


class Tab:
    """A page that is worked on by keys and clicks, over the DevTools protocol through a pipe.

    `asked` holds the address of each request that the page made, `said` what its console told.
    """

    def __init__(self, process, to_browser, from_browser):
        self.process, self._out, self._in, self._rest, self._number = process, to_browser, from_browser, b"", 0
        self.asked, self.said, self.session = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            told = self._next(deadline)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
        raise TimeoutError(method)

    def _next(self, deadline):
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser says nothing")
            self._rest += os.read(self._in, 1 << 16)
        text, _, self._rest = self._rest.partition(b"\0")
        told = json.loads(text)
        if told.get("method") == "Network.requestWillBeSent":
            self.asked.append(told["params"]["request"]["url"])
        elif told.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(told["params"]))
        return told

    def run(self, script):
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, script, seconds=10.0):
        """Until a script says yes; how many seconds that took."""
        start = time.monotonic()
        while not self.run(script):
            assert time.monotonic() - start < seconds, (script, self.said)
            time.sleep(0.02)
        return time.monotonic() - start

    def open(self, url):
        self.call("Page.navigate", url=url)

    def press(self, key):
        names = {" ": "Space", "Enter": "Enter", "Escape": "Escape"}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}
        about = {"key": key, "code": names.get(key, key), "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def tab(folder: Path, *more: str) -> Iterator[Tab]:
    """A tab of a browser of its own, with more options, which ends with the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def place() -> None:  # the browser reads from 3 and writes to 4
        one, other = os.dup(to_read), os.dup(from_write)
        os.dup2(one, 3)
        os.dup2(other, 4)

    options = [word for word in _QUIET.split() if "virtual-time" not in word]
    command = [
        str(BROWSER),
        *options,
        f"--user-data-dir={folder / 'profile'}",
        "--remote-debugging-pipe",
        "--window-size=1280,800",
        *more,
    ]
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, close_fds=False, preexec_fn=place)
    os.close(to_read)
    os.close(from_write)
    try:
        yield Tab(process, to_write, from_read)
    finally:
        process.kill()
        process.wait()
        os.close(to_write)
        os.close(from_read)
