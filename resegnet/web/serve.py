"""Serve the page until it is interrupted."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

from resegnet.hub import MODEL_VARIABLE
from resegnet.segmenter import Segmenter
from resegnet.web.files import keep_swept, own_folder


def serve(model: str | None, revision: str | None, host: str | None, port: int | None, examples: Path | None) -> int:
    """Serve the page.

    Parameters
    ----------
    model
        Folder, Hub id or ID@REVISION; if not given, what the environment names, else the bundled one.
    revision
        Of a model of the Hub.
    host, port
        Where to listen; if not given, for this machine only, at the first free port from 7860.
    examples
        Folder of example photographs.

    Returns
    -------
    status
        1 where the page cannot be served.
    """
    name = model or os.environ.get(MODEL_VARIABLE) or None
    if name is not None and "@" in name and not os.path.isdir(name):
        name, _, at = name.partition("@")
        revision = revision or at
    try:
        segmenter = Segmenter.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"The model {name or '(bundled)'} cannot be had: {reason}", file=sys.stderr)
        return 1
    if examples is not None and not examples.is_dir():
        print(f"There is no folder {examples} with examples.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up too
    folder = own_folder()
    # gradio's `analytics_enabled=False` leaves some of its reports to the Hub on; these are read as they are sent.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # Of types of gradio and mcp, which are theirs.
    warnings.filterwarnings("ignore", r"The '\w+' attribute with value .* was provided to the `Field\(\)` function")
    with _no_stubs():
        from resegnet.web.handlers import KEEP_S
        from resegnet.web.layout import build_app, launch_options

    keep_swept(folder, KEEP_S)
    app = build_app(segmenter, examples, prepare_examples=True)
    try:
        _, url, _ = app.launch(
            server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, **launch_options()
        )
    except (OSError, OverflowError) as error:  # the port is taken, or is none
        print(f"The page cannot be served at that address: {error}", file=sys.stderr)
        return 1
    print(f"The page is at {url} until you stop it with Ctrl+C.", flush=True)
    app.block_thread()
    return 0


@contextmanager
def _no_stubs() -> Iterator[None]:
    """For gradio's import: at each start it parses its own source to write stubs for editors, a third of its time.

    It leaves that out for a class whose file cannot be told.
    """
    getfile = inspect.getfile

    def no_file(_: object) -> str:
        raise OSError

    inspect.getfile = no_file
    try:
        yield
    finally:
        inspect.getfile = getfile
