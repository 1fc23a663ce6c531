"""The page on ZeroGPU: the package `spaces`, with a service on loopback in place of the one that lends GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from support.synthetic import draw_fundus

from resegnet import Segmenter
from resegnet.engine import TwoLookNetwork
from resegnet.web import zero_gpu

ROOT = Path(__file__).parents[2]


class Echo:
    """A network that returns what it gets."""

    def run(self, *looks):
        return list(looks)


def test_elsewhere_the_decorated_network_answers_as_the_plain_one():
    lent = zero_gpu.LentGpuNetwork(Echo())
    assert lent("rgb") == "rgb"
    assert lent.look_twice("rgb", "context") == ("rgb", "context")
    assert isinstance(lent, TwoLookNetwork)


class Service(BaseHTTPRequestHandler):
    """Lends a GPU at once, and notes each request."""

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        self.server.seen.append((address.path, parse_qs(address.query)))
        lent = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
        body = json.dumps(lent if address.path == "/schedule" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


# Starts the app as a Space on ZeroGPU does. This machine has no GPU: where `spaces` would move the weights to one, they
# stay on the CPU.
SPACE = """
import runpy, sys
import spaces
import spaces.zero.torch as cuda
from spaces.zero.torch.patching import cuda_aliases
import torch

def move(callback=None):
    for stand_in, weights in list(cuda_aliases.items()):
        stand_in.data = torch.Tensor(weights)

cuda.pack, cuda.init, cuda.move = lambda: 0, lambda uuid: None, move
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_on_zero_gpu_the_network_runs_in_the_process_that_has_the_gpu(service, tmp_path):
    import torch

    if torch.version.cuda is None:
        pytest.skip("needs PyTorch with CUDA, as ZeroGPU has it")
    photograph = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(1, (230, 300)).image).save(photograph)
    (tmp_path / "cgroup").write_text("0::/space\n")
    environment = os.environ | {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{service.server_port}",
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(tmp_path / "cgroup"),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    server = subprocess.Popen(
        [sys.executable, "-c", SPACE, "app.py"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        words = next((line for line in server.stdout if line.startswith("The page is at")), "it has ended").split()
        assert ("/startup-report", {}) in service.seen  # without it the Hub stops the Space
        client = Client(words[4], verbose=False, analytics_enabled=False, download_files=str(tmp_path))
        _, mask, *_ = client.predict(handle_file(photograph), api_name="/segment")
        client.close()
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the processes that have the GPU, too
        server.communicate()
    asked = [query for path, query in service.seen if path == "/schedule"]
    assert asked[0]["durationSeconds"] == [str(zero_gpu.LENT_S)]
    (allowed,) = {query["pid"][0] for path, query in service.seen if path == "/allow"}
    assert int(allowed) != server.pid
    assert "/release" in [path for path, _ in service.seen]
    expected = Segmenter.from_pretrained(engine="torch")(photograph)
    np.testing.assert_array_equal(np.asarray(Image.open(mask)) > 0, expected.mask)
