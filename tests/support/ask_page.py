"""Start the page in an environment without torch, send it one photograph, and look at the mask: `.ci/run` calls it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Raise AssertionError if the page does not start, or finds no vessels."""
    assert find_spec("torch") is None
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        words = server.stdout.readline().split()
        assert words[:4] == ["The", "page", "is", "at"], words
        with tempfile.TemporaryDirectory() as folder:
            client = Client(words[4], verbose=False, analytics_enabled=False, download_files=folder)
            _, mask, *_ = client.predict(handle_file(ROOT / "examples" / "retina_cc0.jpg"), api_name="/segment")
            client.close()
            share = np.asarray(Image.open(mask)).astype(bool).mean()
        assert 0.02 < share < 0.2, share
        print(f"The page answers; {share:.1%} of the photograph is vessel.")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
