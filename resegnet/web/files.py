"""The folder of what visitors send and get: private, swept in time, gone with the app."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed app left there stays
    fcntl = None

PREFIX = "resegnet-page-"
MOST_BYTES = 10_000_000_000  # of files at a time; the results of a photograph of 8 megapixels take 20 MB


def own_folder() -> Path:
    """Make gradio keep its files in a folder of this process alone, which no other user may read.

    gradio's usual one is every app's, and outlives them. Ours goes at the end of the process; what killed ones left
    goes now. Call it before gradio is imported: where an assistant's photographs go is settled then.
    """
    place = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    # Not earlier: a request that is under way when the app is stopped would make the folder anew.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _lock(folder)
    files = folder / "files"  # a folder with one is a left-over where nobody holds the lock
    files.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(files)
    return files


def keep_swept(folder: Path, keep_s: float) -> None:
    """From now on delete files of the folder that are older than `keep_s`, and the oldest if they are too many."""

    def run() -> None:
        while True:
            time.sleep(min(10, keep_s / 6))  # before a stranger has filled the disk
            sweep(folder, time.time() - keep_s)

    threading.Thread(target=run, daemon=True).start()


def sweep(folder: Path, before: float, most_bytes: int = MOST_BYTES) -> None:
    """Delete all files that were written before that time, whoever wrote them, and folders that are empty since then.

    Then the oldest go until no more than `most_bytes` are left, so that nobody can fill the disk.

    gradio's `delete_cache` knows only files that it handed out: not those of a request that was cancelled, nor an
    upload that broke off.
    """
    kept = []
    for parent, folders, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names + folders):
            with suppress(OSError):  # it went meanwhile, or is a folder that is not empty
                state = path.lstat()
                if state.st_ctime < before:
                    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
                elif not path.is_dir():
                    kept.append((state.st_ctime, state.st_size, path))
    excess = sum(size for _, size, _ in kept) - most_bytes
    for _, size, path in sorted(kept):
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink()
            excess -= size


def _remove_leftovers(place: Path) -> None:
    for folder in place.glob(PREFIX + "*"):
        if (folder / "files").is_dir() and _lock(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> bool:
    """Take the lock of the folder until this process ends; False if somebody holds it, or it is another user's."""
    if fcntl is None:
        return False
    with suppress(OSError):
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
