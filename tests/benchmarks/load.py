"""Load the page with many visitors at once: `python tests/benchmarks/load.py [--clients N] [--photographs N]`.

Each client sends its own photographs through `gradio_client`, one after the other, and compares each mask with that of
the same model without the page. A client whose request is rejected because the queue is full tries again after a
moment. Meanwhile the page itself is requested. Then more requests than the queue holds arrive at once. Clients and
server share the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from PIL import Image

from resegnet import Segmenter
from resegnet.synthetic import draw_fundus

APP = Path(__file__).parents[2] / "app.py"
PORT = 7898
SIZES = [(584, 565), (960, 999), (584, 565), (1424, 2144), (960, 999), (584, 565), (2336, 3504), (584, 565)]
PATIENCE_S = 0.5  # pause of a client that is told to wait; doubled each time
FLOOD = 100


@dataclass
class Load:
    """Answers that the clients of a load received."""

    seconds: list[float] = field(default_factory=list)  # from the first try to the right answer
    told: Counter[str] = field(default_factory=Counter)  # answers by kind: answered, told to wait, wrong, failed
    took: float = 0.0

    def __str__(self) -> str:
        ranks = np.percentile(self.seconds, [50, 95]) if self.seconds else [np.nan] * 2
        return (
            f"{self.told['answered']} answered, {self.told['wrong']} wrong, {self.told['failed']} failed, "
            f"{self.told['told to wait']} times told to wait; {self.told['answered'] / self.took:.2f} a second; "
            f"from asking to the answer p50 {ranks[0]:.1f} s, p95 {ranks[1]:.1f} s"
        )


def ask_all(url: str, shares: list[list[tuple[Path, str]]], downloads: Path) -> Load:
    """Let clients send their shares at once; each photograph comes with the `digest` of the expected mask."""
    load = Load()

    def ask(number: int) -> None:
        client = Client(url, verbose=False, analytics_enabled=False, download_files=str(downloads / str(number)))
        try:
            for path, expected in shares[number]:
                asked, patience = time.perf_counter(), PATIENCE_S
                while True:
                    try:
                        _, mask, *_ = client.predict(handle_file(path), api_name="/segment")
                    except QueueError:
                        load.told["told to wait"] += 1
                        time.sleep(patience * (1 + number / len(shares)))  # not all at once again
                        patience = min(2 * patience, 8)
                        continue
                    except Exception as error:  # counted and shown, and the others go on
                        load.told["failed"] += 1
                        print(f"{path.name}: {type(error).__name__}: {error}", file=sys.stderr)
                        break
                    with Image.open(mask) as image:
                        right = digest(np.array(image) > 0) == expected
                    load.told["answered" if right else "wrong"] += 1
                    load.seconds.append(time.perf_counter() - asked)
                    break
        finally:
            client.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(ask, range(len(shares))))
    load.took = time.perf_counter() - began
    return load


def digest(mask: np.ndarray) -> str:
    return hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()


def flood(url: str, photograph: Path, count: int = FLOOD) -> Counter[int]:
    """Send many requests at once, without waiting for answers; return the number of each status code."""
    with httpx.Client(base_url=f"{url.rstrip('/')}/gradio_api", timeout=120) as client:
        (path,) = client.post("/upload", files={"files": (photograph.name, photograph.read_bytes())}).json()
        body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, 0.4]}
        with ThreadPoolExecutor(16) as pool:
            return Counter(pool.map(lambda _: client.post("/call/segment", json=body).status_code, range(count)))


@contextmanager
def asked_meanwhile(url: str, every_s: float = 0.5):
    """Request the page again and again; yield the list of the seconds that it took."""
    seconds, stop = [], threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            began = time.perf_counter()
            with urllib.request.urlopen(url, timeout=60) as answer:
                answer.read()
            seconds.append(time.perf_counter() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()


def draw_photographs(folder: Path, count: int, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Path]:
    """Write different synthetic photographs of mixed sizes, turned, mirrored and darkened."""
    paths = []
    drawn: dict[int, np.ndarray] = {}
    for number in range(count):
        seed, variant = number % len(sizes), number // len(sizes)
        if seed not in drawn:
            drawn[seed] = draw_fundus(40 + seed, sizes[seed]).image
        image = np.rot90(drawn[seed], variant % 4)
        image = image[:, ::-1] if variant // 4 % 2 else image
        image = (image * (1 - 0.05 * (variant // 8))).astype(np.uint8)
        paths.append(folder / f"eye{number}.jpg")
        Image.fromarray(image).save(paths[-1], quality=92)
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--photographs", type=int, default=10, help="of each client")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw_photographs(folder, arguments.clients * arguments.photographs)
        segmenter = Segmenter.from_pretrained()
        expected = [digest(segmenter(path).mask) for path in paths]
        if len(set(expected)) < len(paths):
            print("Two of the photographs have the same mask, so that a mix-up would not be seen.", file=sys.stderr)
            return 1
        del segmenter
        shares = [list(zip(paths, expected, strict=True))[k :: arguments.clients] for k in range(arguments.clients)]
        server = subprocess.Popen([sys.executable, APP, "--port", str(PORT)], stdout=subprocess.PIPE, text=True)
        try:
            url = f"http://127.0.0.1:{PORT}"
            while f"The page is at {url}/" not in server.stdout.readline():
                if server.poll() is not None:
                    return 1
            time.sleep(15)  # until the examples are prepared
            with asked_meanwhile(url) as quiet:
                time.sleep(10)
            before = _memory_gb(server.pid)
            with asked_meanwhile(url) as busy:
                load = ask_all(url, shares, folder)
            print(f"{arguments.clients} clients, {arguments.photographs} photographs each: {load}")
            print(f"the page meanwhile: {_spread(busy)}; before: {_spread(quiet)}")
            print(f"peak memory of the server {_memory_gb(server.pid):.2f} GB, before {before:.2f} GB")
            counts = flood(url, paths[0])
            print(f"{FLOOD} requests at one blow: {counts[200]} taken, {counts[503]} told to wait, {counts}")
        finally:
            server.terminate()
            server.wait()
    return 0 if load.told["answered"] == len(paths) and set(counts) <= {200, 503} else 1


def _memory_gb(pid: int) -> float:
    """Return the largest resident memory of a process so far, on Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s"


if __name__ == "__main__":
    sys.exit(main())
