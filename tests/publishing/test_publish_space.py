"""Publishing a Space: what it holds, when it restarts, and that it serves the commit that was published."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from huggingface_hub import metadata_load
from PIL import Image
from support import PATIENCE_S
from support.publishing import NET, PHOTOGRAPH, ROOT, SPACE, STEPS, push

from resegnet import Segmenter
from resegnet.publishing.space import space_contents


@pytest.mark.slow
def test_a_space_is_restarted_only_for_another_model(hub, tmp_path):
    steps = 'tell(space); tell(space); ours["app.py"] = b"2"; del ours["app.py"]; ours["b.py"] = b"2"; tell(space)'
    assert hub.run(STEPS + steps, home=tmp_path / "a").split() == ["done"] * 3
    sent = [request for request in hub.requests if re.search("POST .*(/commit/|/variables)", request)]
    assert [request.split("/")[-1] for request in sent] == ["main", "variables", "main"]  # first the files
    assert set(hub.files(f"spaces/{NET}")) == {".gitattributes", "README.md", "b.py"}  # old files of ours are deleted
    hub.run(STEPS + 'tell(space, commit="1" * 40)', home=tmp_path / "a")
    assert hub.repos[f"spaces/{NET}"]["variables"]["RESEGNET_MODEL"] == f"{NET}@{'1' * 40}"


@pytest.mark.slow
def test_a_space_of_a_private_model_is_told_what_it_needs(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--private", "--space-id", SPACE)
    assert status == 0, told
    assert f"{NET} is private: in the settings of the Space, set the secret HF_TOKEN to a token" in told
    assert hub.repos[NET]["private"] and hub.repos[f"spaces/{SPACE}"]["private"]
    (tmp_path / "README.md").write_bytes(hub.files(f"spaces/{SPACE}")["README.md"])
    assert "preload_from_hub" not in metadata_load(tmp_path / "README.md")


@pytest.mark.slow
def test_a_space_is_published_and_serves_that_commit(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1", "--space-id", SPACE)
    assert status == 0, told
    assert f"{hub.url}/spaces/{SPACE}" in told
    commit = hub.tags(NET)["v1"]
    variables = hub.repos[f"spaces/{SPACE}"]["variables"]
    assert variables["RESEGNET_MODEL"] == f"{NET}@{commit}"
    space = tmp_path / "space"
    for path, content in hub.files(f"spaces/{SPACE}").items():
        (space / path).parent.mkdir(parents=True, exist_ok=True)
        (space / path).write_bytes(content)
    header = metadata_load(space / "README.md")
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py" and header["models"] == [NET]
    (preload,) = header["preload_from_hub"]
    assert preload.startswith(f"{NET} ") and preload.endswith(f" {commit}")
    assert {"config.json", "model.safetensors"} <= set(preload.split()[1].split(","))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = hub.environment(tmp_path / "b", None, RESEGNET_MODEL=variables["RESEGNET_MODEL"])
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=space, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/"
        page = wait_for(url, server)
        assert f"{NET}@{commit[:12]}" in page
        client = Client(url, verbose=False, analytics_enabled=False, download_files=str(tmp_path / "downloads"))
        _, mask, _, numbers = client.predict(handle_file(PHOTOGRAPH), api_name="/segment")
        client.close()
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
    assert numbers["model"] == f"{NET}@{commit[:12]}"
    with Image.open(mask) as image:
        np.testing.assert_array_equal(np.asarray(image) > 0, Segmenter.from_pretrained(release)(PHOTOGRAPH).mask)


def wait_for(url, process):
    for _ in range(5 * PATIENCE_S):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.mark.slow
def test_pip_installs_the_package_from_the_folder_of_a_space(tmp_path):
    """The model card tells strangers to install from there."""
    for path, content in space_contents(ROOT, NET, "0" * 40).items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(content)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", tmp_path / "installed"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "./space"]
    subprocess.run(pip, cwd=tmp_path, check=True, timeout=PATIENCE_S)
    installed = tmp_path / "installed" / "resegnet"
    assert {"model.onnx", "config.json"} <= {path.name for path in (installed / "releases" / "bundled").iterdir()}
    (metadata,) = (tmp_path / "installed").glob("resegnet-*.dist-info/METADATA")
    assert "Requires-Dist: numpy" in metadata.read_text()
    assert not (installed / "learning").exists()


def test_this_repository_is_a_space_as_it_stands():
    header = metadata_load(ROOT / "README.md")
    assert (header["sdk"], header["app_file"], header["python_version"]) == ("gradio", "app.py", "3.11")
    lowest = re.search(r"^gradio>=([\d.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
    assert tuple(map(int, header["sdk_version"].split("."))) >= tuple(map(int, lowest.split(".")))
    contents = space_contents(ROOT, NET, "0" * 40)
    assert {"app.py", "requirements.txt", "README.md", "LICENSE", "resegnet/web/viewer.js"} <= set(contents)
    installed = {re.split("[>[]", line)[0] for line in contents["requirements.txt"].decode().splitlines()}
    assert {"gradio", "onnxruntime"} <= installed and not {"torch", "datasets", "onnx"} & installed
    assert not any("__pycache__" in path for path in contents)
    assert max(map(len, contents.values())) < 50_000_000


def test_stray_files_are_not_published(tmp_path):
    for name in ("resegnet", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("app.py", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = space_contents(tmp_path, NET, "0" * 40)
    strays = {
        "": [".env", "secret.py"],
        "resegnet": [".env", ".notes.py", "eye.jpg", "key.json"],
        "resegnet/web": [".eye.svg", "eye.png"],
        "resegnet/releases/bundled": ["checkpoint.pt"],
        "examples": [".eye.jpg", "patient.jpg"],
    }
    for stray in (Path(folder, name) for folder, names in strays.items() for name in names):
        (tmp_path / stray).write_bytes(b"mine")
    assert space_contents(tmp_path, NET, "0" * 40) == before
    assert {
        "examples/retina_cc0.jpg",
        "examples/synthetic_pink.jpg",
        "resegnet/releases/bundled/model.onnx",
    } <= set(before)
