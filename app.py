"""The page: a fundus photograph in, its vessels out. `python app.py --help` tells the options."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections import OrderedDict
from html import escape
from io import BytesIO
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image

from resegnet import ImageError, Segmentation, Segmenter
from resegnet.results import export

EXAMPLES = Path(__file__).parent / "examples"
ENVIRONMENT = "RESEGNET_MODEL"

KEEP_S = 3600  # uploads and results live as long as somebody may sit before one photograph
RECENT_BYTES = 1_000_000_000  # of results in memory; one of 8 megapixels takes 64 MB
QUEUE = 20  # people or programs that wait; the next one is told to come back
UPLOAD_LIMIT = "200mb"  # a 16-bit TIFF of 24 megapixels has 144 MB

# Measured on 3504 x 2336 (one busy core): PNG 9.0 MB and 1.0 s, JPEG at this quality {JPEG}.
# Colour at full resolution (subsampling 0), since the thinnest vessels are a pixel wide.
JPEG = {"quality": 85, "subsampling": 0}

EXPIRED = "This photograph was deleted after an hour; please open it again."

# The browser fetches what a handler has just written; no file is made before somebody asks for it.
SAVE_JS = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""

CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto; }
#title h1 { font-size: 1.7rem; font-weight: 650; letter-spacing: -0.01em; margin: 0; }
#title h1 span { color: var(--primary-500); }
#title p, #about { color: var(--body-text-color-subdued); margin: 0.15rem 0 0; }
#about { font-size: 0.85rem; border-top: 1px solid var(--border-color-primary); padding-top: 0.75rem; }
#about p { margin: 0 0 0.25rem; }
#numbers strong { font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.note { border-left: 4px solid #d97706; background: #d9770618; padding: 0.5rem 0.8rem; border-radius: 4px;
        margin: 0; overflow-wrap: anywhere; }
.note.error { border-color: #dc2626; background: #dc262618; }
.note ul { margin: 0; padding-left: 1.1rem; }
"""


class RecentResults:
    """The segmentations of the last photographs by file, so that a new threshold needs no second forward pass.

    Bounded in memory: the longest unused goes first, and is found anew if it is asked for again.
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
            If the file is not there or not a picture.
        """
        with self._lock:
            if path in self._results:
                self._results.move_to_end(path)
                return self._results[path]
        result = self._segmenter(path)
        with self._lock:
            self._results[path] = result
            while len(self._results) > 1 and sum(map(_size, self._results.values())) > self._limit_bytes:
                self._results.popitem(last=False)
        return result

    def forget(self, path: str | None) -> None:
        """Drop the segmentation of `path`, if there is one."""
        with self._lock:
            self._results.pop(path, None)


def _size(result: Segmentation) -> int:
    return result.image.nbytes + result.probability.nbytes + result.fov.nbytes


def build_app(segmenter: Segmenter) -> gr.Blocks:
    """The page round a model. Start it with `.queue(max_size=QUEUE).launch(**launch_options())`.

    Programs call its endpoint `/segment`.
    """
    results = RecentResults(segmenter)
    fitted = segmenter.config.threshold
    examples = sorted(p for p in EXAMPLES.glob("*") if p.suffix in (".jpg", ".png") and "_vessels" not in p.stem)

    # Layout

    with gr.Blocks(title="ReSegNet", analytics_enabled=False, delete_cache=(KEEP_S // 6, KEEP_S)) as app:
        gr.HTML(
            "<h1>ReSeg<span>Net</span></h1><p>Finds the blood vessels in a colour photograph of the retina.</p>",
            elem_id="title",
        )
        # The file of the session's photograph; when it expires, its result leaves the memory too.
        current = gr.State(None, time_to_live=KEEP_S, delete_callback=results.forget)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                photograph = gr.File(label="Fundus photograph: JPEG, PNG, TIFF, BMP, WebP", height=170)
                gallery = gr.Dataset(
                    label="Or try one of these",
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    visible=bool(examples),
                )
                message = gr.HTML(elem_id="message")
            with gr.Column(scale=5, min_width=300):
                overlay = gr.Image(
                    label="Vessels",
                    alt_text="The photograph with the vessels that were found coloured cyan",
                    height="min(62vh, 640px)",
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
                        info=f"Lower finds more and fainter vessels. Fitted value of the model: {fitted:.3g}",
                        elem_id="threshold",
                    )
                    with gr.Row():
                        save_mask = gr.Button("Mask (PNG)", size="sm", min_width=100)
                        save_probability = gr.Button("Probability (16-bit PNG)", size="sm", min_width=100)
                        save_overlay = gr.Button("Overlay (PNG)", size="sm", min_width=100)
        gr.HTML(
            "<p>Research software, not a medical device: not for diagnosis or treatment.</p>"
            "<p>Photographs are not kept: an upload and its results are deleted after about an hour, and nothing is "
            f"logged.</p><p>Model: {escape(segmenter.model or 'unnamed')}, fitted threshold {fitted:.3g}.</p>",
            elem_id="about",
        )
        saved = gr.DownloadButton(visible="hidden")
        with gr.Group(visible=False):  # the types of `/segment`; the page itself does not show them
            api_photograph = gr.File(label="photograph")
            api_threshold = gr.Number(label="threshold", value=None, minimum=0, maximum=1)
            api_overlay, api_mask = gr.File(label="overlay"), gr.File(label="mask")
            api_numbers = gr.JSON(label="numbers")
            api_button = gr.Button()

        # Handlers

        def keep(content: bytes, path: str, ending: str) -> str:
            """Write into gradio's own folder, which serves it and deletes it in time."""
            return save_bytes_to_cache(content, export.safe_name(Path(path).stem) + ending, overlay.GRADIO_CACHE)

        def draw(result: Segmentation, path: str) -> tuple[str, str]:
            jpeg = BytesIO()
            Image.fromarray(result.overlay()).save(jpeg, "JPEG", **JPEG)
            height, width = result.image.shape[:2]
            share = result.measure()["vessel_density"]
            text = f"<strong>{share:.1%}</strong> of the field of view is vessel &middot; {width} &times; {height} px"
            return keep(jpeg.getvalue(), path, "_overlay.jpg"), text

        def show(path: str | None, previous: str | None) -> dict:
            if previous != path:
                results.forget(previous)
            nothing = {current: None, message: "", overlay: None, controls: gr.Column(visible=False)}
            if path is None:
                return nothing
            try:
                result = results(path)
            except ImageError as error:
                return {**nothing, message: f"<p class='note error' role='alert'>{escape(str(error))}</p>"}
            picture, text = draw(result, path)
            warnings = "".join(f"<li>{escape(warning)}</li>" for warning in result.warnings)
            return {
                current: path,
                message: warnings and f"<div class='note' role='status'><ul>{warnings}</ul></div>",
                overlay: picture,
                numbers: text,
                threshold: fitted,
                controls: gr.Column(visible=True),
            }

        def show_example(index: int, previous: str | None) -> dict:
            return {photograph: None, **show(str(examples[index]), previous)}

        def at(path: str | None, value: float) -> Segmentation:
            try:
                return results(path or "").at(value)
            except ImageError as error:
                raise gr.Error(EXPIRED, print_exception=False) from error

        def redraw(path: str | None, value: float) -> tuple[str, str]:
            return draw(at(path, value), path)

        def write_mask(path: str | None, value: float) -> str:
            return keep(export.mask_png(at(path, value)), path, f"_mask_{value:.3g}.png")

        def write_probability(path: str | None, value: float) -> str:
            return keep(export.probability_png(at(path, value)), path, "_probability.png")

        def write_overlay(path: str | None, value: float) -> str:
            return keep(export.overlay_png(at(path, value)), path, f"_overlay_{value:.3g}.png")

        def segment(photograph: str | None, threshold: float | None) -> tuple[str, str, dict, str]:
            """Find the vessels of a colour fundus photograph.

            Parameters:
                photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF, 8 or 16 bit.
                threshold: from 0 to 1; None takes the value fitted for the model.

            Returns:
                overlay: PNG of the photograph's size with the vessels coloured.
                mask: PNG of the photograph's size, 255 for vessel, 0 for none.
                numbers: threshold, measures, warnings, model and versions.
            """
            if photograph is None:
                raise gr.Error("No photograph was given; expected a file.", print_exception=False)
            try:
                result = results(photograph)
                result = result if threshold is None else result.at(threshold)
            except ValueError as error:  # an ImageError, or a threshold out of range
                raise gr.Error(str(error), print_exception=False) from error
            overlay = keep(export.overlay_png(result), photograph, "_overlay.png")
            mask = keep(export.mask_png(result), photograph, "_mask.png")
            return overlay, mask, export.summary(result), photograph

        # Wiring: one forward pass at a time, and of many steps of the slider only the last counts

        shown = [current, message, overlay, numbers, threshold, controls]
        one = {"concurrency_id": "segment", "concurrency_limit": 1}
        page = {"api_visibility": "private", "trigger_mode": "always_last"}
        photograph.upload(show, [photograph, current], shown, show_progress_on=overlay, **one, **page)
        photograph.clear(lambda previous: show(None, previous), current, shown, **page)
        gallery.click(show_example, [gallery, current], [photograph, *shown], show_progress_on=overlay, **one, **page)
        gr.on(
            [threshold.input, threshold.release],
            redraw,
            [current, threshold],
            [overlay, numbers],
            show_progress="hidden",
            **page,
        )
        for button, write in [
            (save_mask, write_mask),
            (save_probability, write_probability),
            (save_overlay, write_overlay),
        ]:
            button.click(write, [current, threshold], saved, **page).success(None, saved, None, js=SAVE_JS)
        api_button.click(
            segment,
            [api_photograph, api_threshold],
            [api_overlay, api_mask, api_numbers, current],
            api_name="segment",
            **one,
        )
    return app


def launch_options() -> dict:
    """What the page needs from `launch`: the look, and nothing from outside or kept."""
    fonts = ["system-ui", "sans-serif"]  # no font is fetched
    return {
        "theme": gr.themes.Default(
            primary_hue="cyan", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
        ),
        "css": CSS,
        "footer_links": ["api", "settings"],
        "run_history": False,
        "max_file_size": UPLOAD_LIMIT,
        "share": False,
        "ssr_mode": False,
    }


def main(argv: list[str] | None = None) -> int:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(description="Serve the page of ReSegNet.")
    parser.add_argument(
        "--model", help=f"folder or Hub id of a release (default: ${ENVIRONMENT}, else the bundled release)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--host", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    arguments = parser.parse_args(argv)
    name = arguments.model or os.environ.get(ENVIRONMENT) or None
    if arguments.revision and name is None:
        parser.error("--revision goes with a model of the Hub: name it with --model.")
    try:
        segmenter = Segmenter.from_pretrained(name, revision=arguments.revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        print(f"The model {name or '(bundled)'} cannot be had: {reason}", file=sys.stderr)
        return 1
    app = build_app(segmenter).queue(max_size=QUEUE)
    try:
        app.launch(server_name=arguments.host, server_port=arguments.port, **launch_options())
    except OSError as error:  # the port is taken
        print(f"The page cannot be served: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
