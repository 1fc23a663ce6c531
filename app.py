"""The page: a fundus photograph in, its vessels out. `python app.py --help` tells the options."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
import threading
from collections import OrderedDict
from html import escape
from io import BytesIO
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from resegnet import ImageError, Segmentation, Segmenter
from resegnet.results import export

EXAMPLES = Path(__file__).parent / "examples"
ENVIRONMENT = "RESEGNET_MODEL"

KEEP_S = 3600  # how long a photograph and its results are kept, on disk and in memory
RECENT_BYTES = 1_000_000_000  # of results in memory; one of 8 megapixels takes 65 MB
QUEUE = 20  # requests that wait for their turn; the next one is told to come back
UPLOAD_LIMIT = "200mb"  # a 16-bit TIFF of 24 megapixels has 144 MB

# For the screen only; what is saved is PNG. Colour is kept at full resolution, since the thinnest vessels are a
# pixel wide. Drawn fundus of 3504 x 2336 on one busy core: 0.9 MB in 0.4 s, PNG 9.9 MB in 1.4 s.
JPEG = {"quality": 85, "subsampling": 0}

# A file is made when somebody asks for it; the browser then saves it.
SAVE_JS = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""

CSS = """
.gradio-container { width: 100% !important; max-width: 1200px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
#title h1 { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.01em; margin: 0; }
#title h1 span { color: var(--primary-600); }
#title p, #about p { color: var(--body-text-color); opacity: 0.75; margin: 0.2rem 0 0; }
#about { font-size: 0.85rem; border-top: 1px solid var(--border-color-primary); padding-top: 0.6rem; }
#overlay, #overlay .empty { background: #0b1016; }
#overlay .empty { min-height: 340px; color: #94a3b8; }
#overlay .empty::after { content: "The vessels of your photograph appear here"; position: absolute; margin-top: 4rem; }
#overlay .image-frame img { height: auto; max-height: min(70vh, 680px); }
#numbers strong { font-size: 1.3rem; font-variant-numeric: tabular-nums; }
#examples .container.gallery { width: 70px; height: 70px; }
#examples img { object-fit: cover; }
#message:not(:has(.note)) { display: none; }
.note { border-left: 4px solid #d97706; background: #d977061c; padding: 0.5rem 0.8rem; border-radius: 4px; margin: 0;
        overflow-wrap: anywhere; }
.note.error { border-color: #dc2626; background: #dc26261c; }
.note p { margin: 0; }
"""


class RecentResults:
    """The segmentations of the last photographs by file, so that a new threshold needs no second forward pass.

    Bounded in memory: the longest unused goes first, and is made again if it is asked for again.
    """

    def __init__(self, segmenter: Segmenter, limit_bytes: int = RECENT_BYTES) -> None:
        self._segmenter = segmenter
        self._limit_bytes = limit_bytes
        self._results: OrderedDict[str, Segmentation] = OrderedDict()
        self._lock = threading.Lock()  # gradio runs handlers in threads

    def __call__(self, path: str) -> Segmentation:
        """The segmentation of the photograph in file `path`, at the model's own threshold.

        Raises
        ------
        ImageError
            If the file is gone or no picture.
        """
        with self._lock:
            if path in self._results:
                self._results.move_to_end(path)
                return self._results[path]
        result = self._segmenter(path)
        with self._lock:
            self._results[path] = result
            while len(self._results) > 1 and sum(map(_size_bytes, self._results.values())) > self._limit_bytes:
                self._results.popitem(last=False)
        return result

    def forget(self, path: str) -> None:
        """Drop the segmentation of `path`, if it is there."""
        with self._lock:
            self._results.pop(path, None)


def _size_bytes(result: Segmentation) -> int:
    return result.image.nbytes + result.probability.nbytes + result.fov.nbytes


class Handlers:
    """What happens on the page. Files are written to gradio's folder, which it serves and empties in time."""

    def __init__(self, segmenter: Segmenter, examples: list[Path]) -> None:
        self.results = RecentResults(segmenter)
        self._fitted = segmenter.config.threshold
        self._examples = examples

    def show(self, path: str | None, previous: str | None) -> tuple:
        """Open a photograph, or close the last one (None); gives `shown` of `build_app`."""
        if previous != path:
            self.forget(previous)
        if path is None:
            return None, "", None, "", self._fitted, gr.Column(visible=False)
        try:
            result = self.results(path)
        except ImageError as error:
            text = f"<div class='note error' role='alert'><p>{escape(str(error))}</p></div>"
            return None, text, None, "", self._fitted, gr.Column(visible=False)
        warnings = "".join(f"<p>{escape(warning)}</p>" for warning in result.warnings)
        message = f"<div class='note' role='status'>{warnings}</div>" if warnings else ""
        return path, message, *_draw(result, path), self._fitted, gr.Column(visible=True)

    def show_example(self, index: int, previous: str | None) -> tuple:
        """Open an example; gives the upload field, empty, and `shown`."""
        return None, *self.show(str(self._examples[index]), previous)

    def forget(self, path: str | None) -> None:
        """Drop what is in memory of a session's photograph; examples stay, since others look at them too."""
        if path is not None and Path(path) not in self._examples:
            self.results.forget(path)

    def redraw(self, path: str | None, threshold: float) -> tuple[str, str]:
        """The overlay and numbers at another threshold."""
        return _draw(self._at(path, threshold), path)

    def write_mask(self, path: str | None, threshold: float) -> str:
        """A PNG of the mask at the threshold that the page shows."""
        return _keep(export.mask_png(self._at(path, threshold)), path, f"_mask_{threshold:.4g}.png")

    def write_overlay(self, path: str | None, threshold: float) -> str:
        """A PNG of the overlay at the threshold that the page shows."""
        return _keep(export.overlay_png(self._at(path, threshold)), path, f"_overlay_{threshold:.4g}.png")

    def write_probability(self, path: str | None, threshold: float) -> str:
        """A 16-bit PNG of the probability."""
        return _keep(export.probability_png(self._at(path, threshold)), path, "_probability.png")

    def segment(self, photograph: str | None, threshold: float | None) -> tuple[str, str, dict, str]:
        """Find the vessels of a colour fundus photograph.

        Parameters:
            photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF of 8 or 16 bit.
            threshold: from 0 to 1; pixels of this probability or more are vessel. If not given, the model's own.

        Returns:
            overlay: PNG of the photograph's size, the vessels coloured.
            mask: PNG of the photograph's size, 255 for vessel and 0 for none.
            numbers: threshold, measures, warnings, model and version.
        """
        if photograph is None:
            raise gr.Error("No photograph came; expected a file: name one.", print_exception=False)
        try:
            result = self.results(photograph)
            result = result if threshold is None else result.at(threshold)
        except ValueError as error:  # an ImageError, or a threshold out of range
            raise gr.Error(str(error), print_exception=False) from error
        overlay = _keep(export.overlay_png(result), photograph, "_overlay.png")
        return overlay, _keep(export.mask_png(result), photograph, "_mask.png"), export.summary(result), photograph

    def _at(self, path: str | None, threshold: float) -> Segmentation:
        try:
            if path is not None:
                return self.results(path).at(threshold)
        except ImageError:  # its file was deleted
            pass
        raise gr.Error("The photograph was deleted after an hour; open it again.", print_exception=False)


def _draw(result: Segmentation, path: str) -> tuple[str, str]:
    """A file to show and the line of numbers below it."""
    jpeg = BytesIO()
    Image.fromarray(result.overlay()).save(jpeg, "JPEG", **JPEG)
    height, width = result.image.shape[:2]
    density = result.measure()["vessel_density"]
    share = "no field of view" if math.isnan(density) else f"<strong>{density:.1%}</strong> of the field is vessel"
    return _keep(jpeg.getvalue(), path, "_overlay.jpg"), f"{share} &middot; {width} &times; {height} px"


def _keep(content: bytes, path: str, ending: str) -> str:
    return save_bytes_to_cache(content, export.safe_name(Path(path).stem) + ending, get_upload_folder())


def build_app(segmenter: Segmenter) -> gr.Blocks:
    """The page round a model; `.launch(**launch_options())` serves it. Programs call its endpoint `/segment`."""
    examples = sorted(p for p in EXAMPLES.glob("*") if p.suffix in (".jpg", ".png") and "_vessels" not in p.stem)
    handlers = Handlers(segmenter, examples)
    fitted = segmenter.config.threshold

    with gr.Blocks(title="ReSegNet", analytics_enabled=False, delete_cache=(KEEP_S // 6, KEEP_S)) as app:
        gr.HTML(
            "<h1>ReSeg<span>Net</span></h1><p>Finds the blood vessels in a colour photograph of the retina.</p>",
            elem_id="title",
        )
        # The file of the session's photograph; when it expires, the result leaves the memory too.
        current = gr.State(time_to_live=KEEP_S, delete_callback=handlers.forget)
        with gr.Row():
            with gr.Column(scale=2, min_width=270):
                # Not gr.Image, whose preview knows no TIFF and which refuses other files without our sentence.
                photograph = gr.File(label="Fundus photograph", height=170, elem_id="photograph")
                gallery = gr.Dataset(
                    label="Or try one of these",
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    visible=bool(examples),
                    elem_id="examples",
                )
            with gr.Column(scale=5, min_width=300):
                message = gr.HTML(elem_id="message")
                overlay = gr.Image(
                    show_label=False,
                    alt_text="The photograph, the vessels that were found coloured cyan",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="overlay",
                )
                with gr.Column(visible=False) as controls:
                    numbers = gr.HTML(elem_id="numbers")
                    threshold = gr.Slider(
                        0,
                        1,
                        value=fitted,
                        step=0.01,
                        label="Probability threshold",
                        info=f"Lower shows more and fainter vessels. Fitted for this model: {fitted:.4g}",
                        elem_id="threshold",
                    )
                    with gr.Row():
                        save_mask = gr.Button("Save mask", size="sm", min_width=120)
                        save_probability = gr.Button("Save probability", size="sm", min_width=120)
                        save_overlay = gr.Button("Save overlay", size="sm", min_width=120)
        gr.HTML(
            "<p>Research software, not a medical device: not for diagnosis or treatment.</p>"
            "<p>Photographs are not kept: an upload and its results are deleted after about an hour.</p>"
            f"<p>Model: {escape(segmenter.model or 'without a name')}, fitted threshold {fitted:.4g}.</p>",
            elem_id="about",
        )
        saved = gr.DownloadButton(visible="hidden")
        with gr.Group(visible=False):  # only for the types of `/segment`
            api_photograph = gr.File(label="photograph")
            api_threshold = gr.Number(label="threshold", value=fitted)
            api_overlay = gr.File(label="overlay")
            api_mask = gr.File(label="mask")
            api_numbers = gr.JSON(label="numbers")
            api_button = gr.Button()

        # One forward pass at a time; of quick steps of the slider only the last counts.
        shown = [current, message, overlay, numbers, threshold, controls]
        one_at_a_time = {"concurrency_id": "segment", "concurrency_limit": 1}
        page = {"api_visibility": "private", "trigger_mode": "always_last"}
        opening = {"show_progress_on": overlay, **one_at_a_time, **page}
        # While a number is being typed, the field may be empty or out of range.
        in_range = f"(path, value) => [path, Math.min(1, Math.max(0, value ?? {fitted}))]"
        photograph.upload(handlers.show, [photograph, current], shown, **opening)
        photograph.clear(handlers.show, [photograph, current], shown, **opening)
        gallery.click(handlers.show_example, [gallery, current], [photograph, *shown], **opening)
        gr.on(
            [threshold.input, threshold.release],
            handlers.redraw,
            [current, threshold],
            [overlay, numbers],
            show_progress="hidden",
            js=in_range,
            concurrency_limit=2,
            **page,
        )
        for button, write in [
            (save_mask, handlers.write_mask),
            (save_probability, handlers.write_probability),
            (save_overlay, handlers.write_overlay),
        ]:
            button.click(write, [current, threshold], saved, js=in_range, **page).success(None, saved, js=SAVE_JS)
        api_button.click(
            handlers.segment,
            [api_photograph, api_threshold],
            [api_overlay, api_mask, api_numbers, current],
            api_name="segment",
            **one_at_a_time,
        )
    return app.queue(max_size=QUEUE)


def launch_options() -> dict:
    """What the page wants of `launch`: its look, nothing from outside, nothing recorded."""
    return {
        "theme": gr.themes.Default(
            primary_hue="cyan",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],  # no font is fetched
            font_mono=["ui-monospace", "monospace"],
        ),
        "css": CSS,
        "footer_links": ["api", "settings"],
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": UPLOAD_LIMIT,
        "share": False,
        "ssr_mode": False,
    }


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit status is 1 where that cannot be."""
    parser = argparse.ArgumentParser(description="Serve the page of ReSegNet.")
    parser.add_argument("--model", help=f"folder or Hub id (default: ${ENVIRONMENT}, else the bundled release)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--host", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    arguments = parser.parse_args(argv)
    if arguments.port is not None and not 0 < arguments.port < 65536:
        parser.error(f"--port is {arguments.port}, expected 1 to 65535")
    name = arguments.model or os.environ.get(ENVIRONMENT) or None
    if arguments.revision and name is None:
        parser.error("--revision belongs to a model of the Hub: name it with --model")
    try:
        segmenter = Segmenter.from_pretrained(name, revision=arguments.revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"The model {name or '(bundled)'} cannot be had: {reason}", file=sys.stderr)
        return 1
    # A folder of our own, emptied at the end also by SIGTERM: /tmp/gradio is every app's, and outlives them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="resegnet-") as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", folder)
        try:
            build_app(segmenter).launch(server_name=arguments.host, server_port=arguments.port, **launch_options())
        except OSError as error:  # the port is taken
            print(f"The page cannot be served at that address: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
