"""Commits that make a repository on the Hub hold exactly the given files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import ModelInfo, RepoFile, SpaceInfo

from resegnet.errors import PublishError
from resegnet.hub import retry_hub_call

Kind = Literal["model", "space"]

# This tag, or this `library_name`, in a README marks a repository that this package published.
MARK = "resegnet"


def commit_contents(api: HfApi, repo_id: str, kind: Kind, contents: Mapping[str, bytes], message: str) -> str:
    """Make a repository hold exactly these files, by one commit, or by none if it already does.

    Parameters
    ----------
    contents
        Content of each file by its path. Other files of the repository are deleted.

    Returns
    -------
    str
        The commit that holds the contents, 40 hexadecimal digits.

    Raises
    ------
    PublishError
        If the repository holds files that this package did not publish.
    HubError
        If the Hub refuses the request or the connection fails.
    """

    def attempt() -> str:
        # Each attempt compares again: the last commit may have succeeded though its answer was lost.
        info = _repo_info(api, repo_id, kind)
        assert info.sha is not None  # every repository has a first commit
        paths = different_files(api, repo_id, kind, info.sha, contents)
        if not paths:
            return info.sha
        _check_owner(repo_id, info)
        operations = [
            CommitOperationAdd(path, contents[path]) if path in contents else CommitOperationDelete(path)
            for path in paths
        ]
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, parent_commit=info.sha)
        return commit.oid

    return retry_hub_call(attempt)


def different_files(api: HfApi, repo_id: str, kind: Kind, revision: str, contents: Mapping[str, bytes]) -> list[str]:
    """List the paths whose content differs between the repository and `contents`, or that only one of them has."""
    tree = retry_hub_call(lambda: list(api.list_repo_tree(repo_id, repo_type=kind, revision=revision, recursive=True)))
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    files.pop(".gitattributes", None)  # written by the Hub
    same = {path for path in files.keys() & contents.keys() if _is_same(files[path], contents[path])}
    return sorted((files.keys() | contents.keys()) - same)


def _repo_info(api: HfApi, repo_id: str, kind: Kind) -> ModelInfo | SpaceInfo:
    return api.space_info(repo_id) if kind == "space" else api.model_info(repo_id)


def _check_owner(repo_id: str, info: ModelInfo | SpaceInfo) -> None:
    marks = set()
    if info.card_data is not None:
        marks = {info.card_data.get("library_name"), *(info.card_data.get("tags") or ())}
    paths = sorted({file.rfilename for file in info.siblings or ()} - {".gitattributes", "README.md"})
    if paths and MARK not in marks:
        raise PublishError(
            f"{repo_id} holds {', '.join(paths[:3])}{' and more' if len(paths) > 3 else ''}, which ReSegNet did not "
            "publish and would delete: choose another repository."
        )


def _is_same(file: RepoFile, content: bytes) -> bool:
    if file.lfs is not None:
        return file.lfs.sha256 == hashlib.sha256(content).hexdigest()
    git_object = b"blob %d\0%b" % (len(content), content)  # git names an object by the SHA-1 of these bytes
    return file.blob_id == hashlib.sha1(git_object).hexdigest()
