"""Publishing over HTTP: the real client and a Hub on loopback; a stranger loads what was published."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import metadata_load
from PIL import Image
from support import PATIENCE_S
from support.publishing import NET, PHOTOGRAPH, PUBLISH, SPACE, STEPS, command, load, push, write_tiny
from support.synthetic import draw_fundus

import push_to_hub
from resegnet import Segmenter
from resegnet.errors import DataError
from resegnet.learning.prepare import publish
from resegnet.publishing.publish import check_tag


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
    assert "\nsdk: gradio\n" in told.partition("bytes  app.py")[2]  # the README of the Space
    assert told.rstrip().splitlines()[-1].startswith("Dry run: nothing was sent.")


@pytest.mark.slow
def test_the_output_of_a_dry_run_may_go_anywhere(release, monkeypatch, capfd):
    arguments = ["--release", str(release), "--repo-id", NET, "--space-id", SPACE, "--dry-run"]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))  # a file, on Windows
    assert push_to_hub.main(arguments) == 0
    sys.stdout.flush()
    assert b"sdk: gradio" in written.getvalue()
    command = shlex.join([sys.executable, str(Path(push_to_hub.__file__)), *arguments])
    done = subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == f"{release} is sound.\n" and done.stderr == ""


@pytest.mark.slow
def test_an_invalid_name_is_refused_at_once(release, capsys):
    for name, said in (("a/b/c", "cannot be a name on the Hub"), ("other", "has no user name, expected user/name")):
        for option in ("--repo-id", "--space-id"):
            names = {"--repo-id": NET, "--space-id": SPACE} | {option: name}
            arguments = [word for pair in names.items() for word in pair]
            assert push_to_hub.main(["--release", str(release), *arguments, "--dry-run"]) == 1
            told = capsys.readouterr()
            assert told.err.startswith(f"Not published, nothing was sent: '{name}' {said}") and told.out == ""


def test_the_options_of_the_script_stay():
    options = [action.option_strings[0] for action in push_to_hub.build_parser()._actions]
    assert options == (
        ["-h", "--release", "--repo-id", "--revision", "--private", "--space-id", "--space-hardware", "--dry-run"]
    )
