"""Make the README's picture of the page anew: `python tests/benchmarks/screenshot.py [--out FILE]`.

It opens the bundled model's page in headless Chromium with the free photograph of `examples/`. `--width 390 --dark` and
the like show the page as other visitors see it.
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
MEASURED = ".viewer[data-state=shown]:not([data-busy]) .measures[aria-busy=false]"


def main() -> None:
    """Serve the page, take the picture, and write it as JPEG."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "resegnet/web/screenshot.jpg", metavar="FILE")
    parser.add_argument("--width", type=int, default=1280, metavar="PX")
    parser.add_argument("--height", type=int, default=1180, metavar="PX")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when gradio is imported
        import app
        from resegnet import Segmenter
        from resegnet.web.layout import launch_options

        page = app.build_app(Segmenter.from_pretrained())
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        try:
            picture = take_picture(address, arguments.width, arguments.height, arguments.dark)
        finally:
            page.close()
    Image.open(io.BytesIO(picture)).convert("RGB").save(arguments.out, quality=88, subsampling=0)


def take_picture(address: str, width: int, height: int, dark: bool) -> bytes:
    """Return a PNG of the page after it has segmented and measured the photograph."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        visitor = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        visitor.goto(address)
        visitor.wait_for_selector(".viewer .drop button")
        visitor.set_input_files(".viewer .pick", ROOT / "examples" / "retina_cc0.jpg")
        visitor.wait_for_selector(MEASURED, timeout=120_000)
        visitor.wait_for_timeout(500)  # until the last fade has ended
        picture = visitor.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    main()
