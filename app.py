"""Serve the page with its example photographs: `python app.py`. What is on it: `resegnet/web/`."""

from __future__ import annotations

import sys
from pathlib import Path

from resegnet import Segmenter
from resegnet.__main__ import main as resegnet

EXAMPLES = Path(__file__).parent / "examples"


def build_app(segmenter: Segmenter):
    """The page, a `gr.Blocks`; see `resegnet.web.layout`."""
    from resegnet.web.layout import build_app  # not before `serve` has made a folder for gradio's files

    return build_app(segmenter, EXAMPLES)


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit status is 1 where that cannot be."""
    return resegnet(["serve", "--examples", str(EXAMPLES), *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
