"""Make the README's picture of the page anew: `python tests/benchmarks/screenshot.py [--out FILE]`.

It opens the bundled model's page in headless Chromium with the free photograph of `examples/`. `--width 390 --dark` and
the like show the page as other visitors see it; `--empty` before they open a photograph. `--first-look` makes the
before/after that the page shows them then.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
FIRST_LOOK = ROOT / "resegnet/web/viewer_first_look.webp"
FIRST_LOOK_PX = 560
MEASURED = ".viewer[data-state=shown]:not([data-busy]) .measures[aria-busy=false]"


def main() -> None:
    """Serve the page, take the picture, and write it as JPEG."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "resegnet/web/screenshot.jpg", metavar="FILE")
    parser.add_argument("--width", type=int, default=1280, metavar="PX")
    parser.add_argument("--height", type=int, default=1180, metavar="PX")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--first-look", action="store_true")
    arguments = parser.parse_args()
    if arguments.first_look:
        write_first_look()
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when gradio is imported
        import app
        from resegnet import Segmenter
        from resegnet.web.layout import launch_options

        page = app.build_app(Segmenter.from_pretrained())
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        try:
            picture = take_picture(address, arguments)
        finally:
            page.close()
    Image.open(io.BytesIO(picture)).convert("RGB").save(arguments.out, quality=88, subsampling=0)


def write_first_look() -> None:
    """Write the photograph of `examples/`, and beside it the same with its vessels coloured."""
    from resegnet import Segmenter

    result = Segmenter.from_pretrained()(ROOT / "examples" / "retina_cc0.jpg")
    both = Image.new("RGB", (2 * FIRST_LOOK_PX, FIRST_LOOK_PX))
    for number, pixels in enumerate((result.image, result.overlay())):
        small = Image.fromarray(pixels).resize((FIRST_LOOK_PX, FIRST_LOOK_PX), Image.Resampling.LANCZOS)
        both.paste(small, (number * FIRST_LOOK_PX, 0))
    both.save(FIRST_LOOK, quality=80, method=6)


def take_picture(address: str, arguments: argparse.Namespace) -> bytes:
    """Return a PNG of the page after it has segmented and measured the photograph, or before (`--empty`)."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        visitor = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme="dark" if arguments.dark else "light",
        )
        visitor.goto(address)
        visitor.wait_for_selector(".viewer .drop button")
        if not arguments.empty:
            visitor.set_input_files(".viewer .pick", ROOT / "examples" / "retina_cc0.jpg")
            visitor.wait_for_selector(MEASURED, timeout=120_000)
        visitor.wait_for_timeout(500)  # until the last fade has ended
        picture = visitor.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    main()
