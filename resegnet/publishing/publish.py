"""A release on the Hugging Face Hub: the files to publish, and their upload, tag and check."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import validate_repo_id

from resegnet.errors import PublishError
from resegnet.hub import DOWNLOADED_FILES, make_repo, retry_hub_call
from resegnet.publishing.card import model_card
from resegnet.publishing.commit import commit_contents, different_files
from resegnet.publishing.pictures import card_pictures
from resegnet.releases.release import HASHED, verify_release
from resegnet.segmenter import Segmenter

RELEASE_FILES = sorted({*DOWNLOADED_FILES, *HASHED})


def release_contents(folder: Path, repo_id: str, revision: str | None, examples: Path) -> dict[str, bytes]:
    """Verify a release, and collect the files to publish: content by path in the repository.

    Parameters
    ----------
    folder
        The release. Files that do not belong to a release are not published.
    repo_id, revision
        Name and tag on the Hub, for the examples in the model card.
    examples
        Folder of the free photographs from which the card's pictures are made.

    Raises
    ------
    ReleaseError
        If the release does not verify.
    PublishError
        If the revision cannot be a tag.
    huggingface_hub.errors.HFValidationError
        If the Hub does not accept the name.
    """
    validate_repo_id(repo_id)
    check_tag(revision)
    verify_release(folder)
    pictures, captions = card_pictures(Segmenter.from_pretrained(folder), examples)
    card = model_card(folder, repo_id, revision, captions)
    files = {name: (folder / name).read_bytes() for name in RELEASE_FILES}
    return files | pictures | {"README.md": card.encode()}


def publish_release(
    contents: Mapping[str, bytes], repo_id: str, *, revision: str | None = None, private: bool = False
) -> tuple[str, float]:
    """Publish the contents of a release in one commit, tag it, then download it again and verify the download.

    The function can be called again at any time: it sends only what the Hub lacks, and commits only if a file changed.

    Parameters
    ----------
    contents
        From `release_contents`.
    repo_id
        Name on the Hub. The repository is created if it does not exist, `private` or public.
    revision
        Name of the tag. An existing tag is never moved; it must hold this very release.

    Returns
    -------
    commit : str
        40 hexadecimal digits.
    difference : float
        Result of the self-test of the downloaded release (see `verify_release`).

    Raises
    ------
    PublishError
        If the tag is not valid or holds another release; if the repository is public although a private one was asked
        for, or holds files that this package did not publish.
    ReleaseError
        If the downloaded release does not verify.
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
    if revision in tags:
        # Card and pictures may differ between machines; the tag stands for the files of the release.
        if {*RELEASE_FILES} & {*different_files(api, repo_id, "model", tags[revision], contents)}:
            raise PublishError(
                f"{repo_id} has a tag {revision} with other contents, and tags are not moved: choose another tag."
            )
        commit = tags[revision]
    else:
        commit = commit_contents(api, repo_id, "model", contents, f"Release {revision}" if revision else "Release")
        if revision is not None:
            retry_hub_call(api.create_tag, repo_id, tag=revision, revision=commit, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        downloaded = retry_hub_call(snapshot_download, repo_id, revision=revision or commit, cache_dir=cache)
        return commit, verify_release(downloaded)


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
