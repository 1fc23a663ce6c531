"""Serve the page: `python app.py`. What is on it: `resegnet/web/`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile

from resegnet import Segmenter
from resegnet.hub import ENVIRONMENT
from resegnet.web.layout import build_app, launch_options

__all__ = ["build_app", "launch_options", "main"]


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit status is 1 where that cannot be."""
    parser = argparse.ArgumentParser(description="Serve the page of ReSegNet.")
    parser.add_argument("--model", help=f"folder, Hub id or ID@REVISION (default: ${ENVIRONMENT}, else bundled)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--host", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    arguments = parser.parse_args(argv)
    if arguments.port is not None and not 0 < arguments.port < 65536:
        parser.error(f"--port is {arguments.port}, expected 1 to 65535")
    name = arguments.model or os.environ.get(ENVIRONMENT) or None
    revision = arguments.revision
    if revision and name is None:
        parser.error("--revision belongs to a model of the Hub: name it with --model")
    if name is not None and "@" in name and not os.path.isdir(name):
        name, _, at = name.partition("@")
        revision = revision or at
    try:
        segmenter = Segmenter.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"The model {name or '(bundled)'} cannot be had: {reason}", file=sys.stderr)
        return 1
    # A folder of our own, emptied at the end also by SIGTERM: /tmp/gradio is every app's, and outlives them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="resegnet-") as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", folder)
        try:
            app = build_app(segmenter, prepare_examples=True)
            app.launch(server_name=arguments.host, server_port=arguments.port, **launch_options())
        except OSError as error:  # the port is taken
            print(f"The page cannot be served at that address: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
