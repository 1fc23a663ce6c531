"""Publishing while the Hub fails or refuses: what is tried again, and what the user is told."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError
from support.publishing import NET, PUBLISH, SPACE, push

import push_to_hub
from resegnet.errors import HubError, PublishError
from resegnet.hub import retry_hub_call

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
@pytest.mark.parametrize(("token", "said"), [("hf_wrong", "Invalid credentials"), ("hf_stranger", "the rights")])
def test_a_user_without_permission_is_told_what_to_do(hub, release, tmp_path, token, said):
    status, told = push(hub, tmp_path / "a", release, token=token)
    assert status == 1
    assert told.count("was not published.") == 1 and said in told
    assert "log in with `hf auth login` or set HF_TOKEN to a token that may write there." in told
    assert "run the same command again" not in told  # it would fail again
    assert NET not in hub.repos


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
