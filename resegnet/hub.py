"""The Hugging Face Hub: a release from its cache (or a folder), and patience where it or the connection stumbles."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import Any, TypeVar

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
from huggingface_hub.utils import parse_ratelimit_headers

from resegnet.errors import HubError, PublishError, WeightsError, first_line
from resegnet.io import read_json

logger = logging.getLogger(__name__)

MODEL_VARIABLE = "RESEGNET_MODEL"  # environment variable that names the model to load

WEIGHTS_NAME = "model.safetensors"
ONNX_NAME = "model.onnx"  # the same network for the fast engine; a release may lack it
CONFIG_NAME = "config.json"
TRAINING_NAME = "training.json"
METRICS_NAME = "metrics.json"
EXPECTED_NAME = "selftest/expected.json"

# Releases that come with the package, by the names that load them.
_RELEASES = Path(__file__).parent / "releases"
BUNDLED_RELEASES = {name: _RELEASES / name.replace("-", "_") for name in ("bundled", "bundled-cc-by")}
# Files of a release that are downloaded from the Hub. Nothing else that lies beside them is, above all no pickle.
DOWNLOADED_FILES = (CONFIG_NAME, WEIGHTS_NAME, ONNX_NAME, TRAINING_NAME, METRICS_NAME, EXPECTED_NAME)

# The client's errors of the connection are those of the HTTP library that its version is built on. A large file that
# could not be sent or fetched it tells by a plain RuntimeError.
CONNECTION_ERRORS = (HfHubHTTPError.__mro__[1], ConnectionError, TimeoutError, RuntimeError)
_PASSING = (408, 429, 500, 502, 503, 504)
_WAITS_S = (1, 2, 4)
_LONGEST_WAIT_S = 300  # the window in which the Hub counts requests
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN to a token that may"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

T = TypeVar("T")


def is_hub_id(source: str) -> bool:
    """Return True for a Hub id, `owner/name`, unless a file or folder of that name exists."""
    return bool(_HUB_ID.fullmatch(source)) and not Path(source).exists()


def find_release(
    name: str | Path,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> tuple[Path, str | None]:
    """The folder of a release; one of the Hub is fetched first, unless the cache holds it.

    Parameters
    ----------
    name
        Folder, name of a release that is `BUNDLED_RELEASES`, or Hub id such as `user/resegnet`.
    revision
        Branch, tag or commit on the Hub; None is `main`.
    cache_dir, force_download, local_files_only, token
        As in `huggingface_hub.snapshot_download`; they mean nothing for a folder.

    Returns
    -------
    folder, commit
        The commit is None for a folder of the caller's.

    Raises
    ------
    OSError
        If there is no such folder and the model cannot be had from the Hub; one sentence that says why.
    ValueError
        If a revision is asked of a folder.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = BUNDLED_RELEASES.get(str(name), folder)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"Got the revision {revision} for the folder {name}; only models of the Hub have one.")
        return folder, None
    try:
        folder = snapshot_download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(DOWNLOADED_FILES),
        )
    except (OSError, HFValidationError, *CONNECTION_ERRORS) as error:
        raise OSError(_explain_missing_release(str(name), revision, error)) from error
    # The cache names a snapshot by its commit.
    return Path(folder), Path(folder).name


def _explain_missing_release(name: str, revision: str | None, error: Exception) -> str:
    at = name if revision is None else f"{name} at {revision}"
    match error:
        case HFValidationError():
            return f"There is no folder {name}, and it is no Hub id such as user/resegnet either: check the name."
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
                f"There is no folder {name}, {at} is not in the cache or not wholly, and the Hub cannot be reached: "
                "connect to the Internet (and unset HF_HUB_OFFLINE) once; after that it works offline."
            )
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"The Hub refuses {at} ({first_line(error)}): {_LOG_IN} read it."
        case HfHubHTTPError():
            return f"The Hub did not give {at} ({first_line(error)}): try again later."
    return f"{at} cannot be fetched from the Hub ({first_line(error)}): check the connection and the free disk space."


def retry_hub_call(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call the Hub, and again after a while where it or the connection fails in a way that passes.

    The client tries uploads and downloads several times by itself, but not a commit, nor the making of a repository or
    a tag.

    Raises
    ------
    HubError
        If it fails for good, or once too often.
    """
    for wait_s in (*_WAITS_S, None):
        try:
            return call(*arguments, **options)
        except (LocalEntryNotFoundError, *CONNECTION_ERRORS) as error:
            response = getattr(error, "response", None)
            temporary = not isinstance(error, OfflineModeIsEnabled)
            temporary = temporary and (response is None or response.status_code in _PASSING)
            if wait_s is None or not temporary:
                raise HubError(_explain_refusal(error, response), temporary) from error
            wait_s = max(wait_s, min(_asked_to_wait_s(response), _LONGEST_WAIT_S))
            logger.warning("%s: once more in %.0f s", first_line(error), wait_s)
            time.sleep(wait_s)
    raise AssertionError  # not reached: the last attempt returns or raises


def _explain_refusal(error: Exception, response: Any) -> str:
    if response is not None and response.status_code in (401, 403):
        said = getattr(error, "server_message", None) or first_line(error)
        return f"The Hub refuses it ({said}): {_LOG_IN} write there."
    return f"The Hub did not do it ({first_line(error)})."


def _asked_to_wait_s(response: Any) -> float:
    """Seconds that an answer asks to wait, by its `RateLimit`, or `Retry-After` in seconds or as a date; else 0."""
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
    """Make a repository if need be.

    Parameters
    ----------
    repo_id, kind
        Name, and `model`, `dataset` or `space`.
    private
        Make it private; one that is there already must then be private.
    options
        As in `huggingface_hub.HfApi.create_repo`.

    Raises
    ------
    PublishError
        If it is there, public, and a private one was asked for.
    HubError
        Whatever the Hub or the connection refuses.
    """
    retry_hub_call(api.create_repo, repo_id, repo_type=kind, private=private, exist_ok=True, **options)
    if private and not retry_hub_call(api.repo_info, repo_id, repo_type=kind).private:
        raise PublishError(
            f"{repo_id} is there already and public, but --private was asked for: make it private in its settings on "
            "the Hub, or name another."
        )


def check_hashes(folder: Path) -> None:
    """Compare weights, of both engines, and configuration with the SHA-256 noted at release, if there is a note.

    The Hub's client checks the size of what it downloads, not the content.

    Raises
    ------
    WeightsError
        If a file differs or is not in the note, or the note cannot be read.
    """
    note = folder / EXPECTED_NAME
    if not os.path.lexists(note):
        return
    try:
        noted = read_json(note)["sha256"]
        present = [name for name in (CONFIG_NAME, WEIGHTS_NAME, ONNX_NAME) if (folder / name).is_file()]
        expected = {name: noted[name] for name in present}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{note} cannot be read ({first_line(error)}): download the release again.") from error
    for name, digest in expected.items():
        if sha256(folder / name) != digest:
            raise WeightsError(
                f"{folder / name} was altered or damaged, its SHA-256 is not the one noted at release: download it "
                "again, with `force_download=True` if it came from the Hub."
            )


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
