"""The page's layout; what happens on it is in `handlers`."""

from __future__ import annotations

import base64
import io
import threading
from html import escape
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from PIL import Image, ImageOps
from starlette.middleware import Middleware

from resegnet.releases.records import DISCLAIMER
from resegnet.results.render import ERROR_COLORS, OVERLAY_COLOR, OVERLAY_OPACITY, magma
from resegnet.segmenter import Segmenter
from resegnet.web.about import about, model_name
from resegnet.web.batch import EMPTY, Batches
from resegnet.web.guard import Guard, fetch_nothing
from resegnet.web.handlers import KEEP_S, Handlers

HERE = Path(__file__).parent

BATCHES = 4  # at a time
QUEUE = 20  # requests that wait for their turn; the next one is told to come back
UPLOAD_BYTES = 200_000_000  # a 16-bit TIFF of 24 megapixels has 144 MB
EXAMPLES_AFTER_S = 5  # until then the processors are for the start, and for whoever waits for it

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container .main { padding: 16px clamp(14px, 3vw, 32px) !important; }
.gradio-container .html-container { padding: 0; }
#title .title { display: flex; align-items: center; gap: 0.8rem; }
#title img { width: 44px; height: 44px; }
#title h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; line-height: 1.1; margin: 0; }
#title p, #foot p, #batch .html-container p {
  color: color-mix(in srgb, var(--body-text-color) 75%, var(--body-background-fill)); }
#title p, #foot p { margin: 0.15rem 0 0; }
#status { min-height: 22px; }
button[role=tab].selected { color: color-mix(in srgb, #0891b2 55%, var(--body-text-color)) !important; }
footer, footer * { color: color-mix(in srgb, var(--body-text-color) 75%, var(--body-background-fill)) !important; }
footer > :not(.show-api) { display: none !important; }
#foot { font-size: 0.85rem; border-top: 1px solid var(--border-color-primary); padding-top: 0.6rem; }
#about { max-width: 75ch; }
@keyframes viewer-turn { to { transform: rotate(360deg); } }
#about table { font-variant-numeric: tabular-nums; font-size: 0.9rem; border: 0; display: block; overflow-x: auto; }
#about th, #about td { border: 0; padding: 0.35rem 1rem 0.35rem 0; word-break: normal; overflow-wrap: normal; }
#batch .lines table { width: 100%; border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
#batch .lines th { text-align: left; font-weight: 600; }
#batch .lines th, #batch .lines td { border: 0; padding: 0.4rem 0.9rem 0.4rem 0; vertical-align: middle; }
#batch .lines tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
#batch .lines img { width: 48px; height: 48px; max-width: none; object-fit: contain; background: #000;
  border-radius: 6px; margin: 0; }
#batch .lines th:first-child { width: 62px; }
#batch .lines .name { overflow-wrap: anywhere; min-width: 7rem; }
#batch .lines .number { text-align: right; white-space: nowrap; }
#batch .lines .failed td { color: color-mix(in srgb, #dc2626 70%, var(--body-text-color)); }
#batch .lines p, #batch .progress p { margin: 0; font-size: 0.95rem; }
#batch .buttons { gap: 0.5rem; }
#batch .buttons button { font-size: 0.9rem; font-weight: 500; padding: 0.45rem 0.8rem; min-height: 38px;
  white-space: nowrap; }
#batch .buttons button.primary { background: #0e7490; border-color: #0e7490; }
#batch .buttons button.primary:hover { background: #155e75; }
#batch progress { appearance: none; display: block; width: 100%; height: 8px; border: 0; border-radius: 4px;
  overflow: hidden; background: var(--border-color-primary); margin-bottom: 0.4rem; }
#batch progress::-webkit-progress-bar { background: var(--border-color-primary); }
#batch progress::-webkit-progress-value { background: #0891b2; }
#batch progress::-moz-progress-bar { background: #0891b2; }
@media (max-width: 600px) {
  #batch .lines thead { display: none; }
  #batch .lines tr { display: grid; grid-template-columns: 60px 1fr auto; gap: 0 0.4rem; padding: 0.4rem 0; }
  #batch .lines td { padding: 0; align-self: center; }
  #batch .lines td:first-child { grid-row: 1 / span 3; }
  #batch .lines td:nth-child(3) { grid-area: 2 / 2; text-align: left; }
  #batch .lines td:nth-child(4) { grid-area: 1 / 3; }
  #batch .lines td:nth-child(5) { grid-area: 3 / 2 / auto / span 2; }
}
#about tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
"""

VIEWER = "document.querySelector('#viewer .viewer').viewer"  # what `viewer.js` offers

# A file is made when somebody asks for it; the browser then saves it.
SAVE_JS = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""


def build_app(segmenter: Segmenter, examples: Path | None = None, *, prepare_examples: bool = False) -> gr.Blocks:
    """The page round a model; `.launch(**launch_options())` serves it. Programs call `/segment` and `/compare`.

    Parameters
    ----------
    segmenter
        Its `folder`, if it has one, holds the scores that the page shows.
    examples
        Folder of photographs that a visitor may try; their references are named `*_vessels*`.
    prepare_examples
        Segment the example photographs in the background, so that the first click on one finds it finished.
    """
    pictures = [] if examples is None else sorted([*examples.glob("*.jpg"), *examples.glob("*.png")])
    photographs = [path for path in pictures if "_vessels" not in path.stem]
    handlers = Handlers(segmenter, photographs, KEEP_S)
    if prepare_examples:
        later = threading.Timer(EXAMPLES_AFTER_S, handlers.prepare_examples)
        later.daemon = True
        later.start()

    # What `serve` does besides, see `files.py`, is for a folder of our own.
    with gr.Blocks(
        title="ReSegNet", fill_width=True, analytics_enabled=False, delete_cache=(KEEP_S // 6, KEEP_S)
    ) as app:
        icon = base64.b64encode((HERE / "icon.svg").read_bytes()).decode()
        gr.HTML(
            f"<div class='title'><img src='data:image/svg+xml;base64,{icon}' alt=''><div><h1>ReSegNet</h1>"
            "<p>Finds the blood vessels in a colour photograph of the retina.</p></div></div>",
            elem_id="title",
            apply_default_css=False,
        )
        files = gr.State([])  # of the session
        with gr.Tab("Segment"):
            viewer = gr.HTML(
                html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
                css_template=(HERE / "viewer.css").read_text(encoding="utf-8"),
                js_on_load=(HERE / "viewer.js").read_text(encoding="utf-8"),
                apply_default_css=False,
                elem_id="viewer",
                examples=[_thumbnail(path) for path in photographs],
                magma=magma().tolist(),
                colors={name: list(color) for name, color in ERROR_COLORS.items()},
                color="#{:02x}{:02x}{:02x}".format(*OVERLAY_COLOR),
                opacity=OVERLAY_OPACITY,
            )
            status = gr.HTML(elem_id="status")  # where gradio shows the place in the queue
        with gr.Tab("Batch", elem_id="batch"):
            _batch_tab(Batches(segmenter, handlers.results), segmenter.config.threshold)
        with gr.Tab("About"):
            gr.Markdown(about(segmenter), elem_id="about")
        gr.HTML(
            f"<p>{DISCLAIMER} Photographs are deleted after about an hour. Model: {escape(model_name(segmenter))}.</p>",
            elem_id="foot",
            apply_default_css=False,
        )

        # What the viewer hands over: gradio checks that an upload is one.
        upload = gr.File(visible=False)
        settings = gr.JSON(visible=False)
        refined = gr.JSON(visible=False)
        saved = gr.DownloadButton(visible="hidden")

        take_file = f"(file, files) => [{VIEWER}.file, files, {VIEWER}.settings()]"
        take_settings = f"(files) => [files, {VIEWER}.settings()]"
        quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple"}
        # One forward pass at a time; the rest waits in the queue, and sees its place in it.
        opening = quiet | {"show_progress": "minimal", "show_progress_on": status}
        opening |= {"concurrency_id": "segment", "concurrency_limit": 1}
        with_file = {"inputs": [upload, files, settings], "outputs": [viewer, files], "js": take_file}
        with_settings = {"inputs": [files, settings], "js": take_settings}
        openings = [
            viewer.photograph(handlers.show, **with_file, **opening),
            viewer.reference(handlers.show_reference, **with_file, **opening),
            viewer.example(handlers.show_example, outputs=[viewer, files], **with_settings, **opening),
        ]
        for event in openings:  # of whose failure gradio tells
            event.failure(None, js=f"() => {VIEWER}.rest()")
        viewer.cancel(None, cancels=openings)
        settling = viewer.settle(
            handlers.refine, outputs=refined, **with_settings, **quiet | {"trigger_mode": "always_last"}
        )
        settling.success(None, refined, js=f"(value) => {VIEWER}.refine(value)")
        settling.failure(None, js=f"() => {VIEWER}.refine(null)")
        saving = viewer.save(handlers.save, outputs=saved, **with_settings, **quiet)
        saving.success(None, saved, js=SAVE_JS)
        saving.then(None, js=f"() => {VIEWER}.saved()")

        with gr.Group(visible=False):  # only for the types of the endpoints
            api_photograph = gr.File(label="photograph")
            api_reference = gr.File(label="reference")
            api_threshold = gr.Number(label="threshold", value=segmenter.config.threshold)
            api_overlay = gr.File(label="overlay")
            api_mask = gr.File(label="mask")
            api_probability = gr.File(label="probability")
            api_error_map = gr.File(label="error_map")
            api_numbers = gr.JSON(label="numbers")
            api_button = gr.Button()
        api_button.click(
            handlers.segment,
            [api_photograph, api_threshold],
            [api_overlay, api_mask, api_probability, api_numbers],
            api_name="segment",
            concurrency_id="segment",
            concurrency_limit=1,
        )
        api_button.click(
            handlers.compare,
            [api_photograph, api_reference, api_threshold],
            [api_error_map, api_numbers],
            api_name="compare",
            concurrency_id="segment",
            concurrency_limit=1,
        )
    fetch_nothing()
    return app.queue(max_size=QUEUE, api_open=False)  # nobody gets past the queue


def _batch_tab(batches: Batches, threshold: float) -> None:
    batch = gr.State()
    with gr.Row(elem_classes="controls", equal_height=False):
        files = gr.File(
            label="Photographs, or ZIP files of them",
            file_count="multiple",
            height=190,
            scale=3,
            min_width=300,
        )
        with gr.Column(scale=2, min_width=280):
            chosen = gr.Slider(0, 1, threshold, step=0.0001, label="Threshold")
            probability = gr.Checkbox(label="Probabilities too, as 16-bit PNG")
            with gr.Row(elem_classes="buttons"):
                start = gr.Button("Find the vessels", variant="primary", min_width=135)
                cancel = gr.Button("Cancel", interactive=False, min_width=80)
                save = gr.Button("Results as ZIP", interactive=False, min_width=125)
    progress = gr.HTML(elem_classes="progress", apply_default_css=False)
    lines = gr.HTML(EMPTY, elem_classes="lines", apply_default_css=False)
    saved = gr.DownloadButton(visible="hidden")

    shown = [batch, lines, progress, start, cancel, save]
    running = start.click(
        batches.run,
        [files, chosen, probability],
        shown,
        api_name="batch",
        api_visibility="undocumented",
        show_progress="hidden",
        concurrency_limit=BATCHES,  # which take turns, photograph by photograph
    )
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    running.failure(batches.failed, batch, shown, **quiet)
    cancel.click(batches.cancel, batch, shown, **quiet)
    saving = save.click(
        batches.save, batch, saved, api_name="batch_zip", api_visibility="undocumented", show_progress="hidden"
    )
    saving.success(None, saved, js=SAVE_JS, **quiet)


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
        "favicon_path": str(HERE / "icon.svg"),
        "footer_links": ["api"],
        "mcp_server": find_spec("mcp") is not None,  # the `mcp` extra
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": UPLOAD_BYTES,
        "app_kwargs": {"middleware": [Middleware(Guard, UPLOAD_BYTES)]},
        "share": False,
        "ssr_mode": False,
    }


def _thumbnail(path: Path) -> dict[str, str]:
    """A small square picture as a data address, and what to call it."""
    file = io.BytesIO()
    with Image.open(path) as image:
        ImageOps.fit(image.convert("RGB"), (144, 144)).save(file, "JPEG", quality=80)
    name = path.stem.replace("_", " ")
    return {"name": name, "src": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()}
