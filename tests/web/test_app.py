"""The page's endpoints for programs, its files and queue, and its start."""

import asyncio
import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from support import PATIENCE_S
from support.files import pixels
from support.page import connect, wait_until
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

import app
from resegnet import Config, ImageError, Segmenter
from resegnet.results import export
from resegnet.results.compare import compare
from resegnet.web import layout, parts
from resegnet.web.files import KEEP_S, sweep

pytestmark = pytest.mark.slow  # nearly every test starts the page


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    with connect(url, tmp_path_factory.mktemp("downloads")) as connected:
        yield connected


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two different synthetic photographs with the same name."""
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path_factory.mktemp("photographs") / "eye.png")
        Image.fromarray(draw_fundus(seed, (230, 300)).image).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The exact truth of the first photograph."""
    path = tmp_path_factory.mktemp("reference") / "eye by hand.png"
    Image.fromarray(draw_fundus(1, (230, 300)).vessels).save(path)
    return path


# /segment


def test_files_and_numbers_are_those_of_the_python_interface(client, segmenter, photographs):
    overlay, mask, probability, numbers = client.predict(handle_file(photographs[0]), api_name="/segment")
    result = segmenter(photographs[0])
    assert 0.02 < result.mask.mean() < 0.5
    np.testing.assert_array_equal(pixels(mask), result.mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(pixels(overlay), result.overlay())
    assert np.abs(pixels(probability) / 65535 - result.probability).max() < 1e-5
    assert numbers == export.summary(result)
    assert numbers["threshold"] == 0.6137
    assert numbers["model"] == "a/model@v1"


def test_another_threshold_takes_no_second_forward_pass(client, network, segmenter, photographs):
    client.predict(handle_file(photographs[0]), api_name="/segment")
    calls = network.calls
    masks = []
    for threshold in (0.55, 0.7):
        _, mask, _, numbers = client.predict(handle_file(photographs[0]), threshold, api_name="/segment")
        masks.append(pixels(mask) > 0)
        assert numbers["threshold"] == threshold
    assert network.calls == calls
    result = segmenter(photographs[0])
    np.testing.assert_array_equal(masks[0], result.at(0.55).mask)
    np.testing.assert_array_equal(masks[1], result.at(0.7).mask)
    assert masks[0].sum() > masks[1].sum() > 0


def test_a_text_file_gets_the_sentence_of_the_image_error(client, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    with pytest.raises(ImageError) as expected:
        Segmenter(DarkOnGreen(), Config())(path)
    with pytest.raises(AppError) as got:
        client.predict(handle_file(path), api_name="/segment")
    assert f"'{path}' cannot be identified" in str(expected.value)
    assert got.value.message == str(expected.value).replace(f"{tmp_path}/", "")  # no folder of the server
    assert "'notes.txt'" in got.value.message


def test_a_threshold_out_of_range_is_rejected(client, photographs):
    with pytest.raises(AppError, match=r"threshold is 1\.5, expected a number from 0 to 1"):
        client.predict(handle_file(photographs[0]), 1.5, api_name="/segment")


def test_programs_see_two_endpoints_with_their_parameters_described(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/segment", "/compare"]
    parameters = {name: [p["parameter_name"] for p in endpoint["parameters"]] for name, endpoint in endpoints.items()}
    assert parameters == {
        "/segment": ["photograph", "threshold"],
        "/compare": ["photograph", "reference", "threshold"],
    }
    examples = [parameter["example_input"]["path"] for parameter in endpoints["/compare"]["parameters"][:2]]
    assert examples == ["photograph.jpg", "manual_segmentation.png"]  # not the address of a PDF
    assert [r["label"] for r in endpoints["/segment"]["returns"]] == ["overlay", "mask", "probability", "numbers"]
    assert [r["label"] for r in endpoints["/compare"]["returns"]] == ["error_map", "numbers"]
    assert "Find the vessels" in endpoints["/segment"]["description"]
    assert "against a person's manual segmentation" in endpoints["/compare"]["description"]


# The page as other sites and visitors see it


def test_a_link_to_the_page_has_a_title_a_text_and_a_picture(url, monkeypatch):
    html = httpx.get(url).text
    told = dict(re.findall(r'property="og:(\w+)"\s+content="([^"]+)"', html))
    assert told["title"].startswith("ReSegNet") and told["description"] == parts.TAGLINE
    picture = httpx.get(url.rstrip("/") + told["image"])
    with Image.open(io.BytesIO(picture.content)) as image:
        assert (image.format, image.width) == ("JPEG", 2 * image.height)
    monkeypatch.setenv("SPACE_HOST", "user-space.hf.space")
    assert parts.preview_address() == "https://user-space.hf.space/preview.jpg"


@pytest.mark.parametrize(("model", "promised"), [("bundled", "ANATOMY_TAGLINE"), ("bundled-vessels", "TAGLINE")])
def test_a_page_promises_what_its_model_tells(model, promised):
    page = layout.build_app(Segmenter.from_pretrained(model), others=[])
    assert page.get_config_file()["simple_description"] == getattr(parts, promised)


def test_links_lead_to_what_is_known(monkeypatch):
    assert parts.links_html("bundled") == ""
    assert parts.links_html("user/resegnet@v1.0.0").count("https://huggingface.co/user/resegnet'") == 1
    monkeypatch.setattr(parts, "REPOSITORY_URL", "https://example.org/code")
    assert parts.links_html("bundled").count("href='https://example.org/code") == 3


# /compare


def test_scores_and_error_map_are_those_of_the_python_interface(client, segmenter, photographs, reference):
    error_map, numbers = client.predict(handle_file(photographs[0]), handle_file(reference), 0.55, api_name="/compare")
    comparison = compare(segmenter(photographs[0]).at(0.55), reference)
    np.testing.assert_array_equal(pixels(error_map), comparison.error_map())
    scores = numbers.pop("comparison")
    assert scores.pop("notes") == []
    assert scores == comparison.scores()
    assert 0.3 < scores["f1"] < 1
    assert numbers == export.summary(comparison.segmentation)


def test_a_reference_of_another_size_is_rejected(client, photographs, reference, tmp_path):
    with Image.open(reference) as image:
        image.resize((150, 115)).save(tmp_path / "small.png")
    with pytest.raises(AppError, match=r"150 x 115.*300 x 230"):
        client.predict(handle_file(photographs[0]), handle_file(tmp_path / "small.png"), api_name="/compare")


# MCP


def call_tool(url, photograph):
    """Return the tools that an assistant sees, by name, and the answer of one. The photograph is sent as a data URL."""
    address = "data:image/png;base64," + base64.b64encode(photograph.read_bytes()).decode()

    async def ask():
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            return tools, await session.call_tool("segment", {"photograph": address, "threshold": 0.55})

    return asyncio.run(ask())


def test_an_assistant_finds_the_tools_and_uses_one(url, segmenter, photographs):
    """Over the Model Context Protocol, with its own client."""
    tools, answer = call_tool(url, photographs[0])
    assert set(tools) == {"segment", "compare"}
    assert "fundus" in tools["segment"].description
    assert (
        "pixels of this probability or more" in tools["segment"].inputSchema["properties"]["threshold"]["description"]
    )
    assert not answer.isError
    texts = " ".join(part.text for part in answer.content if part.type == "text")
    assert f'"vessel_area_px": {segmenter(photographs[0]).at(0.55).mask.sum()}' in texts.replace("'", '"')


# Disk and queue


def break_off_an_upload(url, content):
    """Send half of a file and hang up."""
    address = urlsplit(url)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="half.png"\r\n\r\n'
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: %d\r\n\r\n%b%b" % (len(head) + 2 * len(content), head, content)
        )


def test_uploads_and_results_are_deleted_after_an_hour(url, client, photographs):
    folder = Path(os.environ["GRADIO_TEMP_DIR"])

    def names():
        return {path.name for path in folder.rglob("*") if path.is_file()}

    client.predict(handle_file(photographs[0]), api_name="/segment")
    before = names()
    assert before >= {"eye.png", "eye_mask.png", "eye_overlay.png", "eye_probability.png"}
    break_off_an_upload(url, photographs[0].read_bytes())
    wait_until(lambda: names() > before)
    sweep(folder, time.time() - KEEP_S)
    assert names() > before
    sweep(folder, time.time() + 1)
    assert names() == set()


# Start

# Runs `python app.py` and notes the hosts that it looks up, connects to or sends to, other than this machine.
WATCHED = """
import runpy, sys

noted, script = sys.argv[1:3]
del sys.argv[1:3]

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1]
    else:
        return
    host = host[0] if isinstance(host, tuple) else host
    if host not in (None, "127.0.0.1", "localhost", "::1", "0.0.0.0"):
        with open(noted, "a") as file:
            print(event, host, file=file)

sys.addaudithook(note)
runpy.run_path(script, run_name="__main__")
"""


def test_the_app_keeps_its_files_private_calls_no_other_host_and_leaves_no_files(photographs, tmp_path):
    """Started as by `python app.py`."""
    # The environment does not tell gradio to be silent either.
    left_out = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, tmp_path / "outside.txt", app.__file__, "--port", str(port)],
        cwd=Path(app.__file__).parent,
        env=environment | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = ""
        while f"The page is at http://127.0.0.1:{port}/" not in said:
            line = process.stdout.readline()
            assert line, said  # else it has ended
            said += line
        _, answer = call_tool(f"http://127.0.0.1:{port}/", photographs[0])
        assert not answer.isError
        stranger = httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api", timeout=PATIENCE_S)
        address = "https://example.org/eye.png"
        assert stranger.get(f"/file={address}").status_code == 403
        asked = [{"path": address, "meta": {"_type": "gradio.FileData"}}, None]
        event = stranger.post("/call/segment", json={"data": asked}).json()["event_id"]
        assert "send the file itself" in stranger.get(f"/call/segment/{event}").text
        stranger.close()
        assert len(list(tmp_path.glob("resegnet-page-*/files/*/*.png"))) >= 4
        assert not (tmp_path / "gradio").exists()  # where it keeps files by its own choice
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert not (tmp_path / "outside.txt").exists(), (tmp_path / "outside.txt").read_text()
    assert list(tmp_path.glob("resegnet*")) == []
    assert "Warning" not in said and "share=True" not in said
