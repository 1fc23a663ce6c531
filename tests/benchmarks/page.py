"""Time the page in headless Chromium on this machine: `python tests/benchmarks/page.py [PHOTO ...]`.

Without photographs it takes two synthetic ones, of 565 x 584 and of 3504 x 2336. For each: seconds from the drop of the
file to the overlay on the screen, milliseconds from an input of the slider to the changed pixels, bytes sent for the
photograph and for a step of the slider. Before that, seconds from `python app.py` to its first answer. Server and
browser share the machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from resegnet.image import read_image
from resegnet.synthetic import draw_fundus

APP = Path(__file__).parents[2] / "app.py"
EXAMPLE = APP.parent / "examples" / "retina_cc0.jpg"
PORT = 7899
SHOWN = ".viewer[data-state=shown]:not([data-busy])"

# Sets the slider as a user's drag does and waits for the frame in which the picture was drawn, and for the next one,
# which is on the screen by then.
STEP = """async (value) => {
  const slider = document.querySelector("#viewer-threshold");
  const start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise(requestAnimationFrame);
  const drawn = performance.now() - start;
  await new Promise(requestAnimationFrame);
  return [drawn, performance.now() - start];
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", nargs="*", type=Path, metavar="PHOTO")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    images = [read_image(path) for path in arguments.photographs]
    images = images or [draw_fundus(31, (584, 565)).image, draw_fundus(31, (2336, 3504)).image]
    url = f"http://127.0.0.1:{PORT}"
    started = time.perf_counter()
    server = subprocess.Popen([sys.executable, APP, "--port", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        _wait_for(url)
        served = time.perf_counter() - started
        _segment(url, EXAMPLE)
        print(f"python app.py: page after {served:.1f} s, first answer after {time.perf_counter() - started:.1f} s")
        with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
            browser = driver.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            traffic = _Traffic(page)
            page.goto(url)
            page.wait_for_selector(".viewer .drop button")
            _open(page, images[0], Path(folder) / "warm up.jpg")  # the first forward pass of a process takes longer
            page.wait_for_timeout(10_000)  # and the examples are prepared at the start
            for image in images:
                _report(page, traffic, image, Path(folder), arguments.repeats)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return 0


def _report(page: Page, traffic: _Traffic, image: np.ndarray, folder: Path, repeats: int) -> None:
    seconds, sent = [], []
    for k in range(repeats):
        image[:8, :8] = 10 * k + 5  # another file each time, so that no answer comes from a cache
        traffic.start()
        seconds.append(_open(page, image, folder / f"{k}.jpg"))
        sent.append(traffic.bytes())
    traffic.start()
    steps = [page.evaluate(STEP, 60 + k) for k in range(60)]
    drawn, on_screen = ([step[k] for step in steps] for k in (0, 1))
    print(
        f"{image.shape[1]} x {image.shape[0]}: drop to overlay {_spread(seconds, 's', 2)}; "
        f"slider to drawn pixels {_spread(drawn, 'ms', 1)}, to the frame after it {_spread(on_screen, 'ms', 1)}; "
        f"{statistics.median(sent) / 1e6:.2f} MB sent per photograph, {traffic.bytes()} bytes in {len(steps)} steps",
        flush=True,
    )


def _open(page: Page, image: np.ndarray, path: Path) -> float:
    """Return the seconds from the drop of the photograph to its overlay."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    path.write_bytes(file.getvalue())
    start = time.perf_counter()
    page.set_input_files(".viewer .pick", path)
    page.wait_for_function("(name) => document.querySelector('.viewer .name').textContent === name", arg=path.name)
    page.wait_for_selector(SHOWN)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - start


def _spread(values: list[float], unit: str, digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} {unit} (worst {max(values):.{digits}f})"


class _Traffic:
    """Bytes that the server sent to the page, headers included."""

    def __init__(self, page: Page) -> None:
        self._sum = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.dataReceived", lambda event: self._add(event["encodedDataLength"]))
        session.on("Network.responseReceived", lambda event: self._add(event["response"]["encodedDataLength"]))

    def _add(self, count: int) -> None:
        self._sum += max(0, count)

    def start(self) -> None:
        self._sum = 0

    def bytes(self) -> int:
        return self._sum


def _segment(url: str, path: Path) -> None:
    """Request the vessels of a photograph, as a program does that knows both addresses."""
    answer = httpx.post(f"{url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    data = [{"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}, None]
    event = httpx.post(f"{url}/gradio_api/call/segment", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{url}/gradio_api/call/segment/{event}", timeout=120)
    assert "event: complete" in answer.text, answer.text


def _wait_for(url: str) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


if __name__ == "__main__":
    sys.exit(main())
