"""The layout of the page, and which handler takes which event."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from resegnet.releases.records import DISCLAIMER
from resegnet.results.render import (
    DISC_COLOR,
    ERROR_COLORS,
    KIND_COLORS,
    OVERLAY_COLOR,
    OVERLAY_OPACITY,
    SAFE_KIND_COLORS,
    magma,
)
from resegnet.segmenter import Segmenter
from resegnet.web.about import about, model_name
from resegnet.web.batch import EMPTY, THRESHOLD_STEP, Batches, follow_model, threshold_hint
from resegnet.web.endpoints import Endpoints
from resegnet.web.files import KEEP_S
from resegnet.web.guard import Guard, refuse_addresses
from resegnet.web.handlers import Handlers
from resegnet.web.layers import SHOWN_ZONES
from resegnet.web.models import Models, Release, other_releases
from resegnet.web.numbers import MEASURED_MODEL, SHOWN_MEASURES
from resegnet.web.parts import (
    ANATOMY_TAGLINE,
    FIRST_LOOK,
    HERE,
    PREVIEW,
    TAGLINE,
    answer_preview,
    as_lists,
    data_address,
    links_html,
    preview_address,
    real_first,
    thumbnail,
)
from resegnet.web.programs import ADDRESS, programs

MAX_BATCHES = 4  # at a time
MAX_QUEUE = 20  # requests that wait for their turn; further ones are rejected with HTTP 503
MAX_SESSIONS = 2000  # whose state gradio keeps, 0.1 MB each and more with a batch; each call of the API is one
UPLOAD_BYTES = 200_000_000  # a 16-bit TIFF of 24 megapixels has 144 MB
EXAMPLES_AFTER_S = 5  # the processors are busy with the start, and with whoever waits for it, until then

# Texts for gradio's drop zone on the Batch tab, in the words of the other drop zone.
UPLOAD_TEXTS = {
    "upload_text.drop_file": "Drop fundus photographs here",
    "upload_text.click_to_upload": "Choose files",
}

HAS_MCP = find_spec("mcp") is not None  # the extra `mcp`
OWN_ADDRESS = "(location.origin + location.pathname).replace(/\\/$/, '')"  # of the page, in the browser

# One script after the other, in one scope: what is called while a script runs has to be defined by then.
SCRIPT_PARTS = ("numbers", "drawing", "layers", "help", "session", "model", "beside", "batch", "input", "start")
VIEWER_SCRIPTS = ("viewer.js", *(f"viewer_{part}.js" for part in SCRIPT_PARTS))
VIEWER = "document.querySelector('#viewer .viewer').viewer"  # the object that `viewer.js` offers

# A file is written when somebody asks for it; then the browser saves it.
SAVE_JS = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "segment", "concurrency_limit": 1}  # forward passes


class _Page(gr.Blocks):
    """Blocks that tell other sites what to show of a link to the page; gradio writes it into the page's head."""

    tagline = TAGLINE

    def get_config_file(self) -> Any:
        return {**super().get_config_file(), "simple_description": self.tagline, "thumbnail": preview_address()}


def build_app(
    segmenter: Segmenter,
    examples: Path | None = None,
    *,
    prepare_examples: bool = False,
    others: Sequence[Release] | None = None,
) -> gr.Blocks:
    """Build the page; `.launch(**launch_options())` serves it. Programs call `/segment` and `/compare`.

    Parameters
    ----------
    segmenter
        The model. Its `folder`, if it has one, holds the records that the page shows.
    examples
        Folder of photographs that a visitor may try; the names of their references contain `_vessels`.
    prepare_examples
        Segment the example photographs in the background, so that the first click on one shows a finished result.
    others
        Releases that a visitor may choose instead of the model. None takes those of
        `resegnet.web.models.other_releases`.
    """
    models = Models(segmenter, other_releases(segmenter) if others is None else others)
    pictures = [] if examples is None else sorted([*examples.glob("*.jpg"), *examples.glob("*.png")], key=real_first)
    photographs = [path for path in pictures if "_vessels" not in path.stem]
    handlers = Handlers(models, photographs)
    if prepare_examples:
        later = threading.Timer(EXAMPLES_AFTER_S, handlers.prepare_examples)
        later.daemon = True
        later.start()

    # `delete_cache` cleans up where `serve` does not prepare a folder, see `files.py`.
    with _Page(
        title="ReSegNet: blood vessels of the retina",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(KEEP_S // 6, KEEP_S),
    ) as app:
        app.tagline = ANATOMY_TAGLINE if segmenter.tells_anatomy else TAGLINE
        icon = data_address((HERE / "icon.svg").read_bytes(), "image/svg+xml")
        gr.HTML(
            f"<div class='title'><img src='{icon}' alt=''><div><h1>ReSegNet</h1><p>{app.tagline}</p></div></div>",
            elem_id="title",
            apply_default_css=False,
        )
        files = gr.State([])  # of the session
        with gr.Tab("Segment"):
            viewer = _viewer(photographs, models)
            status = gr.HTML(elem_id="status")  # gradio shows the place in the queue here
        with gr.Tab("Batch", elem_id="batch") as batch_tab:
            batch = _batch_tab(batch_tab, Batches(handlers.results), models)
        with gr.Tab("About"):
            gr.Markdown(about(*models.all), elem_id="about")
        with gr.Tab("API"):
            text = programs(mcp=HAS_MCP)
            calls = gr.Markdown(text, elem_id="programs")
        app.load(None, outputs=calls, js=f"() => {json.dumps(text)}.replaceAll('{ADDRESS}', {OWN_ADDRESS})")
        gr.HTML(
            f"<p>{DISCLAIMER} Photographs are deleted after about an hour. {_names(models)}</p>"
            + links_html(segmenter.model),
            elem_id="foot",
            apply_default_css=False,
        )
        _viewer_events(viewer, handlers, files, batch, status)
        _add_endpoints(Endpoints(handlers.results), segmenter.config.threshold)
    refuse_addresses()
    return app.queue(max_size=MAX_QUEUE, api_open=False)  # requests that bypass the queue are rejected


def _names(models: Models) -> str:
    names = [escape(model_name(model)) for model in models.all]
    return f"Model{'s' if len(names) > 1 else ''}: {', '.join(names)}."


def _viewer(photographs: list[Path], models: Models) -> gr.HTML:
    return gr.HTML(
        html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
        css_template=(HERE / "viewer.css").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in VIEWER_SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
        first_look=data_address(FIRST_LOOK.read_bytes(), "image/webp"),
        examples=[thumbnail(path) for path in photographs],
        magma=magma().tolist(),
        colors=as_lists(ERROR_COLORS),
        kind_colors={name: as_lists(colors) for name, colors in (("usual", KIND_COLORS), ("safe", SAFE_KIND_COLORS))},
        disc_color=list(DISC_COLOR),
        zones=SHOWN_ZONES,
        color="#{:02x}{:02x}{:02x}".format(*OVERLAY_COLOR),
        opacity=OVERLAY_OPACITY,
        measures=SHOWN_MEASURES,
        agreement=MEASURED_MODEL,
        models=models.offered,
    )


def _viewer_events(viewer: gr.HTML, handlers: Handlers, files: gr.State, batch: gr.State, status: gr.HTML) -> None:
    # The viewer's uploads come as a `gr.File`, so gradio checks that each is one.
    upload = gr.File(visible=False)
    settings = gr.JSON(visible=False)
    saved = gr.DownloadButton(visible="hidden")

    quiet = _QUIET | {"trigger_mode": "multiple"}
    opening = quiet | _ONE_AT_A_TIME | {"show_progress": "minimal", "show_progress_on": status}
    with_file: dict[str, Any] = {
        "inputs": [upload, files, settings],
        "outputs": [viewer, files],
        "js": f"(file, files) => [{VIEWER}.file, files, {VIEWER}.settings()]",
    }
    with_settings: dict[str, Any] = {
        "inputs": [files, settings],
        "js": f"(files) => [files, {VIEWER}.settings()]",
    }
    openings = [
        viewer.photograph(handlers.show, **with_file, **opening),
        viewer.reference(handlers.show_reference, **with_file, **opening),
        viewer.example(handlers.show_example, outputs=[viewer, files], **with_settings, **opening),
        viewer.again(handlers.show_again, outputs=[viewer, files], **with_settings, **opening),
        viewer.anew(handlers.show_anew, outputs=[viewer, files], **with_settings, **opening),
        viewer.restore(handlers.restore, outputs=[viewer, files], **with_settings, **opening),
        viewer.row(
            handlers.show_row,
            inputs=[batch, files, settings],
            outputs=[viewer, files],
            js=f"(batch, files) => [batch, files, {VIEWER}.settings()]",
            **opening,
        ),
        viewer.truth(handlers.show_truth, outputs=[viewer, files], **with_settings, **opening),
    ]
    for event in openings:  # gradio itself shows the message of a failure
        event.failure(None, js=f"() => {VIEWER}.stopBusy()")
    viewer.cancel(None, cancels=openings)
    with_beside = with_settings | {"js": f"(files) => [files, {VIEWER}.besideSettings()]"}
    asked_quietly: list[tuple[Any, Any, dict[str, Any], str]] = [  # the last is the function that takes the answer
        (viewer.settle, handlers.refine, with_settings, "refine"),
        (viewer.measure, handlers.measure, with_settings, "showMeasures"),
        (viewer.beside, handlers.show_beside, with_beside | _ONE_AT_A_TIME, "showBeside"),
        (viewer.measure_beside, handlers.measure, with_beside, "showMeasuresBeside"),
    ]
    for event, handler, options, take in asked_quietly:
        value = gr.JSON(visible=False)
        asked = event(handler, outputs=value, **options, **quiet | {"trigger_mode": "always_last"})
        asked.success(None, value, js=f"(value) => {VIEWER}.{take}(value)")
        asked.failure(None, js=f"() => {VIEWER}.{take}(null)")
    saving = viewer.save(handlers.save, outputs=saved, **with_settings, **quiet)
    saving.success(None, saved, js=SAVE_JS)
    for ended in (saving.success, saving.failure):
        ended(None, js=f"() => {VIEWER}.saved()")


def _add_endpoints(endpoints: Endpoints, threshold: float) -> None:
    """Add the endpoints for programs. The components are never shown; gradio reads the endpoints' types from them."""
    with gr.Group(visible=False):
        photograph = gr.File(label="photograph")
        reference = gr.File(label="reference")
        chosen = gr.Number(label="threshold", value=threshold)
        overlay = gr.File(label="overlay")
        mask = gr.File(label="mask")
        probability = gr.File(label="probability")
        error_map = gr.File(label="error_map")
        numbers = gr.JSON(label="numbers")
        button = gr.Button()
    for file, name in ((photograph, "photograph.jpg"), (reference, "manual_segmentation.png")):
        # The API page shows this in its examples; gradio's own is the address of a PDF, which the page refuses.
        example = {"path": name, "url": name, "meta": {"_type": "gradio.FileData"}}
        file.example_payload = partial(dict, example)  # type: ignore[method-assign]
    button.click(
        endpoints.segment,
        [photograph, chosen],
        [overlay, mask, probability, numbers],
        api_name="segment",
        **_ONE_AT_A_TIME,
    )
    button.click(
        endpoints.compare,
        [photograph, reference, chosen],
        [error_map, numbers],
        api_name="compare",
        **_ONE_AT_A_TIME,
    )


def _batch_tab(tab: gr.Tab, batches: Batches, models: Models) -> gr.State:
    """Fill the tab; return its batch."""
    batch = gr.State()
    model = gr.Textbox("", visible=False)  # the script of the viewer fills it in
    threshold = models.first.config.threshold
    with gr.Row(elem_classes="controls", equal_height=False):
        with gr.Column(scale=3, min_width=300):
            files = gr.File(label="Photographs, or ZIP files of them", file_count="multiple", height=190)
            add = gr.Button("Choose more files", elem_classes="add", size="sm")
        with gr.Column(scale=2, min_width=280):
            named = gr.HTML(elem_classes="named", apply_default_css=False, visible=bool(models.others))
            hint = threshold_hint(models, None)
            chosen = gr.Slider(0, 1, threshold, step=THRESHOLD_STEP, label="Probability threshold", info=hint)
            probability = gr.Checkbox(label="Also save probability maps (16-bit PNG)")
            with gr.Row(elem_classes="buttons"):
                start = gr.Button("Find the vessels", variant="primary", min_width=135)
                cancel = gr.Button("Cancel", interactive=False, min_width=80)
                save = gr.Button("Results as ZIP", interactive=False, min_width=125)
    progress = gr.HTML(elem_classes="progress", apply_default_css=False)
    lines = gr.HTML(EMPTY, elem_classes="lines", apply_default_css=False)
    saved = gr.DownloadButton(visible="hidden")

    add.click(None, js="() => document.querySelector('#batch input[type=file]').click()")
    shown = [batch, lines, progress, start, cancel, save]
    callable_quietly = _QUIET | {"api_visibility": "undocumented"}  # tests call these two as programs do
    running = start.click(batches.wait, None, [progress, start], **_QUIET).then(
        batches.run,
        [files, chosen, probability, model],
        shown,
        api_name="batch",
        js=f"(...values) => [...values.slice(0, 3), {VIEWER}.model()]",
        concurrency_limit=MAX_BATCHES,  # which take turns, photograph by photograph
        **callable_quietly,
    )
    running.failure(batches.failed, batch, shown, **_QUIET)
    cancel.click(batches.cancel, batch, shown, **_QUIET)
    saving = save.click(batches.save, batch, saved, api_name="batch_zip", **callable_quietly)
    saving.success(None, saved, js=SAVE_JS, **_QUIET)
    if models.others:
        tab.select(
            partial(follow_model, models),
            [model, chosen],
            [chosen, named],
            js=f"(_, value) => [{VIEWER}.model(), {VIEWER}.carryThreshold() ?? value]",
            **_QUIET,
        )
    else:
        tab.select(None, chosen, chosen, js=f"(value) => {VIEWER}.carryThreshold() ?? value", **_QUIET)
    return batch


def launch_options() -> dict[str, Any]:
    """Return the arguments of `launch`: the look; nothing is fetched from other servers, and nothing is recorded."""
    return {
        "theme": gr.themes.Default(
            primary_hue="cyan",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],  # fonts of the system; none is fetched
            font_mono=["ui-monospace", "monospace"],
        ),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "i18n": gr.I18n(en=UPLOAD_TEXTS),
        "favicon_path": str(HERE / "icon.svg"),
        "footer_links": [],  # the tab API says it, on phones too
        "mcp_server": HAS_MCP,
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": UPLOAD_BYTES,
        "state_session_capacity": MAX_SESSIONS,
        "app_kwargs": {"middleware": [Middleware(Guard, UPLOAD_BYTES)], "routes": [Route(PREVIEW, answer_preview)]},
        "share": False,
        "ssr_mode": False,
    }
