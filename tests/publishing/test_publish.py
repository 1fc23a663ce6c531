"""Publishing and loading over HTTP: the real client, a Hub on loopback, and a Space started from its files there."""

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
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gradio_client import Client, handle_file
from huggingface_hub import metadata_load
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from support import PATIENCE_S
from support.hub_server import HubServer
from support.stand_in import small_photographs
from support.synthetic import draw_fundus

import push_to_hub
from resegnet import Config, ReSegNet, Segmenter
from resegnet.errors import DataError, HubError, PublishError
from resegnet.hub import retry_hub_call
from resegnet.learning.prepare import publish
from resegnet.publishing.publish import check_tag
from resegnet.publishing.space import space_contents
from resegnet.releases.release import write_release

ROOT = Path(__file__).parents[2]
PHOTOGRAPH = ROOT / "examples" / "synthetic_orange.jpg"
NET, SPACE = "someone/net", "someone/demo"

# Loads a release and segments a photograph, as another person would: in a new process, with an empty cache.
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
    training = {"options": {"dataset": ["synthetic"]}, "threshold_fitted_on": "drawn eyes"}
    return write_release(ReSegNet(config).eval(), training, {}, folder, small_photographs(64))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("runs") / "best")


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture(scope="module")
def published(release, tmp_path_factory):
    """Start a Hub that holds the release, with the tag v1."""
    folder = tmp_path_factory.mktemp("published")
    with HubServer(folder / "hub") as server:
        server.run(PUBLISH, NET, release, "v1", home=folder / "home")
        yield server


# Attempts that follow each other at once. `test_the_hub_is_asked_again_when_it_says` tests the waits between them.
AT_ONCE = "import resegnet.hub; resegnet.hub._WAITS_S = (0, 0, 0)"

# Publishes without the model card and its pictures, which take most of the time. Arguments: name, folder and tag of
# each release.
PUBLISH = (
    f"{AT_ONCE}\n"
    + """
import sys
from pathlib import Path
from resegnet.errors import PublishError
from resegnet.publishing.publish import tag_release, upload_release, verify_download
steps = iter(sys.argv[1:])
for name, folder, tag in zip(steps, steps, steps):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    contents["README.md"] = b"---\\nlibrary_name: resegnet\\n---\\n"
    try:
        commit = upload_release(contents, name, revision=tag or None)
        if tag:
            tag_release(name, tag, commit)
        verify_download(name, tag or commit)
        print(commit)
    except PublishError as error:
        print(error)
"""
)


def push(hub, home, release, *options, token="hf_someone"):
    """Run `push_to_hub.py` in a new process; return its exit status and its output."""
    start = f"{AT_ONCE}; import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", start, "push_to_hub.py", "--release", release, "--repo-id", NET, *options]
    process = subprocess.run(
        command, cwd=ROOT, env=hub.environment(home, token), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert "hf_someone" not in process.stdout + process.stderr  # the token is never printed
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout + process.stderr


def load(hub, home, out, revision="", **options):
    return hub.run(LOAD, NET, revision, out, PHOTOGRAPH, home=home, **options).strip()


# Prints the error of each release that another person tries to load. Arguments: NAME@REVISION of each.
REFUSALS = """
import sys
from resegnet import ResegnetError, Segmenter
for name in sys.argv[1:]:
    name, _, revision = name.partition("@")
    try:
        print(Segmenter.from_pretrained(name, revision=revision or None).model)
    except (ResegnetError, OSError) as error:
        print(error)
"""


def refusals(hub, home, *names, **options):
    told = hub.run(REFUSALS, *names, home=home, **options).splitlines()
    assert len(told) == len(names)  # one line each
    return told


@pytest.mark.slow
def test_a_release_is_published_and_loaded_by_strangers_bit_for_bit(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1.0.0")
    assert status == 0, told
    assert f"{hub.url}/{NET}/tree/v1.0.0" in told
    assert len(hub.commits(NET)) == 2  # the Hub makes the first commit
    assert hub.tags(NET) == {"v1.0.0": hub.commits(NET)[0]}
    files = hub.files(NET)
    for path in release.rglob("*"):
        assert path.is_dir() or files.pop(path.relative_to(release).as_posix()) == path.read_bytes()
    card = files.pop("README.md").decode()
    pictures = {name for name in files if name.startswith("pictures/")}
    assert len(pictures) >= 2 and all(f"({name})" in card or f"(<{name}>)" in card for name in pictures)
    assert set(files) - pictures <= {".gitattributes"}

    expected = Segmenter.from_pretrained(release)(PHOTOGRAPH).probability
    label = load(hub, tmp_path / "b", tmp_path / "b.npy", "v1.0.0", token=None)
    assert label == f"{NET}@v1.0.0 ({hub.commits(NET)[0][:12]})"
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected)
    hub.requests.clear()
    load(hub, tmp_path / "b", tmp_path / "c.npy", "v1.0.0", token=None, HF_HUB_OFFLINE="1")  # from the cache
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), expected)
    assert hub.requests == []

    status, told = push(hub, tmp_path / "a", release, "--revision", "v1.0.0")  # again, without a change
    assert status == 0, told
    assert len(hub.commits(NET)) == 2
    assert hub.unknown == []


def command(hub, home, *arguments, status=0, **options):
    """Run a command of this repository in a new process; return its output, or its error output if it fails."""
    process = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=hub.environment(home, **options),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert process.returncode == status, process.stderr
    return process.stderr if status else process.stdout


@pytest.mark.slow
def test_from_a_download_to_a_model_that_a_stranger_loads(hub, tmp_path):
    """Prepare and publish a data set, train on it from the Hub, publish the release, and load it."""
    for number in range(1, 15):
        for side, seed in (("L", 2 * number), ("R", 2 * number + 1)):
            fundus = draw_fundus(seed, (130, 136))
            Image.fromarray(fundus.image).save(tmp_path / f"Image_{number:02d}{side}.jpg", quality=95)
            Image.fromarray(fundus.vessels).save(tmp_path / f"Image_{number:02d}{side}_1stHO.png")
    prepare = ["-m", "resegnet", "prepare", "chase_db1", tmp_path, tmp_path / "prepared"]
    prepare += ["--push-to-hub", "someone/chase"]
    hub.fail_next("cut", "POST /api/repos/create", times=4)
    told = command(hub, tmp_path / "a", *prepare, status=1)
    assert "resegnet: The request to the Hub failed (" in told and "Traceback" not in told
    for path in tmp_path.glob("*.jpg"):
        path.unlink()  # already prepared, so the download is not read again
    hub.fail_next("500", "POST /api/datasets/.*/commit/")
    assert "prepared already" in command(hub, tmp_path / "a", *prepare)
    card = hub.files("datasets/someone/chase")["README.md"].decode()
    assert "dataset_info:" in card and "Terms: CC BY 4.0" in card and "doi:10.1109/TBME.2012.2205687" in card

    small = ["--encoder", "resnet18", "--encoder-weights", "none", "--encoder-depth", "3", "--input-size", "64"]
    small += ["--decoder-channels", "8", "8", "8", "--crop-size", "64", "--epochs", "1", "--steps-per-epoch", "2"]
    training = ["train.py", "--dataset", "someone/chase", "--out", tmp_path / "run", *small]
    command(hub, tmp_path / "b", *training, token=None)
    release = tmp_path / "run" / "release"
    assert json.loads((release / "training.json").read_text())["train_ids"][0].startswith("chase_")
    assert json.loads((release / "metrics.json").read_text())["chase"]["count"] == 8

    status, told = push(hub, tmp_path / "a", release)
    assert status == 0, told
    (tmp_path / "card.md").write_bytes(hub.files(NET)["README.md"])
    assert metadata_load(tmp_path / "card.md")["datasets"] == ["someone/chase"]
    load(hub, tmp_path / "c", tmp_path / "c.npy", token=None)
    expected = Segmenter.from_pretrained(release)(PHOTOGRAPH).probability
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), expected)
    assert hub.unknown == []


def test_a_data_set_without_permission_is_not_made_public(tmp_path):
    with pytest.raises(DataError, match=r"DRIVE must not be published .*--private"):
        publish(tmp_path, "drive", "someone/drive")


@pytest.mark.slow
def test_no_commit_without_a_change_and_no_tag_is_moved(hub, release, tmp_path):
    other = write_tiny(tmp_path / "other", threshold=0.25)
    steps = [(release, "v1"), (release, "v1"), (release, ""), (other, "v1"), (other, "v2"), (release, "")]
    told = hub.run(PUBLISH, *(word for step in steps for word in (NET, *step)), home=tmp_path / "a").splitlines()
    first, second, third = told[0], told[4], told[5]
    assert told[:3] == [first] * 3
    assert told[3] == f"{NET} has a tag v1 with other contents, and tags are not moved: choose another tag."
    assert hub.commits(NET)[:3] == [third, second, first]
    assert len(hub.commits(NET)) == 4
    assert hub.tags(NET) == {"v1": first, "v2": second}
    assert json.loads(hub.files(NET, "v1")["config.json"])["threshold"] == 0.5
    assert json.loads(hub.files(NET, "v2")["config.json"])["threshold"] == 0.25


@pytest.mark.slow
def test_a_tag_stands_for_the_release_not_for_its_card(hub, release, tmp_path):
    other = shutil.copytree(release, tmp_path / "other")
    (other / "pictures").mkdir()
    (other / "pictures" / "eye.jpg").write_bytes(b"made elsewhere")
    told = hub.run(PUBLISH, NET, release, "v1", NET, other, "v1", home=tmp_path / "a").splitlines()
    assert told == [hub.tags(NET)["v1"]] * 2
    assert len(hub.commits(NET)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "tag",
    ["main", "HEAD", "a" * 40, "refs/tags/v1", "v 1", "v1..2", "v1.", "v1.lock", "v~1", "v^", "v:1", "-v1", "", "v1\n"],
)
def test_an_invalid_tag_is_refused_before_anything_else(release, capsys, tag):
    assert push_to_hub.main(["--release", str(release), "--repo-id", NET, f"--revision={tag}"]) == 1
    assert f"{tag!r} cannot be a tag, expected letters" in capsys.readouterr().err


@pytest.mark.parametrize("tag", [None, "v1.0.0", "2026-05_a+b", "a" * 39])
def test_valid_tags(tag):
    check_tag(tag)


# Runs several steps in one process, and prints the error of each.
STEPS = """
import sys
from huggingface_hub import HfApi
from resegnet.learning.prepare import publish
from resegnet.errors import PublishError
from resegnet.publishing.publish import upload_release
from resegnet.publishing.space import publish_space
api = HfApi()
ours = {"README.md": b"---\\nsdk: gradio\\ntags: [resegnet]\\n---\\n", "app.py": b"1"}
def release(**options):
    upload_release(ours, "someone/net", **options)
def space(commit="0" * 40, private=False):
    publish_space(ours, "someone/net", "someone/net", commit, private=private)
def data(name="chase_db1", **options):
    publish(sys.argv[1], name, "someone/net", **options)
def create(**options):
    for kind in ("model", "dataset", "space"):
        api.create_repo("someone/net", repo_type=kind, space_sdk="gradio" if kind == "space" else None, **options)
def tell(step, **options):
    try:
        step(**options)
        print("done")
    except PublishError as error:
        print(error)
"""
KINDS = (NET, f"spaces/{NET}", f"datasets/{NET}")


@pytest.mark.slow
def test_private_files_are_not_sent_to_a_public_repository(hub, tmp_path):
    steps = 'create()\ntell(release, private=True)\ntell(space, private=True)\ntell(data, name="drive", private=True)'
    told = hub.run(STEPS + steps, tmp_path, home=tmp_path / "a").splitlines()
    refused = f"{NET} exists and is public, but --private was given: make it private in its settings on the Hub, or "
    assert told == [f"{refused}name another."] * 3
    assert [len(hub.commits(key)) for key in KINDS] == [1, 1, 1]
    assert not hub.count("preupload|/commit/|/variables")


@pytest.mark.slow
def test_files_of_others_are_not_overwritten(hub, tmp_path):
    steps = """
create()
for kind in ("model", "dataset", "space"):
    for name in ("pytorch_model.bin", "README.md", "b.txt", "c.txt", "d.txt"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="someone/net", repo_type=kind)
tell(release); tell(space); tell(data)
"""
    told = hub.run(STEPS + steps, tmp_path, home=tmp_path / "a").splitlines()
    refused = f"{NET} holds b.txt, c.txt, d.txt and more, which ReSegNet did not publish and would delete: choose "
    assert told == [f"{refused}another repository."] * 2 + [
        f"{NET} holds a data set that ReSegNet did not make: name another."
    ]
    assert [len(hub.commits(key)) for key in KINDS] == [6, 6, 6]


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


ASKED = [
    ({"ratelimit": '"api";r=0;t=55'}, 55),
    ({"ratelimit": '"api";r=3;t=55'}, 1),  # sent with every answer, and not the cause of the refusal
    ({"Retry-After": "7"}, 7),
    ({"Retry-After": "99999"}, 300),
    ({"Retry-After": "soon"}, 1),
    ({}, 1),
]


def refusal(status, headers):
    return HfHubHTTPError("No.", response=SimpleNamespace(status_code=status, headers=headers, request=None))


@pytest.mark.parametrize(("headers", "wait_s"), [*ASKED, ({"Retry-After": "date"}, 30)])
def test_the_hub_is_asked_again_when_it_says(monkeypatch, headers, wait_s):
    waits, answers = [], [refusal(429, headers)]
    if headers.get("Retry-After") == "date":
        headers["Retry-After"] = formatdate(time.time() + 30, usegmt=True)
    monkeypatch.setattr("resegnet.hub.time.sleep", waits.append)

    def ask():
        if answers:
            raise answers.pop()
        return "yes"

    assert retry_hub_call(ask) == "yes"
    assert waits == [pytest.approx(wait_s, abs=2 if wait_s == 30 else 0)]


@pytest.mark.parametrize(
    ("error", "temporary", "attempts"),
    [
        (refusal(500, {}), True, 4),
        (refusal(404, {}), False, 1),
        (HfHubHTTPError.__mro__[1]("cut"), True, 4),
        (RuntimeError("Error while uploading 'model.safetensors' to the Hub."), True, 4),  # Git LFS and Xet
    ],
)
def test_a_lasting_failure_is_told_in_one_sentence(monkeypatch, error, temporary, attempts):
    asked = []
    monkeypatch.setattr("resegnet.hub.time.sleep", lambda _: None)

    def ask():
        asked.append(1)
        raise error

    with pytest.raises(HubError, match=r"^The request to the Hub failed \([^\n]+\)\.$") as caught:
        retry_hub_call(ask)
    assert (caught.value.temporary, len(asked)) == (temporary, attempts)


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


STUMBLES = {
    "someone/net-0": ("500", "POST /api/repos/create"),
    "someone/net-1": ("500", "POST /api/models/someone/net-1/commit/"),
    "someone/net-2": ("429", "POST /api/models/someone/net-2/commit/"),
    "someone/net-3": ("cut", "POST /api/models/someone/net-3/commit/"),
    "someone/net-4": ("lost", "POST /api/models/someone/net-4/commit/"),  # the commit succeeds, and its answer is lost
    "someone/net-5": ("lost", "POST /api/models/someone/net-5/tag/"),
    "someone/net-7": ("ratelimit", "POST /api/models/someone/net-7/commit/"),
    "someone/net-6": ("429", "POST /api/models/someone/net-6/tag/"),
}


@pytest.mark.slow
def test_a_hub_that_stumbles_costs_nothing(hub, release, tmp_path):
    for kind, match in STUMBLES.values():
        hub.fail_next(kind, match)
    hub.run(PUBLISH, *(word for name in STUMBLES for word in (name, release, "v1")), home=tmp_path / "a")
    assert hub.faults == []
    for name in STUMBLES:
        assert len(hub.commits(name)) == 2, name  # the Hub makes the first commit
        assert hub.tags(name) == {"v1": hub.commits(name)[0]}
        assert set(hub.files(name)) - {".gitattributes"} == set(hub.files("someone/net-0")) - {".gitattributes"}


@pytest.mark.slow
def test_a_push_that_was_cut_is_completed_by_running_it_again(hub, release, tmp_path):
    hub.fail_next("500", "POST /api/models/.*/commit/", times=4)
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1")
    assert status == 1
    assert f"The model {NET} was not published.\nReason: " in told and "run the same command again" in told
    assert len(hub.commits(NET)) == 1 and hub.tags(NET) == {}
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1")
    assert status == 0, told
    assert hub.tags(NET) == {"v1": hub.commits(NET)[0]}


@pytest.mark.slow
def test_each_step_tells_what_was_done_when_a_later_one_fails(hub, release, tmp_path):
    """The model is published and only its Space fails, then only its tag."""
    options = ["--revision", "v1", "--space-id", SPACE]
    hub.fail_next("500", f"POST /api/spaces/{SPACE}/commit/", times=4)
    status, told = push(hub, tmp_path / "a", release, *options)
    assert status == 1
    assert (
        f"The model {NET} was published. The Space {SPACE} was not published completely.\nReason: The request" in told
    )
    assert "run the same command again" in told and "Not published" not in told
    assert hub.tags(NET) == {"v1": hub.commits(NET)[0]}

    hub.fail_next("500", f"POST /api/models/{NET}/tag/", times=4)
    status, told = push(hub, tmp_path / "a", release, "--revision", "v2", "--space-id", SPACE)
    assert status == 1
    commit = hub.commits(NET)[0]
    assert (
        f"The model {NET} was published at {commit}, without its tag v2. The Space {SPACE} was not published." in told
    )

    status, told = push(hub, tmp_path / "a", release, "--revision", "v2", "--space-id", SPACE)
    assert status == 0, told
    assert hub.tags(NET)["v2"] == commit and f"Space: {hub.url}/spaces/{SPACE}" in told


@pytest.mark.slow
def test_a_name_without_a_user_leaves_no_empty_repository(hub, tmp_path):
    steps = """
tell(lambda: upload_release(ours, "other"))
tell(lambda: publish_space(ours, "other", "a/b", "0" * 40, private=False))
try:
    publish(sys.argv[1], "chase_db1", "other")
except ValueError as error:
    print(error)
"""
    told = hub.run(STEPS + steps, tmp_path, home=tmp_path / "a").splitlines()
    assert len(told) == 3 and all(
        "'other' has no user name, expected user/name: give the name" in line for line in told
    )
    assert hub.requests == []


@pytest.mark.slow
def test_a_download_with_a_wrong_bit_is_refused_by_the_publisher_and_by_others(hub, release, tmp_path):
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    status, told = push(hub, tmp_path / "a", release)
    assert status == 1
    assert f"The model {NET} was published at {hub.commits(NET)[0]}, but its download is not verified." in told
    assert "model.safetensors was altered" in told
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    first, again = refusals(hub, tmp_path / "b", NET, NET)
    assert "was altered or damaged" in first and "force_download=True" in first
    assert again == first  # the damaged file stays in the cache


@pytest.mark.slow
def test_a_release_that_cannot_be_loaded_is_told_in_one_sentence(published, tmp_path):
    hub = published
    missing, revision, name = refusals(hub, tmp_path / "a", "someone/else", f"{NET}@v9", "no/such/folder", token=None)
    assert "no such model on the Hub, or it is private" in missing
    assert revision.startswith(f"{NET} has no revision v9: choose")
    assert "it is not a Hub id such as" in name
    (wrong,) = refusals(hub, tmp_path / "a", NET, token="hf_wrong")
    assert wrong.startswith(f"The Hub refuses {NET} (") and "HF_TOKEN to a token that may read it." in wrong
    (offline,) = refusals(hub, tmp_path / "b", NET, HF_HUB_OFFLINE="1")
    assert "is not in the cache" in offline
    try:
        hub.gate(NET)
        (gated,) = refusals(hub, tmp_path / "c", NET, token="hf_stranger")
        assert gated.startswith(f"{NET} is gated: ask for access")
        hub.repos[NET].update(gated=False, private=True)
        (private,) = refusals(hub, tmp_path / "d", NET, token="hf_stranger")
        assert "or it is private" in private
    finally:
        hub.repos[NET].update(gated=False, private=False)


@pytest.mark.slow
def test_a_download_that_is_cut_is_told_in_a_sentence(published, tmp_path):
    published.fail_next("cut", "GET /api/models/.*/revision/main")
    (told,) = refusals(published, tmp_path / "a", NET)
    assert published.faults == []
    assert re.fullmatch(rf"{NET} cannot be downloaded from the Hub \(.+\): check the connection .*\.", told)


@pytest.mark.slow
def test_an_incomplete_cache_is_told(published, tmp_path):
    load(published, tmp_path / "b", tmp_path / "b.npy")
    (weights,) = (tmp_path / "b").rglob("snapshots/*/model.safetensors")
    weights.unlink()
    (told,) = refusals(published, tmp_path / "b", NET, HF_HUB_OFFLINE="1")
    assert "is not in the cache or only in part" in told
    assert refusals(published, tmp_path / "b", NET)[0].startswith(f"{NET}@")  # the Hub completes it


@pytest.mark.slow
def test_a_pickle_in_place_of_the_weights_is_refused(published, release, tmp_path):
    import torch

    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(release / "config.json", folder)
    torch.save({"evil": torch.zeros(1)}, folder / "model.safetensors")
    torch.save({"evil": torch.zeros(1)}, folder / "pytorch_model.bin")
    upload = "from huggingface_hub import HfApi; import sys; HfApi().create_repo(sys.argv[1]); "
    upload += "HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])"
    published.run(upload, "someone/pickled", folder, home=tmp_path / "a")
    published.requests.clear()
    (told,) = refusals(published, tmp_path / "b", "someone/pickled")
    assert (
        "is too small for the network" in told
    )  # refused by its size, without opening it; larger ones are refused as not safetensors
    assert published.count("pytorch_model.bin") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("token", "said"), [("hf_wrong", "Invalid credentials"), ("hf_stranger", "the rights")])
def test_a_user_without_permission_is_told_what_to_do(hub, release, tmp_path, token, said):
    status, told = push(hub, tmp_path / "a", release, token=token)
    assert status == 1
    assert told.count("was not published.") == 1 and said in told
    assert "log in with `hf auth login` or set HF_TOKEN to a token that may write there." in told
    assert "run the same command again" not in told  # it would fail again
    assert NET not in hub.repos


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_dry_run_shows_files_and_card_and_asks_nobody(hub, release, tmp_path):
    status, told = push(hub, tmp_path / "a", release, "--revision", "v1", "--space-id", SPACE, "--dry-run")
    assert status == 0, told
    assert hub.requests == []
    size = (release / "model.safetensors").stat().st_size
    assert re.search(rf"{size:,} bytes  model\.safetensors", told)
    assert f'from_pretrained("{NET}", revision="v1")' in told
    assert "bytes  app.py" in told
    assert f"(https://huggingface.co/spaces/{SPACE})" in told and f"hf download {SPACE} --repo-type space" in told


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


@pytest.mark.slow
def test_an_invalid_name_is_refused_at_once(release, capsys):
    for name, said in (("a/b/c", "cannot be a name on the Hub"), ("other", "has no user name, expected user/name")):
        for option in ("--repo-id", "--space-id"):
            names = {"--repo-id": NET, "--space-id": SPACE} | {option: name}
            arguments = [word for pair in names.items() for word in pair]
            assert push_to_hub.main(["--release", str(release), *arguments, "--dry-run"]) == 1
            told = capsys.readouterr()
            assert told.err.startswith(f"Not published, nothing was sent: '{name}' {said}") and told.out == ""
    assert "HF_TOKEN" not in os.environ


@pytest.mark.slow
def test_only_errors_that_the_user_can_mend_become_one_line(release, monkeypatch, capsys):
    def fail_with(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("resegnet.publishing.publish.release_contents", fail)
        return push_to_hub.main(["--release", str(release), "--repo-id", NET])

    for error in (PublishError("Mend it."), OSError("Mend it\nin detail"), refusal(500, {})):
        assert fail_with(error) == 1
        assert re.fullmatch(r"Not published, nothing was sent: (Mend it\.?|No)\n", capsys.readouterr().err)
    assert fail_with(HubError("Mend it.", temporary=True)) == 1
    assert "run the same command again to continue" in capsys.readouterr().err
    for defect in (ValueError("a defect"), KeyError("a defect")):
        with pytest.raises(type(defect), match="a defect"):
            fail_with(defect)


def test_the_options_of_the_script_stay():
    options = [action.option_strings[0] for action in push_to_hub.build_parser()._actions]
    assert options == (
        ["-h", "--release", "--repo-id", "--revision", "--private", "--space-id", "--space-hardware", "--dry-run"]
    )
