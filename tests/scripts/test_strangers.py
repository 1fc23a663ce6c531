"""Strangers get no files of others out of the page, and cannot overload it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
from benchmarks.load import ask_all, digest, draw_photographs, flood
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image
from support import PATIENCE_S
from support.files import pixels
from support.page import connect, wait_until
from support.synthetic import draw_fundus

import app
from resegnet.web import guard, layout

pytestmark = pytest.mark.slow  # every test starts the page

ROOT = Path(app.__file__).parent


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "eye.png"
    Image.fromarray(draw_fundus(1, (230, 300)).image).save(path)
    return path


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A picture on the server that nobody sent."""
    path = tmp_path_factory.mktemp("server") / "secret.png"
    Image.fromarray(draw_fundus(9, (230, 300)).image).save(path)
    return path


@pytest.fixture
def client(url, tmp_path):
    with connect(url, tmp_path / "downloads") as connected:
        yield connected


def get(url, target):
    """Request an address exactly as written; an HTTP client would normalise it."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)
    try:
        connection.putrequest("GET", target)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def upload(url, content, name="eye.png"):
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": (name, content)}, timeout=PATIENCE_S)
    return answer.status_code, answer.json() if answer.status_code == 200 else answer.text


def as_file(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def ask(url, path):
    """Call `/segment` with a file on the server; `gradio_client` would upload a file of that name first."""
    event = httpx.post(f"{url}gradio_api/call/segment", json={"data": [as_file(path), None]}).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/segment/{event}", timeout=PATIENCE_S).text


def endpoint(url, name):
    """Return the number of the function that programs, or the viewer, call by that name."""
    for dependency in httpx.get(f"{url}config").json()["dependencies"]:
        if name in (dependency["api_name"], dependency["targets"][0][1]):
            return dependency["id"]
    raise KeyError(name)


# Files of others


def test_only_what_was_sent_or_made_is_served(url, photograph, secret):
    status, (sent,) = upload(url, photograph.read_bytes())
    assert status == 200
    assert get(url, f"/gradio_api/file={quote(sent)}") == (200, photograph.read_bytes())
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent)
    up = "/".join([".."] * len(folder.parts))
    asked = [
        *(
            "/etc/passwd",
            "etc/passwd",
            secret,
            ROOT / "app.py",
            "app.py",
            "resegnet/releases/bundled/config.json",
            "",
            "/",
            ".",
        ),
        *(folder, Path(sent).parent, f"{folder}/", folder.parent, f"{folder}/../lock"),
        *(f"{folder}/{up}/etc/passwd", f"{folder}/{up}{secret}", f"{sent}/../../{up}{secret}"),
        *(folder / "link.png", folder / "linked/secret.png", f"{folder}/linked/../linked/secret.png"),
        *("file:///etc/passwd", f"file://{secret}", "\\\\host\\share\\eye.png", "~/.ssh/id_rsa"),
        *(f"{sent}\0", f"{secret}\0.png", f"{folder}/{'x' * 5000}"),
    ]
    secrets = [secret.read_bytes(), Path("/etc/passwd").read_bytes(), (ROOT / "app.py").read_bytes()]
    for name in map(str, asked):
        for encoded in (quote(name), quote(name, safe=""), name.replace("..", "%2e%2e"), quote(quote(name))):
            if not encoded.isascii() or any(c in encoded for c in " \0"):
                continue
            for route in ("/gradio_api/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/", "/"):
                if route != "/gradio_api/file=" and ".." not in name:
                    continue
                status, answer = get(url, route + encoded)
                assert 400 <= status < 500, (route + encoded, status)
                assert not any(content in answer for content in secrets)


def test_no_file_of_the_server_is_worked_on(url, network, secret):
    calls = network.calls
    for path in (secret, f"{os.environ['GRADIO_TEMP_DIR']}/../{secret.parent.name}/secret.png", "secret.png"):
        assert ask(url, path).startswith("event: error")
    assert network.calls == calls


def test_an_upload_has_an_address_that_only_its_content_gives(url, photograph):
    """Another visitor would have to have the photograph to find it; the name does not help."""
    other = b"another eye"
    (mine,), (theirs,) = (upload(url, content)[1] for content in (photograph.read_bytes(), other))
    assert Path(mine).name == Path(theirs).name == "eye.png"
    assert Path(mine).parent != Path(theirs).parent
    for path, content in ((mine, photograph.read_bytes()), (theirs, other)):
        assert len(Path(path).parent.name) == 64 and Path(path).parent.parent == Path(os.environ["GRADIO_TEMP_DIR"])
        assert get(url, f"/gradio_api/file={quote(path)}") == (200, content)
    guessed = Path(mine).parent.with_name("0" * 64) / "eye.png"
    assert get(url, f"/gradio_api/file={guessed}")[0] == 403


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.png",
        "/tmp/evil.png",
        "..\\..\\evil.png",
        "C:\\evil.png",
        "evil\0.png",
        "evil\r\n.png",
        "..",
        ".",
        "x" * 300 + "evil.png",
        "眼" * 100 + "evil.png",
        "CON",
        "evil.png. . .",
        "-rf evil.png",
        "%2e%2e%2fevil.png",
    ],
)
def test_a_hostile_name_of_an_upload_stays_in_the_folder(url, segmenter, photograph, name):
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    beside = set(folder.parent.iterdir())
    status, answer = upload(url, photograph.read_bytes(), name)
    if status == 200:
        (path,) = map(Path, answer)
        assert path.resolve().is_relative_to(folder) and path.read_bytes() == photograph.read_bytes()
        told = ask(url, path)
        assert told.startswith("event: complete"), told
        _, mask, *_ = (file["path"] for file in json.loads(told.partition("data: ")[2])[:3])
        assert Path(mask).resolve().is_relative_to(folder)
        np.testing.assert_array_equal(pixels(mask) > 0, segmenter(photograph).mask)
    else:
        assert 400 <= status < 500, answer
    assert set(folder.parent.iterdir()) == beside
    assert not list(Path(tempfile.gettempdir()).glob("*evil*"))


# Overload


def test_nobody_gets_past_the_queue(url, network, photograph):
    _, (path,) = upload(url, photograph.read_bytes())
    calls = network.calls
    for route in ("run", "api"):
        answer = httpx.post(f"{url}gradio_api/{route}/segment", json={"data": [as_file(path), 0.4]}, timeout=PATIENCE_S)
        assert answer.status_code in (403, 404)
    assert network.calls == calls


@pytest.mark.parametrize("place", ["photograph", "settings"])
def test_the_server_fetches_nothing_for_a_stranger(url, client, place):
    address = "http://203.0.113.7/eye.png"
    if place == "photograph":
        with pytest.raises(AppError, match=r"^An address came in place of a file; send the file itself\.$"):
            client.predict(handle_file(address) | {"path": address}, api_name="/segment")
    else:
        saving = endpoint(url, "save")
        join = {"data": [None, as_file(address)], "fn_index": saving, "session_hash": "stranger"}
        assert httpx.post(f"{url}gradio_api/queue/join", json=join).status_code == 200
        told = httpx.get(f"{url}gradio_api/queue/data", params={"session_hash": "stranger"}, timeout=PATIENCE_S).text
        assert "An address came in place of a file" in told
    assert get(url, f"/gradio_api/file={quote(address)}") == (403, b"The page does not do that.")
    assert get(url, f"/gradio_api/proxy={quote(address)}") == (403, b"The page does not do that.")


@pytest.mark.parametrize("route", ["process_recording", "component_server", "vibe-edit", "stream/x/close", "nothing"])
def test_what_the_page_does_not_need_takes_nothing(url, photograph, route, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the page, of this process, would put it
    answer = httpx.post(f"{url}gradio_api/{route}", files={"video": photograph.read_bytes()}, data={"component_id": 1})
    assert (answer.status_code, answer.text) == (403, "The page does not do that.")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def strict(segmenter, url, tmp_path_factory):
    """A page that takes little at a time; its files lie where those of `url` do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "UPLOAD_BYTES", 300_000)
        patch.setattr(guard, "MESSAGE_BYTES", 20_000)
        patch.setattr(guard, "MAX_UNANSWERED_BYTES", 500_000)
        patch.setattr(guard, "BODY_S", 3)
        page = app.build_app(segmenter)
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **layout.launch_options())
        yield address
        page.close()


def still_answers(url, segmenter, photograph, folder):
    with (
        connect(url, folder) as client,
        Image.open(client.predict(handle_file(photograph), api_name="/segment")[1]) as mask,
    ):
        np.testing.assert_array_equal(np.array(mask) > 0, segmenter(photograph).mask)


def test_what_is_too_large_is_refused(strict, segmenter, photograph, tmp_path):
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert photograph.stat().st_size < 300_000
    assert upload(strict, bytes(310_000)) == (413, "File size exceeded maximum allowed size of 300000 bytes.")
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= 300_000]
    many = [("files", (f"{k}.png", bytes(100_000))) for k in range(4)]
    assert httpx.post(f"{strict}gradio_api/upload", files=many).status_code == 413  # each is small enough
    large = httpx.post(f"{strict}gradio_api/queue/join", json={"data": ["x" * 30_000], "session_hash": "a"})
    assert large.status_code == 413 and "the most that the page takes" in large.text
    still_answers(strict, segmenter, photograph, tmp_path)


def half_an_upload(url, size):
    """Send that much of a larger upload, and no more; gives the open connection."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="half.png"\r\n\r\n'
    connection.sendall(
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 290000\r\n\r\n" + head + bytes(size)
    )
    return connection


def test_who_does_not_go_on_sending_is_not_waited_for(strict, segmenter, photograph, tmp_path):
    with half_an_upload(strict, 100) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    still_answers(strict, segmenter, photograph, tmp_path)


def test_too_much_at_once_is_told_to_come_back(strict, segmenter, photograph, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "BODY_S", PATIENCE_S)
    waiting = [half_an_upload(strict, 240_000) for _ in range(2)]
    try:
        wait_until(lambda: upload(strict, bytes(100_000))[0] == 503)
        assert "try again in a moment" in upload(strict, bytes(100_000))[1]
    finally:
        for connection in waiting:
            connection.close()
    wait_until(lambda: upload(strict, bytes(100_000))[0] == 200)
    still_answers(strict, segmenter, photograph, tmp_path)


def test_many_visitors_each_get_their_own(url, segmenter, tmp_path):
    paths = draw_photographs(tmp_path, 12, [(230, 300), (300, 310), (410, 400)])
    expected = [digest(segmenter(path).mask) for path in paths]
    assert len(set(expected)) == 12
    photographs = list(zip(paths, expected, strict=True))
    load = ask_all(url, [photographs[k::4] for k in range(4)], tmp_path)
    assert load.told["answered"] == 12 and load.told["wrong"] == load.told["failed"] == 0


def test_a_flood_is_refused_and_who_leaves_frees_the_place(
    segmenter, network, photograph, secret, tmp_path, monkeypatch
):
    monkeypatch.setattr(layout, "MAX_QUEUE", 3)
    page = app.build_app(segmenter)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **layout.launch_options())
    calls = network.calls
    network.go_on.clear()
    try:
        with connect(url, tmp_path) as staying:
            running = staying.submit(handle_file(photograph), api_name="/segment")
            wait_until(lambda: network.calls > calls)
            leaving = {"session_hash": "leaving", "fn_index": endpoint(url, "segment")}
            (path,) = upload(url, secret.read_bytes())[1]
            for _ in range(3):
                httpx.post(f"{url}gradio_api/queue/join", json=leaving | {"data": [as_file(path), None]})
            with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": "leaving"}) as told:
                lines = told.iter_lines()
                next(lines)
                assert len(page._queue) == 3
                assert flood(url, photograph, 12) == {503: 12}
                with pytest.raises(QueueError, match=r"^Queue is full! Please try again\.$"):
                    staying.predict(handle_file(photograph), api_name="/segment")
            wait_until(lambda: len(page._queue) == 0)
            network.go_on.set()
            later = staying.submit(handle_file(photograph), 0.7, api_name="/segment")
            for job, threshold in ((running, 0.6137), (later, 0.7)):
                mask = pixels(job.result(PATIENCE_S)[1]) > 0
                np.testing.assert_array_equal(mask, segmenter(photograph).at(threshold).mask)
        assert network.calls == calls + 3  # two of them here: nothing was done for who left
    finally:
        network.go_on.set()
        page.close()
