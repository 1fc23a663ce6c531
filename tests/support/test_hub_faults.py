"""The Hub on loopback that refuses, fails or alters: requests made by hand, and retries of the unmodified client."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request

import pytest

from support.files import tree
from support.hub_client import NET, tell
from support.hub_server import HubServer


@pytest.mark.slow
def test_uploads_of_a_client_with_xet_survive_faults(hub, folder, tmp_path):
    hub.fail_next("ratelimit", "POST .*/someone/a/preupload")
    hub.fail_next("500", "POST .*/someone/b/commit")
    hub.fail_next("cut", "POST .*/someone/c/commit")
    hub.fail_next("lost", "POST .*/someone/d/commit")
    hub.fail_next("cut", "POST /xet/v1/xorbs/")
    steps = 'together(**{name: lambda name=name: publish(f"someone/{name}") for name in "abcd"})'
    found = tell(hub, steps, folder, home=tmp_path)
    assert hub.faults == [] and hub.unknown == []
    for name in "abcd":
        assert found[name] == hub.commits(f"someone/{name}")[0]
        assert hub.files(f"someone/{name}").items() >= tree(folder).items()
    # A lost answer makes the client commit twice.
    assert [len(hub.commits(f"someone/{name}")) for name in "abcd"] == [2, 2, 2, 3]


@pytest.mark.slow
def test_uploads_of_a_client_without_xet_survive_faults_except_in_the_commit(hub, folder, tmp_path):
    hub.multipart_bytes = 700_000
    hub.fail_next("500", "PUT /lfs-part/")
    tell(hub, 'publish("someone/a")', folder, home=tmp_path, HF_HUB_DISABLE_XET="1")
    assert hub.count("PUT /lfs-part/") == 4

    hub.multipart_bytes = None
    hub.fail_next("429", "POST /someone/b.git/info/lfs/objects/batch")
    hub.fail_next("cut", "PUT /lfs/someone/b/")
    hub.fail_next("500", "PUT /lfs/someone/c/")
    hub.fail_next("cut", "POST .*/someone/d/commit")
    hub.fail_next("500", "POST .*/someone/e/commit")
    steps = """
together(**{name: lambda name=name: publish(f"someone/{name}") for name in "bcde"})
together(**{name * 2: lambda name=name: publish(f"someone/{name}") for name in "de"})
"""
    found = tell(hub, steps, folder, home=tmp_path, HF_HUB_DISABLE_XET="1")
    assert hub.faults == [] and hub.unknown == [] and not hub.count("xet")
    assert found["d"].startswith(("RemoteProtocolError", "ReadError", "WriteError"))
    assert found["e"].startswith("HfHubHTTPError 500")
    assert hub.count("PUT /lfs/") == 6  # two for b and for c; the files of d and e had arrived and are not sent again
    for name in "abcde":
        assert len(hub.commits(f"someone/{name}")) == 2
        assert hub.files(f"someone/{name}").items() >= tree(folder).items()


def request(hub: HubServer, method: str, path: str, body: bytes, token: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    wanted = urllib.request.Request(hub.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(wanted) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_content_that_differs_from_its_announcement_is_refused(hub):
    create = json.dumps({"name": "net", "organization": "someone"}).encode()
    assert request(hub, "POST", "/api/repos/create", create, "hf_someone")[0] == 200
    sha256 = hashlib.sha256(b"right").hexdigest()
    commit = f"/api/models/{NET}/commit/main"

    def lines(size: int) -> bytes:
        file = {"path": "model.bin", "algo": "sha256", "oid": sha256, "size": size}
        items = [{"key": "header", "value": {"summary": "s", "description": ""}}, {"key": "lfsFile", "value": file}]
        return "\n".join(map(json.dumps, items)).encode()

    assert request(hub, "PUT", f"/lfs/{NET}/{sha256}?size=5", b"wrong")[0] == 400
    assert request(hub, "PUT", f"/lfs/{NET}/{sha256}?size=4", b"right")[0] == 400
    assert request(hub, "POST", commit, lines(5), "hf_someone")[0] == 400  # no content was uploaded for this pointer
    assert request(hub, "PUT", f"/lfs/{NET}/{sha256}?size=5", b"right", "hf_someone")[0] == 400  # a token that leaks
    assert request(hub, "PUT", f"/lfs/{NET}/{sha256}?size=5", b"right")[0] == 200
    assert request(hub, "POST", commit, lines(4), "hf_someone")[0] == 400
    assert len(hub.commits(NET)) == 1
    assert request(hub, "POST", commit, lines(5), "hf_someone")[0] == 200
    assert hub.files(NET)["model.bin"] == b"right"
    assert request(hub, "GET", "/api/nothing", b"")[0] == 501 and hub.unknown == ["GET /api/nothing"]
    with pytest.raises(ValueError, match="flood"):
        hub.fail_next("flood")


def test_a_name_that_git_refuses_is_refused(hub):
    create = json.dumps({"name": "net", "organization": "someone"}).encode()
    request(hub, "POST", "/api/repos/create", create, "hf_someone")
    tag = f"/api/models/{NET}/tag/main"
    for name in ("v 1", "v1..2", "v~1", "v1.lock", "refs/tags/v1", "a" * 40, "v1/", ".v1", "", "HEAD"):
        assert request(hub, "POST", tag, json.dumps({"tag": name}).encode(), "hf_someone")[0] == 400, name
    assert request(hub, "POST", tag, b'{"tag": "main"}', "hf_someone")[0] == 409  # the branch
    assert request(hub, "POST", tag, b'{"tag": "v1.0.0"}', "hf_someone")[0] == 200
    assert list(hub.tags(NET)) == ["v1.0.0"]
