"""The command `serve`: its arguments, and the page until it is interrupted."""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from resegnet.errors import ResegnetError, first_line, require
from resegnet.hub import MODEL_VARIABLE
from resegnet.segmenter import Segmenter
from resegnet.web.files import KEEP_S, keep_swept, own_folder
from resegnet.web.zero_gpu import is_zero_gpu, load_for_zero_gpu


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve` to a parser; `app.py` and `python -m resegnet serve` share them."""
    models = (
        "bundled, bundled-vessels, bundled-cc-by, a folder, a Hub id or ID@REVISION "
        f"(default: ${MODEL_VARIABLE}, else bundled)"
    )
    parser.add_argument("--model", help=f"release: {models}")
    parser.add_argument("--revision", help="branch, tag or commit of a release on the Hub")
    parser.add_argument("--host", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--examples", type=Path, metavar="DIR", help="folder of example photographs")


def serve(model: str | None, revision: str | None, host: str | None, port: int | None, examples: Path | None) -> int:
    """Serve the page until it is interrupted.

    Parameters
    ----------
    model
        Folder, Hub id or ID@REVISION. The default is the environment variable `RESEGNET_MODEL`, else the bundled model.
    revision
        Branch, tag or commit of a model of the Hub.
    host, port
        Address to listen at. The default is this machine only, at the first free port from 7860.
    examples
        Folder of example photographs.

    Returns
    -------
    int
        Exit status: 1 if the page cannot be served. The reason is printed to standard error.

    Raises
    ------
    MissingExtraError
        If gradio is not installed.
    """
    require("gradio", "the page")
    if examples is not None and not examples.is_dir():
        print(f"--examples is {examples}, expected a folder of photographs: there is none.", file=sys.stderr)
        return 1
    folder = own_folder()  # before loading, which imports gradio on ZeroGPU
    segmenter = _load(model, revision)
    if segmenter is None:
        return 1
    try:
        if host is not None:
            socket.getaddrinfo(host, None)  # gradio would try a hundred ports at a name that nobody has
    except (OSError, UnicodeError) as error:
        print(f"The page cannot be served at {host}: {error}. Give an address of this machine.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM cleans up too
    # gradio's `analytics_enabled=False` leaves some of its reports to the Hub on. It reads these two when it sends one.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # Types inside gradio and mcp cause this warning; nothing here can change them.
    warnings.filterwarnings("ignore", r"The '\w+' attribute with value .* was provided to the `Field\(\)` function")
    with _no_stubs():
        from resegnet.web.layout import build_app, launch_options
        from resegnet.web.sessions import keep_sessions_swept

    keep_swept(folder, KEEP_S)
    # A GPU is lent for a visitor's photograph, once the page runs; none is for examples at the start.
    app = build_app(segmenter, examples, prepare_examples=not is_zero_gpu())
    try:
        _, url, _ = app.launch(
            server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, **launch_options()
        )
    except (OSError, OverflowError) as error:  # the port is in use, or is not a port
        print(f"The page cannot be served at that address: {error}", file=sys.stderr)
        return 1
    keep_sessions_swept(app, KEEP_S)
    print(f"The page is at {url} until you stop it with Ctrl+C.", flush=True)
    app.block_thread()
    return 0


def _load(model: str | None, revision: str | None) -> Segmenter | None:
    """Load the model that the arguments or the environment name; print the reason and return None if that fails."""
    name = model or os.environ.get(MODEL_VARIABLE) or None
    if name is not None and "@" in name and not os.path.isdir(os.path.expanduser(name)):
        name, _, at = name.partition("@")
        revision = revision or at
    try:
        if is_zero_gpu():
            return load_for_zero_gpu(name, revision)
        return Segmenter.from_pretrained(name, revision=revision)
    except (ResegnetError, HFValidationError, OSError) as error:  # the Hub's other errors are OSErrors
        print(f"The model {name or '(bundled)'} cannot be loaded: {first_line(error)}.", file=sys.stderr)
        return None


@contextmanager
def _no_stubs() -> Iterator[None]:
    """Import gradio without its generation of editor stubs, which takes a third of the time of the import.

    gradio parses its own source for them at each start. It skips a class whose source file is unknown.
    """
    getfile = inspect.getfile

    def no_file(object: Any) -> str:
        raise OSError

    inspect.getfile = no_file
    try:
        yield
    finally:
        inspect.getfile = getfile
