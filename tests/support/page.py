"""Programs that talk to the running page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio_client import Client

from support import PATIENCE_S


@contextmanager
def connect(url: str, downloads: Path) -> Iterator[Client]:
    """Give a client of the page that writes what it gets into a folder."""
    client = Client(url, verbose=False, analytics_enabled=False, download_files=str(downloads))
    yield client
    client.close()


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
