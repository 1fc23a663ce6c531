"""Loading a release from a Hub on loopback: what is altered, cut, gated, absent or a pickle is refused."""

from __future__ import annotations

import re
import shutil

import pytest
from support.hub_server import HubServer
from support.publishing import NET, PUBLISH, load, push


@pytest.fixture(scope="module")
def published(release, tmp_path_factory):
    """Start a Hub that holds the release, with the tag v1."""
    folder = tmp_path_factory.mktemp("published")
    with HubServer(folder / "hub") as server:
        server.run(PUBLISH, NET, release, "v1", home=folder / "home")
        yield server


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
def test_a_download_with_a_wrong_bit_is_refused_by_the_publisher_and_by_others(hub, release, tmp_path):
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    status, told = push(hub, tmp_path / "a", release)
    assert status == 1
    assert f"The model {NET} was published at {hub.commits(NET)[0]}, but its download is not verified." in told
    assert "model.safetensors was altered" in told
    hub.fail_next("flip", "GET /cdn/.*/model.safetensors")
    first, again = refusals(hub, tmp_path / "b", NET, NET)
    assert "was altered or damaged" in first and "`--force-download`" in first
    assert again == first  # the damaged file stays in the cache


@pytest.mark.slow
def test_a_release_that_cannot_be_loaded_is_told_in_one_sentence(published, tmp_path):
    hub = published
    names = ("someone/else", f"{NET}@v9", "no/such/folder", "bundeld")
    missing, revision, name, misspelt = refusals(hub, tmp_path / "a", *names, token=None)
    assert "no such model on the Hub, or it is private" in missing
    assert revision.startswith(f"{NET} has no revision v9: choose")
    assert "it is not a Hub id such as" in name
    assert (
        "no model of that name is part of this copy of the package, which has bundled, bundled-vessels, bundled-cc-by"
        in misspelt
    )
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
