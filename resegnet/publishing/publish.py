"""Publishing: a release, and a Space that serves it, on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load, snapshot_download
from huggingface_hub.utils import validate_repo_id, yaml_dump

from resegnet.errors import PublishError
from resegnet.hub import DOWNLOADED_FILES, MODEL_VARIABLE, make_repo, retry_hub_call
from resegnet.publishing.card import model_card
from resegnet.publishing.pictures import card_pictures
from resegnet.releases.records import DISCLAIMER
from resegnet.releases.release import HASHED, verify_release
from resegnet.segmenter import Segmenter

RELEASE_FILES = sorted({*DOWNLOADED_FILES, *HASHED})

# By this tag, or as `library_name`, a README tells that its repository is one of ours.
_OURS = "resegnet"

# The CPU build of torch has a tenth of the size of the one with CUDA.
_CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu\n"


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
    resegnet.releases.release.ReleaseError
        If it does not verify.
    PublishError
        For a revision that cannot be a tag.
    huggingface_hub.errors.HFValidationError
        For an impossible name.
    """
    validate_repo_id(repo_id)
    check_tag(revision)
    verify_release(folder)
    pictures, captions = card_pictures(Segmenter.from_pretrained(folder), examples)
    card = model_card(folder, repo_id, revision, captions)
    # It is verified: what is not there is what a release may lack.
    files = {name: (folder / name).read_bytes() for name in RELEASE_FILES if (folder / name).is_file()}
    return files | pictures | {"README.md": card.encode()}


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
        Name of the tag. One that exists is never moved; it must hold just this release.

    Returns
    -------
    commit, difference
        40 hexadecimal digits, and how far off the self-test of the downloaded release is.

    Raises
    ------
    PublishError
        For an impossible tag, or one that exists with another release; for a repository that is public and must not be,
        or that holds what is not ours.
    resegnet.hub.HubError
        Whatever the Hub or the connection refuses.
    """
    check_tag(revision)
    api = HfApi()
    make_repo(api, repo_id, "model", private=private)
    refs = retry_hub_call(api.list_repo_refs, repo_id)
    if revision in {branch.name for branch in refs.branches}:
        raise PublishError(f"{repo_id} has a branch {revision}: name the tag otherwise.")
    tags = {tag.name: tag.target_commit for tag in refs.tags}
    if revision in tags:
        # Card and pictures may come out otherwise on another machine; the tag is about the release.
        if {*RELEASE_FILES} & {*_differing(api, repo_id, "model", tags[revision], contents)}:
            raise PublishError(
                f"{repo_id} has a tag {revision} with other contents, and tags are not moved: name another."
            )
        commit = tags[revision]
    else:
        commit = _commit(api, repo_id, "model", contents, f"Release {revision}" if revision else "Release")
        if revision is not None:
            retry_hub_call(api.create_tag, repo_id, tag=revision, revision=commit, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        downloaded = retry_hub_call(snapshot_download, repo_id, revision=revision or commit, cache_dir=cache)
        return commit, verify_release(downloaded)


def check_tag(tag: str | None) -> None:
    """Refuse what git and the Hub would not take for a tag, or would take for something else."""
    good = tag is None or (
        re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._+-]*", tag)
        and not re.search(r"\.\.|\.$|\.lock$", tag)  # https://git-scm.com/docs/git-check-ref-format
        and not re.fullmatch(r"main|HEAD|[0-9a-f]{40}", tag)
    )
    if not good:
        raise PublishError(
            f"{tag!r} cannot be a tag: name one of letters, digits, dots and dashes, such as v1.0.0, that is no branch "
            "and no commit."
        )


def space_contents(
    root: Path, repo_id: str, commit: str, preload: Sequence[str] = DOWNLOADED_FILES
) -> dict[str, bytes]:
    """What a Space consists of that serves a published model: path to content. Whatever else lies around stays behind.

    Parameters
    ----------
    root
        This repository, itself a Space that serves the bundled model; its README tells how to run it.
    repo_id, commit
        The model, pinned.
    preload
        Its files to fetch as the Space is built; none of a private model, for there is no token for it then.
    """
    package, examples = root / "resegnet", root / "examples"
    files = [root / "app.py", root / "LICENSE", *package.rglob("*.py")]
    files += [path for path in package.glob("web/*") if path.suffix in (".css", ".html", ".js", ".svg")]
    files += [package / "releases" / "bundled" / name for name in RELEASE_FILES]
    # Only pictures whose origin is told.
    told = (examples / "README.md").read_text(encoding="utf-8")
    files += [path for path in examples.iterdir() if path.name == "README.md" or f"`{path.name}`" in told]
    contents = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(files)
        if path.is_file() and not path.name.startswith(".")
    }
    contents["requirements.txt"] = _CPU_TORCH.encode() + (root / "requirements.txt").read_bytes()
    header = metadata_load(root / "README.md")
    header |= {"tags": [*header["tags"], _OURS], "models": [repo_id]}
    if preload:
        header["preload_from_hub"] = [f"{repo_id} {','.join(preload)} {commit}"]
    contents["README.md"] = (
        f"---\n{yaml_dump(header)}---\n\n# ReSegNet\n\n"
        "Finds the blood vessels in a colour fundus photograph. It serves "
        f"[{repo_id}](https://huggingface.co/{repo_id}) at commit {commit}, by the variable `{MODEL_VARIABLE}`.\n\n"
        f"{DISCLAIMER}\n"
    ).encode()
    return contents


def publish_space(contents: Mapping[str, bytes], space_id: str, repo_id: str, commit: str, *, private: bool) -> str:
    """Publish a Space from `space_contents` and point it at the model; gives the commit of the Space.

    Raises as `publish_release` does.
    """
    api = HfApi()
    make_repo(api, space_id, "space", private=private, space_sdk="gradio")
    space_commit = _commit(api, space_id, "space", contents, f"Serve {repo_id}@{commit[:12]}")
    present = retry_hub_call(api.get_space_variables, space_id).get(MODEL_VARIABLE)
    if present is None or present.value != f"{repo_id}@{commit}":  # setting it restarts the Space
        retry_hub_call(api.add_space_variable, space_id, MODEL_VARIABLE, f"{repo_id}@{commit}")
    return space_commit


def is_private(repo_id: str) -> bool:
    """Whether a model on the Hub is private."""
    return retry_hub_call(HfApi().repo_info, repo_id).private


def _differing(api: HfApi, repo_id: str, kind: str, revision: str, contents: Mapping[str, bytes]) -> list[str]:
    """Paths whose content in the repository is another, or that only one side has."""
    tree = retry_hub_call(lambda: list(api.list_repo_tree(repo_id, repo_type=kind, revision=revision, recursive=True)))
    there = {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}
    there.pop(".gitattributes", None)  # the Hub's own
    kept = {path for path in there.keys() & contents.keys() if _is_same(there[path], contents[path])}
    return sorted((there.keys() | contents.keys()) - kept)


def _is_same(entry: Any, content: bytes) -> bool:
    if entry.lfs is not None:
        return entry.lfs.sha256 == hashlib.sha256(content).hexdigest()
    return entry.blob_id == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()  # as git names it


def _commit(api: HfApi, repo_id: str, kind: str, contents: Mapping[str, bytes], message: str) -> str:
    """Make a repository hold just these contents, by one commit or by none; gives the commit that does.

    In a repository of ours what an earlier version left goes; one that holds something else is refused.
    """

    def attempt() -> str:
        # Looked up at each attempt: the answer to the last may have been lost, not the commit.
        info = api.repo_info(repo_id, repo_type=kind)
        different = _differing(api, repo_id, kind, info.sha, contents)
        if not different:
            return info.sha
        card = info.card_data or {}
        present = sorted({file.rfilename for file in info.siblings} - {".gitattributes", "README.md"})
        if present and _OURS not in (card.get("library_name"), *(card.get("tags") or ())):
            raise PublishError(
                f"{repo_id} holds {', '.join(present[:3])}{' and more' if len(present) > 3 else ''}, which is not of "
                "ReSegNet and would be lost: name another repository."
            )
        operations = [
            CommitOperationAdd(path, contents[path]) if path in contents else CommitOperationDelete(path)
            for path in different
        ]
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, parent_commit=info.sha)
        return commit.oid

    return retry_hub_call(attempt)
