"""Publishing and loading over HTTP: the real client, a Hub on loopback, a Space started from what it holds."""

from __future__ import annotations

import json
import os
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
from hub_server import HubServer
from huggingface_hub import metadata_load

import push_to_hub
from resegnet import Config, ReSegNet, Segmenter
from resegnet.publish import space_contents
from resegnet.release import write_release

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = ROOT / "examples" / "drawn_orange.jpg"
NET, SPACE = "someone/net", "someone/demo"

# What a stranger runs: a new process, an empty cache.
LOAD = """
import sys
import numpy as np
from resegnet import Segmenter
segmenter = Segmenter.from_pretrained(sys.argv[1], revision=sys.argv[2] or None)
np.save(sys.argv[3], segmenter(sys.argv[4]).probability)
print(segmenter.model)
"""


def write_tiny(folder, threshold=0.5, seed=0):
    import torch

    torch.manual_seed(seed)
    config = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 8), input_size=64, threshold=threshold)
    training = {"options": {"dataset": ["drawn"]}, "threshold_fitted_on": "drawn eyes"}
    return write_release(ReSegNet(config).eval(), training, {}, folder)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("runs") / "best")


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


def push(hub, home, release, *options, token="hf_someone"):
    """`push_to_hub.py` in a process of its own; gives its exit status and what it printed."""
    command = [sys.executable, "push_to_hub.py", "--release", release, "--repo-id", NET, *options]
    process = subprocess.run(
        command, cwd=ROOT, env=hub.environment(home, token), capture_output=True, text=True, timeout=600
    )
    assert "hf_someone" not in process.stdout + process.stderr  # the token is never printed
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout + process.stderr


def load(hub, home, out, revision="", **options):
    return hub.run(LOAD, NET, revision, out, PHOTOGRAPH, home=home, **options).strip()


def refusal(hub, home, revision="", name=NET, **options):
    """The sentence that a stranger gets."""
    script = """
import sys
from resegnet import Segmenter
try:
    Segmenter.from_pretrained(sys.argv[1], revision=sys.argv[2] or None)
except (OSError, ValueError) as error:
    print(error)
"""
    told = hub.run(script, name, revision, home=home, **options).strip()
    assert "\n" not in told
    return told


def test_a_release_is_published_and_loaded_by_strangers_bit_for_bit(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1.0.0")
    assert status == 0, told
    assert f"{hub.url}/{NET}/tree/v1.0.0" in told
    assert len(hub.commits(NET)) == 2  # the first came with the repository
    assert hub.tags(NET) == {"v1.0.0": hub.commits(NET)[0]}
    files = hub.files(NET)
    assert files["model.safetensors"] == (release / "model.safetensors").read_bytes()
    assert set(files) - {".gitattributes"} == {
        *(path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()),
        "README.md",
        *(name for name in files if name.startswith("pictures/")),
    }

    expected = Segmenter.from_pretrained(release)(PHOTOGRAPH).probability
    commit = hub.commits(NET)[0]
    label = load(hub, tmp_path / "b", tmp_path / "b.npy", "v1.0.0", token=None)
    assert label == f"{NET}@v1.0.0 ({commit[:12]})"
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected)
    # Offline, from the cache.
    hub.requests.clear()
    load(hub, tmp_path / "b", tmp_path / "c.npy", "v1.0.0", token=None, HF_HUB_OFFLINE="1")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), expected)
    assert hub.requests == []
    assert "not in the cache" in refusal(hub, tmp_path / "d", HF_HUB_OFFLINE="1")

    # Again, with nothing changed.
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1.0.0")
    assert status == 0, told
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1.0.0", "--private")
    assert status == 0, told
    assert len(hub.commits(NET)) == 2
    # Another release under the same tag.
    other = write_tiny(tmp_path / "other", threshold=0.25)
    status, told = push(hub, tmp_path / "a", other, "--revision", "v1.0.0")
    assert (status, told.splitlines()[-1]) == (
        1,
        f"Not published: {NET} has a tag v1.0.0 with other contents, and tags are not moved: name another.",
    )
    assert hub.files(NET) == files
    status, told = push(hub, tmp_path / "a", other, "--revision", "v1.1.0")
    assert status == 0, told
    assert hub.files(NET, "v1.0.0") == files
    assert json.loads(hub.files(NET, "v1.1.0")["config.json"])["threshold"] == 0.25
    assert hub.unknown == []


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
        server.wait(30)
    assert numbers["model"] == f"{NET}@{commit[:12]}"
    from PIL import Image

    with Image.open(mask) as image:
        np.testing.assert_array_equal(np.asarray(image) > 0, Segmenter.from_pretrained(release)(PHOTOGRAPH).mask)


def wait_for(url, process):
    for _ in range(600):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


STUMBLES = {
    "someone/net-0": ("500", "POST /api/repos/create"),
    "someone/net-1": ("500", "POST /api/models/someone/net-1/commit/"),
    "someone/net-2": ("429", "POST /api/models/someone/net-2/commit/"),
    "someone/net-3": ("cut", "POST /api/models/someone/net-3/commit/"),
    "someone/net-4": ("lost", "POST /api/models/someone/net-4/commit/"),  # it is made, and its answer is lost
    "someone/net-5": ("lost", "POST /api/models/someone/net-5/tag/"),
    "someone/net-6": ("429", "POST /api/models/someone/net-6/tag/"),
}

PUBLISH = """
import sys
from pathlib import Path
from resegnet.publish import publish_release
folder = Path(sys.argv[1])
contents = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
for name in sys.argv[2:]:
    publish_release(contents, name, revision="v1")
"""


def test_a_hub_that_stumbles_costs_nothing(hub, release, tmp_path):
    for kind, match in STUMBLES.values():
        hub.fail_next(kind, match)
    hub.run(PUBLISH, release, *STUMBLES, home=tmp_path / "a")
    assert hub.faults == []
    for name in STUMBLES:
        assert len(hub.commits(name)) == 2, name  # the first came with the repository
        assert hub.tags(name) == {"v1": hub.commits(name)[0]}
        assert set(hub.files(name)) - {".gitattributes"} == set(hub.files("someone/net-0")) - {".gitattributes"}


def test_a_push_that_was_cut_is_completed_by_running_it_again(hub, release, tmp_path):
    hub.fail_next("500", "POST /api/models/.*/commit/", times=4)
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1")
    assert status == 1
    assert "Not published: " in told and "run the same command again" in told
    assert len(hub.commits(NET)) == 1 and hub.tags(NET) == {}
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1")
    assert status == 0, told
    assert hub.tags(NET) == {"v1": hub.commits(NET)[0]}


def test_a_download_with_a_wrong_bit_is_refused_by_the_publisher_and_by_others(hub, release, tmp_path):
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    status, told = push(hub, tmp_path / "a", release)
    assert status == 1
    assert "model.safetensors was altered" in told
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    assert "was altered or damaged" in refusal(hub, tmp_path / "b")
    assert "force_download=True" in refusal(hub, tmp_path / "b")  # it stays in the cache


def test_what_cannot_be_had_is_told_in_a_sentence(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1", "--private")
    assert status == 0, told
    nobody = refusal(hub, tmp_path / "b", token=None)
    assert "no such model on the Hub, or it is private" in nobody
    assert "no such model" in refusal(hub, tmp_path / "b", name="someone/else")
    assert refusal(hub, tmp_path / "b", "v9").startswith(f"{NET} has no revision v9: choose")
    assert "no Hub id such as" in refusal(hub, tmp_path / "b", name="no/such/folder")
    hub.gate(NET)
    hub.repos[NET]["private"] = False
    assert "is gated: ask for access" in refusal(hub, tmp_path / "b", token="hf_stranger")


def test_a_half_written_cache_is_told(hub, release, tmp_path):
    assert push(hub, tmp_path / "a", release)[0] == 0
    load(hub, tmp_path / "b", tmp_path / "b.npy")
    (weights,) = (tmp_path / "b").rglob("snapshots/*/model.safetensors")
    weights.unlink()
    told = refusal(hub, tmp_path / "b", HF_HUB_OFFLINE="1")
    assert "model.safetensors" in told
    assert "Download" in told or "download" in told


def test_a_pickle_in_place_of_the_weights_is_refused(hub, release, tmp_path):
    import torch

    assert push(hub, tmp_path / "a", release)[0] == 0
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(release / "config.json", folder)
    torch.save({"evil": torch.zeros(1)}, folder / "model.safetensors")
    torch.save({"evil": torch.zeros(1)}, folder / "pytorch_model.bin")
    upload = "from huggingface_hub import HfApi; import sys; HfApi().create_repo(sys.argv[1]); "
    upload += "HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])"
    hub.run(upload, "someone/pickled", folder, home=tmp_path / "a")
    hub.requests.clear()
    assert "the weights cannot be loaded" in refusal(hub, tmp_path / "b", name="someone/pickled")
    assert hub.count("pytorch_model.bin") == 0


def test_a_wrong_token_is_told(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, token="hf_wrong")
    assert status == 1
    assert told.count("Not published: ") == 1
    assert NET not in hub.repos


def test_a_release_that_does_not_verify_is_not_published(hub, release, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(release, damaged)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    status, told = push(hub, tmp_path / "a", damaged)
    assert status == 1
    assert "model.safetensors was altered" in told
    assert hub.requests == []


def test_a_dry_run_shows_files_and_card_and_asks_nobody(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1", "--space-id", SPACE, "--dry-run")
    assert status == 0, told
    assert hub.requests == []
    size = (release / "model.safetensors").stat().st_size
    assert re.search(rf"{size:,} bytes  model\.safetensors", told)
    assert f'from_pretrained("{NET}", revision="v1")' in told
    assert "bytes  app.py" in told


def test_this_repository_is_a_space_as_it_stands():
    header = metadata_load(ROOT / "README.md")
    assert (header["sdk"], header["app_file"], header["python_version"]) == ("gradio", "app.py", "3.11")
    lowest = re.search(r"^gradio>=([\d.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
    assert tuple(map(int, header["sdk_version"].split("."))) >= tuple(map(int, lowest.split(".")))
    contents = space_contents(ROOT, NET, "0" * 40)
    assert {"app.py", "requirements.txt", "README.md", "LICENSE", "resegnet/web/viewer.js"} <= set(contents)
    assert not any("__pycache__" in path for path in contents)
    assert max(map(len, contents.values())) < 50_000_000


def test_a_name_that_cannot_be_is_refused_at_once(release, capsys):
    assert push_to_hub.main(["--release", str(release), "--repo-id", "a/b/c"]) == 1
    assert "Not published: " in capsys.readouterr().err
    assert "HF_TOKEN" not in os.environ
