"""The Hub on loopback with the unmodified client: behaviour that other tests rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.files import tree
from support.hub_client import NET, tell
from support.hub_server import HubServer

pytestmark = pytest.mark.slow  # every test needs what the client did in processes of its own


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Start a Hub that several tests share."""
    with HubServer(tmp_path_factory.mktemp("shared") / "hub") as server:
        yield server


@pytest.fixture(scope="module")
def told(shared, folder, tmp_path_factory) -> dict:
    """Publish, download and provoke every refusal, in one process; gives the outcome of each step."""
    steps = """
tell("whoami", lambda: api.whoami()["name"])
tell("first", lambda: publish("someone/net"))
tell("again", lambda: publish("someone/net"))
tell("tag", lambda: api.create_tag("someone/net", tag="v1"))
tell("same tag", lambda: api.create_tag("someone/net", tag="v1"))
tell("same repository", lambda: api.create_repo("someone/net"))
tell("refs", lambda: [ref.name for ref in api.list_repo_refs("someone/net").tags])
tell("history", lambda: [commit.title for commit in api.list_repo_commits("someone/net")])
tell("listed", lambda: api.list_repo_files("someone/net", revision="v1"))
tell("info", lambda: api.model_info("someone/net").pipeline_tag)
siblings = api.model_info("someone/net", files_metadata=True).siblings
tell("sizes", lambda: {file.rfilename: file.size for file in siblings})
tell("paths", lambda: [each.path for each in api.get_paths_info("someone/net", ["selftest", "config.json", "no"])])
names = "config.json", "model.safetensors", "no.json"
tell("exists", lambda: [api.file_exists("someone/net", name) for name in names])
tell("pulled", lambda: snapshot_download("someone/net", revision="v1"))
tell("by commit", lambda: read(hf_hub_download("someone/net", "config.json", revision=told["first"])))
tell("checked", lambda: api.verify_repo_checksums("someone/net", revision="v1").mismatches)

bad = HfApi(token="hf_wrong")
tell("bad token writes", lambda: bad.create_repo("someone/other"))
tell("bad token reads", lambda: bad.model_info("someone/net"))
tell("nobody writes", lambda: nobody.upload_file(path_or_fileobj=b"{}", path_in_repo="a.json", repo_id="someone/net"))
tell("stranger writes", lambda: stranger.create_tag("someone/net", tag="v2"))
tell("stranger creates", lambda: stranger.create_repo("someone/other"))
tell("no repository", lambda: hf_hub_download("someone/nothing", "config.json"))
tell("no repository, nobody", lambda: nobody.hf_hub_download("someone/nothing", "config.json"))
tell("no repository to write", lambda: api.create_tag("someone/nothing", tag="v1"))
tell("no revision", lambda: snapshot_download("someone/net", revision="v9"))
tell("no file", lambda: hf_hub_download("someone/net", "no.json"))
tell("other parent", lambda: api.upload_file(
    path_or_fileobj=b"{}", path_in_repo="a.json", repo_id="someone/net", parent_commit="0" * 40))

api.create_repo("someone/secret", private=True)
api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.json", repo_id="someone/secret")
tell("secret", lambda: read(hf_hub_download("someone/secret", "a.json")))
tell("secret, nobody", lambda: nobody.model_info("someone/secret"))
tell("secret, stranger", lambda: stranger.model_info("someone/secret"))

demo = {"repo_id": "someone/demo", "repo_type": "space"}
tell("space", lambda: api.create_repo(**demo, space_sdk="gradio"))
variables = api.add_space_variable("someone/demo", "RESEGNET_MODEL", "someone/net")
tell("variable", lambda: variables["RESEGNET_MODEL"].value)
tell("space info", lambda: [api.space_info("someone/demo").sdk, api.repo_info(**demo).id])
card = b"---\\nsdk: streamlit\\n---\\n"
tell("bad card", lambda: api.upload_file(**demo, path_or_fileobj=card, path_in_repo="README.md"))
branch = "side/branch"
api.create_branch(**demo, branch=branch)
api.upload_file(**demo, path_or_fileobj=b"1", path_in_repo="app.py", revision=branch)
tell("branch", lambda: read(hf_hub_download(**demo, filename="app.py", revision=branch)))
api.create_repo("someone/gone")
tell("present", lambda: api.repo_exists("someone/gone"))
api.delete_repo("someone/gone")
tell("gone", lambda: api.repo_exists("someone/gone"))
"""
    home = tmp_path_factory.mktemp("home")
    found = tell(shared, steps, folder, home=home)
    found["home"] = home
    return found


def test_a_folder_becomes_one_commit_and_an_unchanged_folder_none(told, shared, folder):
    assert len(told["first"]) == 40
    assert told["again"] == told["first"]
    assert shared.commits(NET)[0] == told["first"] and len(shared.commits(NET)) == 2  # the Hub makes the first commit
    assert told["history"] == ["Upload folder using huggingface_hub", "initial commit"]
    files = shared.files(NET)
    assert files.pop(".gitattributes")
    assert files == tree(folder)


def test_a_tag_is_set_once(told, shared):
    assert shared.tags(NET) == {"v1": told["first"]} and told["refs"] == ["v1"]
    assert told["same tag"].startswith("HfHubHTTPError 409")
    assert told["same repository"].startswith("HfHubHTTPError 409")


def test_published_files_are_listed(told, folder):
    assert told["whoami"] == "someone"
    assert set(told["listed"]) == {*tree(folder), ".gitattributes"} == set(told["sizes"])
    assert told["sizes"]["model.safetensors"] == 2_000_000
    assert told["info"] == "image-segmentation"
    assert told["paths"] == ["selftest", "config.json"]
    assert told["exists"] == [True, True, False]


def test_a_tag_and_a_commit_are_downloaded_bit_for_bit(told, folder):
    pulled = tree(Path(told["pulled"]))
    del pulled[".gitattributes"]
    assert pulled == tree(folder)
    assert bytes.fromhex(told["by commit"]) == (folder / "config.json").read_bytes()
    assert told["checked"] == []


def test_downloaded_files_are_available_offline(told, shared):
    seen = len(shared.requests)
    steps = """
tell("tag", lambda: snapshot_download("someone/net", revision="v1"))
tell("file", lambda: hf_hub_download("someone/net", "model.safetensors", revision="v1"))
tell("miss", lambda: snapshot_download("someone/other"))
"""
    offline = tell(shared, steps, "", home=told["home"], HF_HUB_OFFLINE="1")
    assert offline["tag"] == told["pulled"]
    assert offline["file"] == str(Path(told["pulled"], "model.safetensors"))
    assert offline["miss"].startswith("LocalEntryNotFoundError")
    assert len(shared.requests) == seen


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("bad token writes", "HfHubHTTPError 401"),
        ("bad token reads", "HfHubHTTPError 401"),
        ("nobody writes", "RepositoryNotFoundError 401"),
        ("stranger writes", "HfHubHTTPError 403"),
        ("stranger creates", "HfHubHTTPError 403"),
        ("no repository", "RepositoryNotFoundError 404"),
        ("no repository, nobody", "RepositoryNotFoundError 401"),
        ("no repository to write", "RepositoryNotFoundError 404"),
        ("no revision", "RevisionNotFoundError 404"),
        ("no file", "RemoteEntryNotFoundError 404"),
        ("other parent", "HfHubHTTPError 412"),
        ("secret, nobody", "RepositoryNotFoundError 401"),
        ("secret, stranger", "RepositoryNotFoundError 404"),
        ("bad card", "ValueError None Invalid metadata in README.md"),
    ],
)
def test_refusals_reach_the_caller_as_the_clients_own_errors(told, step, error):
    assert told[step].startswith(error), told[step]


def test_private_repositories_spaces_branches_and_deletion(told, shared):
    assert bytes.fromhex(told["secret"]) == b"{}"
    assert told["space"] == f"{shared.url}/spaces/someone/demo" and told["space info"] == ["gradio", "someone/demo"]
    assert told["variable"] == "someone/net" == shared.repos["spaces/someone/demo"]["variables"]["RESEGNET_MODEL"]
    assert bytes.fromhex(told["branch"]) == b"1"
    assert "app.py" not in shared.files("spaces/someone/demo")
    assert shared.files("spaces/someone/demo", "side/branch")["app.py"] == b"1"
    assert (told["present"], told["gone"]) == (True, False)


def test_the_client_needs_no_missing_route(told, shared):
    assert shared.unknown == []
    assert shared.count("POST /api/models/someone/net/commit/") == 2  # the folder, and the commit with another parent


def test_the_storage_outlives_the_server(told, shared):
    later = HubServer(shared.folder)
    assert later.commits(NET) == shared.commits(NET) and later.tags(NET) == shared.tags(NET)
    assert later.files(NET, "v1") == shared.files(NET)


def test_a_gated_repository_is_read_by_those_admitted(told, shared, tmp_path):
    shared.gate(NET, "reader")
    shared.users["hf_reader"] = "reader"
    steps = """
tell("nobody", lambda: nobody.hf_hub_download("someone/net", "config.json"))
tell("stranger", lambda: stranger.snapshot_download("someone/net"))
tell("public page", lambda: stranger.model_info("someone/net").gated)
tell("reader", lambda: HfApi(token="hf_reader").hf_hub_download("someone/net", "model.safetensors"))
"""
    found = tell(shared, steps, "", home=tmp_path)
    shared.repos[NET]["gated"] = False
    assert found["nobody"].startswith("GatedRepoError 401")
    assert found["stranger"].startswith("GatedRepoError 403")
    assert found["public page"] == "manual"
    assert Path(found["reader"]).stat().st_size == 2_000_000


def test_most_downloads_survive_faults(told, shared, folder, tmp_path):
    file = "GET /cdn/.*/model.safetensors"
    shared.fail_next("500", "HEAD /someone/net/resolve/main/config.json")
    shared.fail_next("cut", file)
    shared.fail_next("429", file)
    shared.fail_next("500", "GET /someone/net/resolve/main/README.md")
    shared.fail_next("500", "GET /api/models/someone/net/revision/v1")
    steps = """
together(
    head=lambda: read(hf_hub_download("someone/net", "config.json")),
    large=lambda: read(hf_hub_download("someone/net", "model.safetensors")),
    small=lambda: hf_hub_download("someone/net", "README.md"),
    info=lambda: snapshot_download("someone/net", revision="v1"),
)
"""
    found = tell(shared, steps, "", home=tmp_path)
    assert shared.faults == []
    assert bytes.fromhex(found["head"]) == (folder / "config.json").read_bytes()
    assert bytes.fromhex(found["large"]) == (folder / "model.safetensors").read_bytes()
    assert found["small"].startswith("HfHubHTTPError 500")
    assert found["info"].startswith("LocalEntryNotFoundError")


def test_a_flipped_bit_in_a_download_goes_unnoticed_until_hashes_are_compared(told, shared, folder, tmp_path):
    shared.fail_next("flip", "GET /cdn/.*/model.safetensors")
    steps = """
tell("pulled", lambda: read(snapshot_download("someone/net") + "/model.safetensors"))
tell("checked", lambda: [each["path"] for each in api.verify_repo_checksums("someone/net").mismatches])
tell("again", lambda: read(snapshot_download("someone/net") + "/model.safetensors"))
tell("forced", lambda: read(snapshot_download("someone/net", force_download=True) + "/model.safetensors"))
"""
    found = tell(shared, steps, "", home=tmp_path)
    right = (folder / "model.safetensors").read_bytes()
    wrong = bytes.fromhex(found["pulled"])
    assert len(wrong) == len(right) and wrong != right
    assert found["checked"] == ["model.safetensors"]
    assert found["again"] == found["pulled"]
    assert bytes.fromhex(found["forced"]) == right


def test_a_data_set_is_pushed_and_loaded(hub, tmp_path):
    push = """
import numpy as np
from datasets import Dataset, Features, Image, Value
images = [np.full((6, 8, 3), 40 * i, np.uint8) for i in range(3)]
features = Features({"image": Image(), "name": Value("string")})
data = Dataset.from_dict({"image": images, "name": ["a", "b", "c"]}, features)
data.push_to_hub("someone/eyes", split="train")
data.select([0]).push_to_hub("someone/eyes", split="test")
"""
    hub.run(push, home=tmp_path / "publisher")
    assert hub.unknown == []
    assert set(hub.files("datasets/someone/eyes")) >= {"README.md", "data/train-00000-of-00001.parquet"}
    load = """
import json
import numpy as np
from datasets import load_dataset
data = load_dataset("someone/eyes")
print(json.dumps({split: [[row["name"], int(np.array(row["image"]).max())] for row in data[split]] for split in data}))
"""
    found = json.loads(hub.run(load, home=tmp_path / "reader", token=None).splitlines()[-1])
    assert found == {"train": [["a", 0], ["b", 40], ["c", 80]], "test": [["a", 0]]}
    assert hub.unknown == []
