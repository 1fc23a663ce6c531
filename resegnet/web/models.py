"""The models that the page offers: the one that it was started with, and releases that a visitor may choose instead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from resegnet.config import Config
from resegnet.errors import ReleaseError, ResegnetError, first_line
from resegnet.hub import BUNDLED_RELEASES, CONFIG_NAME, ONNX_NAME, TRAINING_NAME, WEIGHTS_NAME
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.licence import restricted_datasets, terms_are_unknown, weights_licence
from resegnet.releases.records import one_line, read_record, vessel_datasets
from resegnet.segmenter import Segmenter
from resegnet.web.messages import user_error
from resegnet.web.zero_gpu import is_zero_gpu

_NAMED_OWNERS = 3  # in the line on a model, which would fill the screen of a phone otherwise
LICENCES = {"mit": "MIT", "cc-by-4.0": "CC BY 4.0"}


class Described(Protocol):
    """Facts about a model that need no weights; a `Segmenter` has them too."""

    @property
    def model(self) -> str:
        """Name of the release."""

    @property
    def config(self) -> Config:
        """The settings that a prediction depends on."""

    @property
    def folder(self) -> Path | None:
        """The folder of the release, None for a network of one's own."""


@dataclass(frozen=True)
class Release:
    """A release that a visitor may choose. Its weights are in memory only once somebody did.

    Attributes
    ----------
    model, config, folder
        See `Described`.
    load
        Loads it.
    """

    model: str
    config: Config
    folder: Path | None
    load: Callable[[], Segmenter]


class OfferedModel(TypedDict):
    """A model as `viewer.js` offers it."""

    name: str
    line: str  # what differs from the others


class Models:
    """The models of the page, each loaded once.

    Parameters
    ----------
    first
        The model that the page was started with. It is taken if none is named.
    others
        Releases that may be chosen instead.
    """

    def __init__(self, first: Segmenter, others: Sequence[Release] = ()) -> None:
        self.first = first
        self.others = others
        self._loaded = {first.model: first}
        self._lock = threading.Lock()  # gradio runs handlers in threads

    def name(self, wanted: str | None) -> str:
        """Return the name of a model that the page has; None stands for the first.

        Raises
        ------
        gradio.exceptions.Error
            If none of this name is offered.
        """
        if wanted is not None and wanted not in [model.model for model in self.all]:
            raise user_error(f"The model is {wanted!r}, expected one that the page offers; load the page again.")
        return self.first.model if wanted is None else wanted

    def __call__(self, wanted: str | None) -> Segmenter:
        """Return a model, which is loaded first if nobody chose it before.

        Raises
        ------
        gradio.exceptions.Error
            If none of this name is offered, or it cannot be loaded.
        """
        name = self.name(wanted)
        with self._lock:
            if name not in self._loaded:
                load = next(release.load for release in self.others if release.model == name)
                try:
                    self._loaded[name] = load()
                except (ResegnetError, OSError) as error:
                    raise user_error(f"The model {name} cannot be loaded: {first_line(error)}.") from error
            return self._loaded[name]

    def threshold(self, wanted: str | None) -> float:
        """Return the fitted threshold of a model, which need not be loaded for that."""
        name = self.name(wanted)
        return next(model.config.threshold for model in self.all if model.model == name)

    @property
    def all(self) -> list[Described]:
        """The models, the first one first."""
        return [self.first, *self.others]

    @property
    def offered(self) -> list[OfferedModel]:
        """The choice for `viewer.js`; empty if there is none."""
        return [{"name": model.model, "line": describe(model)} for model in self.all] if self.others else []


def other_releases(segmenter: Segmenter) -> list[Release]:
    """List the bundled releases that a visitor may choose instead of the model that the page was started with.

    There are none if the page was started with another model than `bundled`: whoever names one wants that one, for
    example because of its licence. There are none on ZeroGPU either, where a model has to be loaded at the start.
    """
    if segmenter.model != "bundled" or segmenter.folder != BUNDLED_RELEASES["bundled"] or is_zero_gpu():
        return []
    others = []
    for name, folder in BUNDLED_RELEASES.items():
        has_weights = any((folder / weights).is_file() for weights in (ONNX_NAME, WEIGHTS_NAME))
        if name != segmenter.model and has_weights and (folder / CONFIG_NAME).is_file():
            others.append(Release(name, Config.load(folder / CONFIG_NAME), folder, _loader(name)))
    return others


def describe(model: Described) -> str:
    """Return one line on a model, from its records: what it finds, where it learned vessels from, and its licence."""
    training = own_record(model, TRAINING_NAME)
    names = [SOURCES[name].title if name in SOURCES else one_line(name) for name in vessel_datasets(training)]
    parts = [
        "Vessels alone." if model.config.context_size is None else "Vessels, arteries, veins, optic disc and fovea.",
        f"Trained on {', '.join(names)}." if names else "Its record does not name what it was trained on.",
        _licence(training),
    ]
    return " ".join(parts)


def _licence(training: dict[str, Any]) -> str:
    """Return a sentence on the licence of the weights."""
    licence = weights_licence(training, "")
    if licence.id in LICENCES:
        return f"Licence: {LICENCES[licence.id]}."
    owners = [SOURCES[name].title for name in restricted_datasets(training)]
    if terms_are_unknown(training):
        owners.append("data that its record does not name")
    if len(owners) > _NAMED_OWNERS:
        others = len(owners) - 1
        return f"Use is restricted by the terms of {owners[0]} and {others} others, see About."
    return f"Use is restricted by the terms of {', '.join(owners)}."


def own_record(model: Described, name: str) -> dict[str, Any]:
    """Read the record of this name in the model's folder; empty if it is missing or broken: a model works without."""
    try:
        return {} if model.folder is None else read_record(model.folder / name)
    except ReleaseError:
        return {}


def _loader(name: str) -> Callable[[], Segmenter]:
    return lambda: Segmenter.from_pretrained(name)
