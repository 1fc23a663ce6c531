"""The Hugging Face Hub: finding a release there, in its cache or in a folder, and repeating calls that fail."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import Any, TypeVar, cast

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers, validate_repo_id

from resegnet.errors import ArgumentError, HubError, PublishError, WeightsError, first_line, short_repr
from resegnet.io import read_json

logger = logging.getLogger(__name__)

MODEL_VARIABLE = "RESEGNET_MODEL"  # environment variable that names the model to load

WEIGHTS_NAME = "model.safetensors"
ONNX_NAME = "model.onnx"  # the same network for the engine `onnx`; a release may lack it
CONFIG_NAME = "config.json"
TRAINING_NAME = "training.json"
METRICS_NAME = "metrics.json"
EXPECTED_NAME = "selftest/expected.json"

# Releases that come with the package, by the names that load them.
_RELEASES = Path(__file__).parent / "releases"
BUNDLED_RELEASES = {
    name: _RELEASES / name.replace("-", "_") for name in ("bundled", "bundled-vessels", "bundled-cc-by")
}
# Files of a release that are downloaded from the Hub. Nothing else that lies beside them is, above all no pickle.
DOWNLOADED_FILES = (CONFIG_NAME, WEIGHTS_NAME, ONNX_NAME, TRAINING_NAME, METRICS_NAME, EXPECTED_NAME)

# For a broken connection the client raises errors of the HTTP library that its version is built on, and a plain
# RuntimeError for a large file that it could not send or download.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    cast("type[Exception]", HfHubHTTPError.__mro__[1]),
    ConnectionError,
    TimeoutError,
    RuntimeError,
)
_DOWNLOAD_ERRORS: tuple[type[Exception], ...] = (OSError, HFValidationError, *CONNECTION_ERRORS)
_CALL_ERRORS: tuple[type[Exception], ...] = (LocalEntryNotFoundError, *CONNECTION_ERRORS)
_TEMPORARY_STATUS = (408, 429, 500, 502, 503, 504)
_WAITS_S = (1, 2, 4)
_LONGEST_WAIT_S = 300  # the window in which the Hub counts requests
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN to a token that may"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

T = TypeVar("T")


def check_repo_id(repo_id: str) -> None:
    """Raise `PublishError` unless a name is `user/name` as the Hub accepts it.

    Without a user name the Hub would create the repository for the owner of the token, and then refuse the commit.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(
            f"{short_repr(repo_id)} cannot be a name on the Hub ({first_line(error)}): give a user and a name, such as "
            "user/resegnet."
        ) from error
    if not HUB_ID.fullmatch(repo_id):
        raise PublishError(
            f"{short_repr(repo_id)} has no user name, expected user/name: give the name of a user or an organisation "
            f"too, such as user/{repo_id.rpartition('/')[2]}."
        )


def is_hub_id(source: str) -> bool:
    """Return True for a Hub id, `owner/name`, unless a file or folder of that name exists."""
    return bool(HUB_ID.fullmatch(source)) and not Path(source).exists()


def find_release(
    name: str | Path,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> tuple[Path, str | None]:
    """Find the folder of a release. A release of the Hub is downloaded first, unless the cache holds it.

    Parameters
    ----------
    name
        Folder (`~` stands for the home folder), name in `BUNDLED_RELEASES`, or Hub id such as `user/resegnet`.
    revision
        Branch, tag or commit on the Hub; None is `main`.
    cache_dir, force_download, local_files_only, token
        As in `huggingface_hub.snapshot_download`; ignored for a folder.

    Returns
    -------
    folder
        The folder, in the cache for a release of the Hub.
    commit
        The commit on the Hub; None for a folder of the caller's.

    Raises
    ------
    OSError
        If there is no such folder and the model cannot be downloaded from the Hub. The message is one sentence that
        says why.
    ArgumentError
        If a revision is given for a folder.
    """
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        folder = BUNDLED_RELEASES.get(str(name), folder)
    if folder.is_file():
        raise ArgumentError(f"{name} is a file, expected the folder of a release: give the folder that holds it.")
    if folder.is_dir():
        if revision is not None:
            raise ArgumentError(
                f"Got the revision {revision} for the folder {name}; only models of the Hub have one: leave it out."
            )
        if not (folder / CONFIG_NAME).is_file() and (folder / "release" / CONFIG_NAME).is_file():
            raise ArgumentError(f"{name} is the folder of a training run: give its release, {folder / 'release'}.")
        return folder, None
    if re.fullmatch(r"[\w.-]+", str(name)):  # the Hub would be asked for a name that none of its models can have
        parts = ", ".join(known for known, release in BUNDLED_RELEASES.items() if release.is_dir())
        raise OSError(
            f"There is no folder {name}, and no model of that name is part of this copy of the package, which has "
            f"{parts}: check the name. A Hub id looks like user/resegnet."
        )
    try:
        snapshot = snapshot_download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(DOWNLOADED_FILES),
        )
    except _DOWNLOAD_ERRORS as error:
        raise OSError(_explain_missing_release(str(name), revision, error)) from error
    return Path(snapshot), Path(snapshot).name  # the cache names a snapshot by its commit


def _explain_missing_release(name: str, revision: str | None, error: Exception) -> str:
    """Say in one sentence why a release cannot be loaded, and what to do."""
    at = name if revision is None else f"{name} at {revision}"
    match error:
        case HFValidationError():
            return f"There is no folder {name}, and it is not a Hub id such as user/resegnet either: check the name."
        case GatedRepoError():
            return f"{name} is gated: ask for access on its page of the Hub, and log in with `hf auth login`."
        case RepositoryNotFoundError():
            return (
                f"There is no folder {name} and no such model on the Hub, or it is private: check the name, and "
                "for a private one log in with `hf auth login` or set HF_TOKEN."
            )
        case RevisionNotFoundError():
            return f"{name} has no revision {revision}: choose a tag, branch or commit that its page of the Hub lists."
        case LocalEntryNotFoundError():
            return (
                f"There is no folder {name}, {at} is not in the cache or only in part, and the Hub cannot be reached: "
                "connect to the Internet (and unset HF_HUB_OFFLINE) once; after that it works offline."
            )
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"The Hub refuses {at} ({first_line(error)}): {_LOG_IN} read it."
        case HfHubHTTPError():
            return f"The Hub did not return {at} ({first_line(error)}): try again later."
    return (
        f"{at} cannot be downloaded from the Hub ({first_line(error)}): check the connection and the free disk space."
    )


def retry_hub_call(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call the Hub, up to four times if it or the connection fails in a way that may be temporary.

    The client itself repeats uploads and downloads, but not a commit, nor the creation of a repository or a tag.

    Raises
    ------
    HubError
        If the failure is not temporary, or the last attempt fails too.
    """
    for wait_s in (*_WAITS_S, None):
        try:
            return call(*arguments, **options)
        except _CALL_ERRORS as error:
            response = getattr(error, "response", None)
            temporary = not isinstance(error, OfflineModeIsEnabled)
            temporary = temporary and (response is None or response.status_code in _TEMPORARY_STATUS)
            if wait_s is None or not temporary:
                raise HubError(_explain_refusal(error, response), temporary) from error
            pause_s = max(wait_s, min(_requested_wait_s(response), _LONGEST_WAIT_S))
            logger.warning("%s: trying again in %.0f s", first_line(error), pause_s)
            time.sleep(pause_s)
    raise AssertionError  # not reached: the last attempt returns or raises


def _explain_refusal(error: Exception, response: Any) -> str:
    """Say in one sentence why a call failed."""
    if response is not None and response.status_code in (401, 403):
        said = getattr(error, "server_message", None) or first_line(error)
        return f"The Hub refuses the request ({said}): {_LOG_IN} write there."
    return f"The request to the Hub failed ({first_line(error)})."


def _requested_wait_s(response: Any) -> float:
    """Return the seconds that an answer asks to wait, in `RateLimit` or in `Retry-After` (seconds or a date), or 0."""
    if response is None:
        return 0
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal():
        return int(asked)
    date = parsedate_tz(asked)
    return 0 if date is None else mktime_tz(date) - time.time()


def make_repo(api: HfApi, repo_id: str, kind: str, *, private: bool, **options: Any) -> None:
    """Create a repository unless it exists.

    Parameters
    ----------
    repo_id, kind
        Hub id, and `model`, `dataset` or `space`.
    private
        Create it private. A repository that exists must then be private.
    options
        As in `huggingface_hub.HfApi.create_repo`.

    Raises
    ------
    PublishError
        If the name is not `user/name`; or if `private` is True, and the repository exists and is public.
    HubError
        If the Hub refuses a request or the connection fails.
    """
    check_repo_id(repo_id)
    # An account without a paid plan may not create most Spaces, and is refused even where the Space exists:
    # https://github.com/huggingface/huggingface_hub/issues/4535.
    if kind != "space" or not retry_hub_call(api.repo_exists, repo_id, repo_type=kind):
        retry_hub_call(api.create_repo, repo_id, repo_type=kind, private=private, exist_ok=True, **options)
    if private and not retry_hub_call(api.repo_info, repo_id, repo_type=kind).private:
        raise PublishError(
            f"{repo_id} exists and is public, but --private was given: make it private in its settings on the Hub, or "
            "name another."
        )


def check_hashes(folder: Path) -> None:
    """Compare the configuration and the weights of both engines with the SHA-256 recorded at release, if any is.

    The Hub's client checks the size of a downloaded file, not its content.

    Raises
    ------
    WeightsError
        If a file differs from the record or is missing from it, or the record cannot be read.
    """
    record = folder / EXPECTED_NAME
    if not os.path.lexists(record):
        return
    try:
        recorded = read_json(record)["sha256"]
        present = [name for name in (CONFIG_NAME, WEIGHTS_NAME, ONNX_NAME) if (folder / name).is_file()]
        expected = {name: recorded[name] for name in present}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{record} cannot be read ({first_line(error)}): download the release again.") from error
    for name, digest in expected.items():
        if sha256(folder / name) != digest:
            raise WeightsError(
                f"{folder / name} was altered or damaged: its SHA-256 differs from the one recorded at release. "
                "Download it again; from the Hub with `hf download` and `--force-download`."
            )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
