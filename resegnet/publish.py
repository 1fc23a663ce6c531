"""Publishing: a release, and a Space that serves it, on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id, yaml_dump

from resegnet.card import CAPTIONS, card_pictures, model_card
from resegnet.hub import NEEDED
from resegnet.release import HASHED, verify_release
from resegnet.segmenter import Segmenter

ENVIRONMENT = "RESEGNET_MODEL"  # where the app looks for the model that it is to serve

RELEASE_FILES = sorted({*NEEDED, *HASHED})

# The client tries uploads and downloads several times by itself, but not a commit, nor the making of a repository or a
# tag. Its errors of the connection are those of the HTTP library that its version is built on.
CONNECTION_ERROR = HfHubHTTPError.__mro__[1]
_PASSING = (408, 429, 500, 502, 503, 504)
_WAITS_S = (1, 2, 4)

# The CPU build of torch has a tenth of the size of the one with CUDA.
_CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu\n"

T = TypeVar("T")


class PublishError(ValueError):
    """Something that must not be published, or cannot be; the text is one sentence."""


def release_contents(folder: Path, repo_id: str, revision: str | None, examples: Path) -> dict[str, bytes]:
    """Verify a release and give all that is to be published of it: path in the repository to content.

    Parameters
    ----------
    folder
        The release. Other files that lie in it are not published.
    repo_id, revision
        For the card's examples of use.
    examples
        Folder of the free photographs that the card's pictures are made from.

    Raises
    ------
    resegnet.release.ReleaseError
        If it does not verify.
    huggingface_hub.errors.HFValidationError
        For an impossible name.
    """
    validate_repo_id(repo_id)
    verify_release(folder)
    pictures = card_pictures(Segmenter.from_pretrained(folder), examples)
    card = model_card(folder, repo_id, revision, {name: CAPTIONS[name] for name in pictures})
    return {name: (folder / name).read_bytes() for name in RELEASE_FILES} | pictures | {"README.md": card.encode()}


def publish_release(
    contents: Mapping[str, bytes], repo_id: str, *, revision: str | None = None, private: bool = False
) -> tuple[str, float]:
    """Publish the contents of a release in one commit, tag it, and verify what the Hub then gives to others.

    May be run again at any time: what is there already is not sent again, and without a change no commit is made.

    Parameters
    ----------
    contents
        From `release_contents`.
    repo_id
        Made if need be, `private` or public.
    revision
        Name of the tag. One that exists is never moved; it must hold just these contents.

    Returns
    -------
    commit, difference
        40 hexadecimal digits, and how far off the self-test of the downloaded release is.

    Raises
    ------
    PublishError
        If the tag exists with other contents.
    OSError
        Whatever the Hub or the connection refuses.
    """
    api = HfApi()
    _patiently(api.create_repo, repo_id, private=private, exist_ok=True)
    tags = {tag.name: tag.target_commit for tag in _patiently(api.list_repo_refs, repo_id).tags}
    if revision in tags:
        if differing(api, repo_id, "model", tags[revision], contents):
            raise PublishError(
                f"{repo_id} has a tag {revision} with other contents, and tags are not moved: name another."
            )
        commit = tags[revision]
    else:
        commit = _commit(api, repo_id, "model", contents, f"Release {revision}" if revision else "Release")
        if revision is not None:
            _patiently(api.create_tag, repo_id, tag=revision, revision=commit, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        downloaded = _patiently(snapshot_download, repo_id, revision=revision or commit, cache_dir=cache)
        return commit, verify_release(downloaded)


def space_contents(root: Path, repo_id: str, commit: str) -> dict[str, bytes]:
    """What a Space consists of that serves a published model: path to content.

    Parameters
    ----------
    root
        This repository, itself a Space that serves the bundled model; its README tells how to run it.
    repo_id, commit
        The model, pinned.
    """
    files = [root / "app.py", root / "LICENSE"]
    files += [path for folder in ("resegnet", "examples") for path in sorted((root / folder).rglob("*"))]
    contents = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }
    contents["requirements.txt"] = _CPU_TORCH.encode() + (root / "requirements.txt").read_bytes()
    header = metadata_load(root / "README.md") | {
        "models": [repo_id],
        "preload_from_hub": [f"{repo_id} {','.join(NEEDED)} {commit}"],
    }
    contents["README.md"] = (
        f"---\n{yaml_dump(header)}---\n\n# ReSegNet\n\n"
        "Finds the blood vessels in a colour fundus photograph. It serves "
        f"[{repo_id}](https://huggingface.co/{repo_id}) at commit {commit}, by the variable `{ENVIRONMENT}`.\n\n"
        "Research software, not a medical device: not for diagnosis or treatment.\n"
    ).encode()
    return contents


def publish_space(contents: Mapping[str, bytes], space_id: str, repo_id: str, commit: str, *, private: bool) -> str:
    """Publish a Space from `space_contents` and point it at the model; gives the commit of the Space."""
    api = HfApi()
    _patiently(api.create_repo, space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    _patiently(api.add_space_variable, space_id, ENVIRONMENT, f"{repo_id}@{commit}")
    return _commit(api, space_id, "space", contents, f"Serve {repo_id}@{commit[:12]}")


def differing(api: HfApi, repo_id: str, kind: str, revision: str, contents: Mapping[str, bytes]) -> list[str]:
    """Paths whose content in the repository is another, or that only one side has."""
    tree = _patiently(lambda: list(api.list_repo_tree(repo_id, repo_type=kind, revision=revision, recursive=True)))
    there = {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}
    there.pop(".gitattributes", None)  # the Hub's own
    kept = {path for path in there.keys() & contents.keys() if _is_same(there[path], contents[path])}
    return sorted((there.keys() | contents.keys()) - kept)


def _is_same(entry: Any, content: bytes) -> bool:
    if entry.lfs is not None:
        return entry.lfs.sha256 == hashlib.sha256(content).hexdigest()
    return entry.blob_id == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()  # as git names it


def _commit(api: HfApi, repo_id: str, kind: str, contents: Mapping[str, bytes], message: str) -> str:
    """Make a repository hold just these contents, by one commit or by none; gives the commit that does."""

    def attempt() -> str:
        # Looked up at each attempt: the answer to the last may have been lost, not the commit.
        head = api.repo_info(repo_id, repo_type=kind).sha
        different = differing(api, repo_id, kind, head, contents)
        if not different:
            return head
        operations = [
            CommitOperationAdd(path, contents[path]) if path in contents else CommitOperationDelete(path)
            for path in different
        ]
        return api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, parent_commit=head).oid

    return _patiently(attempt)


def _patiently(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call the Hub, and again after a while where it or the connection fails in a way that passes."""
    for wait_s in (*_WAITS_S, None):
        try:
            return call(*arguments, **options)
        except CONNECTION_ERROR as error:
            response = getattr(error, "response", None)
            if wait_s is None or (response is not None and response.status_code not in _PASSING):
                raise
            asked = "" if response is None else response.headers.get("Retry-After", "")
            time.sleep(max(wait_s, int(asked)) if asked.isdigit() else wait_s)
    raise AssertionError  # not reached: the last attempt returns or raises
