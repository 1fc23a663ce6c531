"""Opening a data set from a folder, a file or the Hub, with its columns unchanged."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetsError

from resegnet.errors import DataError
from resegnet.hub import is_hub_id
from resegnet.image import SUFFIXES

logger = logging.getLogger(__name__)

PICTURE_CELL = datasets.Image(decode=False)

FORMS = (
    "the word 'synthetic', an image folder with metadata.jsonl, a folder with train/image and train/mask, "
    "a Parquet folder or file, a folder written by save_to_disk, or a Hub id (owner/name)"
)

PREPARE = "`python -m resegnet prepare` makes a folder from the download of a public data set."


def load_splits(source: str) -> tuple[str, dict[str, Dataset]]:
    """Load all splits of a data set that is a folder, a file or on the Hub.

    Parameters
    ----------
    source
        Path or Hub id; `FORMS` lists the supported forms.

    Returns
    -------
    name
        Name of the data set, without its folder or owner.
    splits
        Its splits by name, with the columns unchanged.

    Raises
    ------
    DataError
        If the data set does not exist or has none of the known forms.
    """
    path = Path(os.path.expanduser(source))  # `Path.expanduser` fails for the folder of an unknown user
    is_on_hub = is_hub_id(source) and not path.parent.is_dir()
    if is_on_hub:  # asking for it without a network takes half a minute
        logger.info("There is no folder %s; looking for a data set of that name on the Hugging Face Hub.", source)
    try:
        if path.exists():
            with _no_progress_bars():
                return _load_local(path)
        if is_on_hub:
            return source.rsplit("/", 1)[-1], dict(datasets.load_dataset(source))
    except (OSError, ValueError, DatasetsError) as error:
        if isinstance(error, DataError):
            raise
        advice = (
            f"Expected {FORMS}." if path.exists() else f"Check its name, your access to it, and the network. {PREPARE}"
        )
        raise DataError(f"{source} cannot be loaded ({error}). {advice}") from error
    raise DataError(f"There is no file or folder {source}. Expected {FORMS}: check the path. {PREPARE}")


def _ask(load: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Load by `datasets`, which raises these two for files that are empty or not its own."""
    try:
        return load(*arguments, **options)
    except (KeyError, IndexError) as error:
        raise ValueError(f"it holds no data set: {error!r}") from error


def _load_local(path: Path) -> tuple[str, dict[str, Dataset]]:
    name = path.resolve().name
    if path.is_file() and path.suffix == ".parquet":
        words = re.split(r"[^a-z]+", path.stem.lower())
        key = next((word for word in ("test", "validation") if word in words), "train")
        return path.stem, dict(datasets.load_dataset("parquet", data_files={key: str(path)}))
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = _ask(datasets.load_from_disk, str(path))
        return name, dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    if any(file.suffix in (".jsonl", ".csv", ".parquet") for file in path.rglob("metadata.*")):
        return name, dict(_ask(datasets.load_dataset, "imagefolder", data_dir=str(path)))
    if any(path.rglob("*.parquet")):
        return name, dict(datasets.load_dataset("parquet", data_dir=str(path)))
    splits = {
        folder.name: _pair_by_name(folder, name)
        for folder in sorted(path.glob("*/"))
        if (folder / "image").is_dir() and (folder / "mask").is_dir()
    }
    if not splits:
        inside = sorted(path.glob("*/train"))
        is_split = path.name in ("train", "validation", "test") and (path / "image").is_dir()
        likely = path.parent if is_split else inside[0].parent if inside else "another folder"
        raise DataError(f"{path} holds no data in a known form. Expected {FORMS}: give {likely}.")
    return name, splits


def _pair_by_name(folder: Path, name: str) -> Dataset:
    """Load the split `folder` with the folders image and mask; a file without its counterpart gives a row with None."""
    files: dict[str, dict[str, Path]] = {"image": {}, "mask": {}}
    duplicates = []
    for kind, found in files.items():
        for file in sorted((folder / kind).iterdir()):
            if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
                if file.stem in found:
                    duplicates.append(f"{found[file.stem]} and {file.name}")
                found[file.stem] = file
    if duplicates:
        raise DataError(
            f"Files differ only in their suffix, so pairs are ambiguous: {'; '.join(duplicates)}. Remove one of each."
        )
    stems = sorted(files["image"].keys() | files["mask"].keys(), key=by_numbers)
    numbers = [re.match(r"(\d+)_(?:training|test|manual1)(?![a-z])", stem) for stem in stems]
    columns: dict[str, list[str | None]] = {
        kind: [str(found[stem]) if stem in found else None for stem in stems] for kind, found in files.items()
    }
    # Both splits may number their pictures from 0: a record of training would then name pictures of `test` too.
    prefix = name if folder.name == "train" else f"{name}_{folder.name}"
    columns["image_id"] = [f"{prefix}_{stem}" for stem in stems]
    columns["patient"] = [
        match[1] if match else f"{folder.name}_{stem}" for match, stem in zip(numbers, stems, strict=True)
    ]
    return Dataset.from_dict(columns)


def by_numbers(stem: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of `datasets`: a local folder loads too fast for them to be of use."""
    were_enabled = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_enabled:
            datasets.enable_progress_bars()
