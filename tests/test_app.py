"""The page by its endpoint for programs, its bounded memory, and how it starts."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from scipy import ndimage

import app
from resegnet import Config, ImageError, Segmenter
from resegnet.learning.synthetic import draw_fundus
from resegnet.results import export

tifffile = pytest.importorskip("tifffile")  # comes with scikit-image


class DarkOnGreen:
    """A network that finds what is darker than its surroundings, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, rgb):
        self.calls += 1
        green = rgb[:, 1]
        return np.clip(0.5 + 8 * (ndimage.uniform_filter(green, (0, 15, 15)) - green), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return DarkOnGreen()


@pytest.fixture(scope="module")
def segmenter(network):
    return Segmenter(network, Config(input_size=256, threshold=0.6137), "a/model@v1")


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    with connect(url, tmp_path_factory.mktemp("downloads")) as connected:
        yield connected


@contextmanager
def connect(url, downloads):
    client = Client(url, verbose=False, analytics_enabled=False, download_files=str(downloads))
    yield client
    client.close()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two different drawn photographs under one name."""
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path_factory.mktemp("photographs") / "eye.png")
        Image.fromarray(draw_fundus(seed, (230, 300)).image).save(paths[-1])
    return paths


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


# /segment


def test_overlay_mask_and_numbers_are_those_of_the_python_interface(client, segmenter, photographs):
    overlay, mask, numbers = client.predict(handle_file(photographs[0]), api_name="/segment")
    result = segmenter(photographs[0])
    assert 0.02 < result.mask.mean() < 0.5
    np.testing.assert_array_equal(pixels(mask), result.mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(pixels(overlay), result.overlay())
    assert numbers == export.summary(result)
    assert numbers["threshold"] == 0.6137
    assert numbers["model"] == "a/model@v1"


def test_another_threshold_takes_no_second_forward_pass(client, network, segmenter, photographs):
    client.predict(handle_file(photographs[0]), api_name="/segment")
    calls = network.calls
    masks = []
    for threshold in (0.55, 0.7):
        _, mask, numbers = client.predict(handle_file(photographs[0]), threshold, api_name="/segment")
        masks.append(pixels(mask) > 0)
        assert numbers["threshold"] == threshold
    assert network.calls == calls
    result = segmenter(photographs[0])
    np.testing.assert_array_equal(masks[0], result.at(0.55).mask)
    np.testing.assert_array_equal(masks[1], result.at(0.7).mask)
    assert masks[0].sum() > masks[1].sum() > 0


def test_sessions_do_not_mix(url, segmenter, photographs, tmp_path):
    """Two programs at once, each with its own photograph of the same name and its own threshold."""
    truths = [segmenter(path) for path in photographs]

    def ask(k):
        with connect(url, tmp_path / str(k)) as client:
            thresholds = [0.5 + 0.1 * step + 0.05 * k for step in range(2)]
            answers = [client.predict(handle_file(photographs[k]), t, api_name="/segment") for t in thresholds]
        return [(t, pixels(mask)) for t, (_, mask, _) in zip(thresholds, answers, strict=True)]

    with ThreadPoolExecutor(2) as pool:
        for truth, answers in zip(truths, pool.map(ask, range(2)), strict=True):
            for threshold, mask in answers:
                np.testing.assert_array_equal(mask > 0, truth.at(threshold).mask)


def test_16_bit_tiff(client, segmenter, photographs, tmp_path):
    eight_bit = pixels(photographs[0])
    tifffile.imwrite(tmp_path / "eye.tif", eight_bit.astype(np.uint16) * 256 + 99, photometric="rgb")
    _, mask, _ = client.predict(handle_file(tmp_path / "eye.tif"), api_name="/segment")
    np.testing.assert_array_equal(pixels(mask) > 0, segmenter(eight_bit).mask)


def test_a_text_file_gets_the_sentence_of_the_image_error(client, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    with pytest.raises(ImageError) as expected:
        Segmenter(DarkOnGreen(), Config())(path)
    with pytest.raises(AppError) as got:
        client.predict(handle_file(path), api_name="/segment")
    assert got.value.message == str(expected.value)
    assert "'notes.txt'" in got.value.message


def test_a_threshold_out_of_range_is_told(client, photographs):
    with pytest.raises(AppError, match=r"threshold is 1\.5, expected a number from 0 to 1"):
        client.predict(handle_file(photographs[0]), 1.5, api_name="/segment")


def test_programs_see_one_endpoint_with_its_parameters_described(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/segment"]
    assert [p["parameter_name"] for p in endpoints["/segment"]["parameters"]] == ["photograph", "threshold"]
    assert [r["label"] for r in endpoints["/segment"]["returns"]] == ["overlay", "mask", "numbers"]
    assert "Find the vessels" in endpoints["/segment"]["description"]


# Memory and disk


def test_results_in_memory_are_bounded_and_the_longest_unused_goes_first(tmp_path):
    network = DarkOnGreen()
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(draw_fundus(3, (130, 130)).image).save(path)
    two = 2 * 130 * 130 * (3 + 4 + 1)  # photograph, probability, field
    results = app.RecentResults(Segmenter(network, Config(input_size=64)), limit_bytes=two)
    a, b, c = paths
    for path, calls in [(a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4)]:
        results(path)
        assert network.calls == calls
    results.forget(a)
    results(b)
    assert network.calls == 4
    results(a)
    assert network.calls == 5


def test_a_session_gives_its_memory_back_when_it_opens_another_photograph(segmenter, photographs):
    handlers = app.Handlers(segmenter, examples=[photographs[1]])
    a, example = map(str, photographs)
    handlers.show(a, None)
    handlers.show(example, a)
    assert list(handlers.results._results) == [example]
    handlers.show(None, example)  # examples stay for the other sessions
    assert list(handlers.results._results) == [example]


def test_uploads_and_results_are_deleted_when_their_time_is_over(segmenter, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    monkeypatch.setattr(app, "KEEP_S", 6)
    forgotten = []
    monkeypatch.setattr(app.RecentResults, "forget", lambda self, path: forgotten.append(path))
    page = app.build_app(segmenter)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    try:
        with connect(url, tmp_path / "downloads") as client:
            client.predict(handle_file(photographs[0]), api_name="/segment")
        kept = {path.name for path in (tmp_path / "gradio").rglob("*.png")}
        assert kept == {"eye.png", "eye_mask.png", "eye_overlay.png"}
        end = time.monotonic() + 20
        while (list((tmp_path / "gradio").rglob("*.png")) or not forgotten) and time.monotonic() < end:
            time.sleep(0.2)
        assert not list((tmp_path / "gradio").rglob("*.png"))
        assert [os.path.basename(path) for path in forgotten] == ["eye.png"]
    finally:
        page.close()


# The page


def test_warnings_and_errors_are_escaped_text_and_an_error_shows_no_result(segmenter, tmp_path):
    handlers = app.Handlers(segmenter, [])
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("no picture")
    current, message, overlay, numbers, threshold, controls = handlers.show(str(path), None)
    assert (current, overlay, numbers, threshold) == (None, None, "", 0.6137)
    assert not controls.visible
    assert "role='alert'" in message
    assert "<img" not in message
    assert "&lt;img" in message


def test_warnings_stand_above_the_result(segmenter, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    Image.new("RGB", (200, 200), (40, 90, 200)).save(tmp_path / "sky.png")
    warnings = segmenter(tmp_path / "sky.png").warnings
    assert warnings
    current, message, overlay, *_ = app.Handlers(segmenter, []).show(str(tmp_path / "sky.png"), None)
    assert current
    assert overlay
    assert all(warning in message for warning in warnings)


def test_the_page_says_which_model_runs_and_what_it_is_not_for(segmenter):
    texts = " ".join(str(block.value) for block in app.build_app(segmenter).blocks.values() if hasattr(block, "value"))
    assert "a/model@v1" in texts
    assert "0.6137" in texts
    assert "not a medical device" in texts
    assert "deleted after about an hour" in texts


def test_three_examples_or_more_are_offered_and_no_tracing(segmenter, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = app.build_app(segmenter)
    gallery = next(block for block in page.blocks.values() if type(block).__name__ == "Dataset")
    names = [os.path.basename(sample[0]["path"]) for sample in gallery.samples]
    assert len(names) >= 3
    assert not any("_vessels" in name for name in names)


# Start


class NoModel:
    """Stands for `Segmenter`; remembers what was asked for."""

    asked = None

    @classmethod
    def from_pretrained(cls, name, *, revision=None):
        cls.asked = (name, revision)
        raise OSError("first line.\nand a traceback")


@pytest.mark.parametrize(
    ("arguments", "environment", "asked"),
    [
        ([], None, (None, None)),
        ([], "", (None, None)),
        ([], "user/one", ("user/one", None)),
        (["--model", "user/two"], "user/one", ("user/two", None)),
        (["--revision", "v2"], "user/one", ("user/one", "v2")),
    ],
)
def test_which_model_is_asked_for(arguments, environment, asked, monkeypatch, capsys):
    monkeypatch.setattr(app, "Segmenter", NoModel)
    if environment is None:
        monkeypatch.delenv(app.ENVIRONMENT, raising=False)
    else:
        monkeypatch.setenv(app.ENVIRONMENT, environment)
    assert app.main(arguments) == 1
    assert NoModel.asked == asked
    assert capsys.readouterr().err == f"The model {asked[0] or '(bundled)'} cannot be had: first line.\n"


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path, capsys):
    assert app.main(["--model", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path) in error


def test_a_revision_without_a_model_is_refused(monkeypatch, capsys):
    monkeypatch.delenv(app.ENVIRONMENT, raising=False)
    with pytest.raises(SystemExit) as exit_:
        app.main(["--revision", "v1"])
    assert exit_.value.code == 2
    assert "--model" in capsys.readouterr().err
