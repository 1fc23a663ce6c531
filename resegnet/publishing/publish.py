"""A release on the Hugging Face Hub: the files to publish, and their upload, tag and check."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from resegnet.errors import PublishError
from resegnet.hub import check_repo_id, make_repo, retry_hub_call
from resegnet.publishing.card import model_card
from resegnet.publishing.commit import commit_contents, different_files
from resegnet.publishing.pictures import card_pictures
from resegnet.releases.release import RELEASE_FILES, release_files, verify_release
from resegnet.segmenter import Segmenter


def release_contents(
    folder: Path, repo_id: str, revision: str | None, examples: Path, *, space_id: str | None = None
) -> dict[str, bytes]:
    """Verify a release, and collect the files to publish: content by path in the repository.

    Parameters
    ----------
    folder
        The release. Files that do not belong to a release are not published.
    repo_id, revision
        Name and tag on the Hub, for the examples in the model card.
    examples
        Folder of the free photographs from which the card's pictures are made.
    space_id
        Space that serves the release, which the model card then links.

    Raises
    ------
    ReleaseError
        If the release does not verify.
    PublishError
        If the revision cannot be a tag, or the Hub would not accept a name.
    """
    check_repo_id(repo_id)
    if space_id is not None:
        check_repo_id(space_id)
    check_tag(revision)
    verify_release(folder)
    pictures, captions = card_pictures(Segmenter.from_pretrained(folder), examples)
    card = model_card(folder, repo_id, revision, captions, space_id=space_id)
    files = {name: (folder / name).read_bytes() for name in release_files(folder)}
    return files | pictures | {"README.md": card.encode()}


def upload_release(
    contents: Mapping[str, bytes], repo_id: str, *, revision: str | None = None, private: bool = False
) -> str:
    """Upload the contents of a release in one commit. `tag_release` and `verify_download` are the next steps.

    The function can be called again at any time: it sends only what the Hub lacks, and commits only if a file changed.

    Parameters
    ----------
    contents
        From `release_contents`.
    repo_id
        Name on the Hub. The repository is created if it does not exist, `private` or public.
    revision
        Name of the tag that the release will have. An existing tag must hold this very release.

    Returns
    -------
    str
        The commit that holds the release, 40 hexadecimal digits.

    Raises
    ------
    PublishError
        If the name or the tag is not valid, or the tag holds another release; if the repository is public although a
        private one was asked for, or holds files that this package did not publish.
    HubError
        If the Hub refuses a request or the connection fails.
    """
    check_tag(revision)
    api = HfApi()
    make_repo(api, repo_id, "model", private=private)
    refs = retry_hub_call(api.list_repo_refs, repo_id)
    if revision in {branch.name for branch in refs.branches}:
        raise PublishError(f"{repo_id} has a branch {revision}, expected a name for a tag: choose another name.")
    tags = {tag.name: tag.target_commit for tag in refs.tags}
    if revision not in tags:
        return commit_contents(api, repo_id, "model", contents, f"Release {revision}" if revision else "Release")
    # Card and pictures may differ between machines; the tag stands for the files of the release.
    if {*RELEASE_FILES} & {*different_files(api, repo_id, "model", tags[revision], contents)}:
        raise PublishError(
            f"{repo_id} has a tag {revision} with other contents, and tags are not moved: choose another tag."
        )
    return tags[revision]


def tag_release(repo_id: str, revision: str, commit: str) -> None:
    """Tag a commit, unless the tag exists: `upload_release` has then compared its contents.

    Raises
    ------
    HubError
        If the Hub refuses the request or the connection fails.
    """
    retry_hub_call(HfApi().create_tag, repo_id, tag=revision, revision=commit, exist_ok=True)


def verify_download(repo_id: str, revision: str) -> float | None:
    """Download a published release to a new folder and verify it.

    Returns
    -------
    float or None
        Result of the self-test of the downloaded release (see `verify_release`).

    Raises
    ------
    ReleaseError
        If the downloaded release does not verify.
    HubError
        If the Hub refuses a request or the connection fails.
    """
    with tempfile.TemporaryDirectory() as cache:
        return verify_release(retry_hub_call(snapshot_download, repo_id, revision=revision, cache_dir=cache))


def check_tag(tag: str | None) -> None:
    """Raise `PublishError` if git and the Hub would refuse the tag, or take it for a branch or a commit."""
    valid = tag is None or (
        re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._+-]*", tag)
        and not re.search(r"\.\.|\.$|\.lock$", tag)  # https://git-scm.com/docs/git-check-ref-format
        and not re.fullmatch(r"main|HEAD|[0-9a-f]{40}", tag)
    )
    if not valid:
        raise PublishError(
            f"{tag!r} cannot be a tag, expected letters, digits, dots and dashes such as v1.0.0, and not the name of a "
            "branch or commit: choose another tag."
        )


def is_private(repo_id: str) -> bool:
    """Return whether a model on the Hub is private."""
    return bool(retry_hub_call(HfApi().repo_info, repo_id).private)
