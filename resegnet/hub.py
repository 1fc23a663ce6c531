"""Where a release comes from: a folder, or the Hugging Face Hub by way of its cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
TRAINING_NAME = "training.json"
METRICS_NAME = "metrics.json"
EXPECTED_NAME = "selftest/expected.json"

# What is fetched from the Hub: no pickle ever, nor anything else that somebody may have put beside a release.
NEEDED = (CONFIG_NAME, WEIGHTS_NAME, TRAINING_NAME, METRICS_NAME, EXPECTED_NAME)


class WeightsError(ValueError):
    """Weights that do not fit the configuration, were altered, or are no readable safetensors file."""


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
        Folder, or Hub id such as `user/resegnet`.
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
    if Path(name).is_dir():
        if revision is not None:
            raise ValueError(f"Got the revision {revision} for the folder {name}; only models of the Hub have one.")
        return Path(name), None
    try:
        folder = snapshot_download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(NEEDED),
        )
    except (OSError, HFValidationError) as error:
        raise OSError(_reason(str(name), revision, error)) from error
    # The cache names a snapshot by its commit.
    return Path(folder), Path(folder).name


def _reason(name: str, revision: str | None, error: Exception) -> str:
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
        case HfHubHTTPError():
            return f"The Hub did not give {at} ({_first_line(error)}): try again later."
    return f"{at} cannot be fetched from the Hub ({_first_line(error)}): check the connection and the free disk space."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def check_hashes(folder: Path) -> None:
    """Compare weights and configuration with the SHA-256 noted at release, if the folder has a note.

    The Hub's client checks the size of what it downloads, not the content.

    Raises
    ------
    WeightsError
        If a file differs, or the note cannot be read.
    """
    note = folder / EXPECTED_NAME
    if not note.is_file():
        return
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))["sha256"]
        expected = {name: noted[name] for name in (CONFIG_NAME, WEIGHTS_NAME)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{note} cannot be read ({error!r}): download the release again.") from error
    for name, digest in expected.items():
        if (folder / name).is_file() and sha256(folder / name) != digest:
            raise WeightsError(
                f"{folder / name} was altered or damaged, its SHA-256 is not the one noted at release: download it "
                "again, with `force_download=True` if it came from the Hub."
            )


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
