"""Serve the page with its example photographs: `python app.py`. The page itself is in `resegnet/web/`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resegnet import Segmenter
from resegnet.__main__ import run_command
from resegnet.errors import require
from resegnet.web.serve import add_serve_arguments, serve

if TYPE_CHECKING:
    import gradio as gr

EXAMPLES = Path(__file__).parent / "examples"


def build_app(segmenter: Segmenter) -> gr.Blocks:
    """Build the page with the example photographs; see `resegnet.web.layout.build_app`."""
    require("gradio", "the page")
    from resegnet.web.layout import build_app  # imports gradio, for which `serve` prepares a folder first

    return build_app(segmenter, EXAMPLES)


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted. The exit status is 1 if it cannot be served."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the page.")
    add_serve_arguments(parser)
    parser.set_defaults(examples=EXAMPLES)
    arguments = parser.parse_args(argv)
    return run_command(
        partial(serve, arguments.model, arguments.revision, arguments.host, arguments.port, arguments.examples),
        "app.py",
    )


if __name__ == "__main__":
    sys.exit(main())
