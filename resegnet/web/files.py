"""The folder of uploads and results: private, swept regularly, deleted with the app."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

KEEP_S = 3600  # how long a photograph and its results are kept, on disk and in memory
PREFIX = "resegnet-page-"
MAX_BYTES = 10_000_000_000  # of all files at a time; the results of a photograph of 8 megapixels take 20 MB


def own_folder() -> Path:
    """Make gradio keep its files in a folder of this process, which no other user may read.

    gradio's default folder is shared by all apps and outlives them. This one is deleted when the process ends. The
    folders of processes that were killed are deleted now. Call this before gradio is imported: gradio decides at its
    import where it keeps the photographs that come over MCP.

    Returns
    -------
    Path
        The folder.
    """
    place = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    # At exit, not earlier: a request that is still running when the app stops would create the folder again.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _lock(folder)
    files = folder / "files"  # tells a folder of ours whose lock is free from one that is just being made
    files.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(files)
    return files


def keep_swept(folder: Path, keep_s: float) -> None:
    """Start a thread that deletes files older than `keep_s` seconds, and the oldest if there are too many."""

    def run() -> None:
        while True:
            time.sleep(min(10, keep_s / 6))  # short, so that nobody fills the disk between two sweeps
            sweep(folder, time.time() - keep_s)

    threading.Thread(target=run, daemon=True).start()


def sweep(folder: Path, before: float, max_bytes: int = MAX_BYTES) -> None:
    """Delete old files and old empty folders, then the oldest files until few enough are left.

    gradio's `delete_cache` knows only the files that it handed out. It keeps those of cancelled requests and of
    uploads that broke off.

    Parameters
    ----------
    folder
        Its contents are swept; it stays.
    before
        Files last changed before this time go, in seconds since the epoch.
    max_bytes
        Limit for all files together, so that nobody can fill the disk.
    """
    kept = []
    for parent, folders, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names + folders):
            with suppress(OSError):  # deleted meanwhile, or a folder that is not empty
                state = path.lstat()
                if state.st_ctime < before:
                    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
                elif not path.is_dir():
                    kept.append((state.st_ctime, state.st_size, path))
    excess = sum(size for _, size, _ in kept) - max_bytes
    for _, size, path in sorted(kept):
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink()
            excess -= size


def _remove_leftovers(place: Path) -> None:
    for folder in place.glob(PREFIX + "*"):
        # Anybody may make a link of this name in a folder for temporary files.
        if not folder.is_symlink() and (folder / "files").is_dir() and _lock(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> bool:
    """Lock the folder until this process ends. Return False if another process holds the lock, or another user."""
    if sys.platform == "win32":  # no `fcntl`: the folders of killed processes stay
        return False
    import fcntl

    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True
