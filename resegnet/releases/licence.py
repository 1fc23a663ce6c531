"""Licence of the weights, as far as the terms of the data sets that they learned from allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import teacher_releases, training_datasets, unrecorded_parent

# Ids that the Hub has for the terms of data sets that allow every use of the weights.
FREE_TERMS = {"CC0": "cc0-1.0", "CC BY 4.0": "cc-by-4.0"}


@dataclass(frozen=True)
class Licence:
    """Licence of the weights, in the words of the Hub's front matter.

    Attributes
    ----------
    id
        `mit`, `cc-by-4.0` or `other`.
    name, link
        Name and address of the terms; None unless `id` is `other`.
    """

    id: str
    name: str | None = None
    link: str | None = None


def weights_licence(training: Mapping[str, Any], card_url: str) -> Licence:
    """Return the licence of weights, as far as the terms of all that they learned from allow.

    Parameters
    ----------
    training
        Content of `training.json`.
    card_url
        Address of the model card, whose section on data and terms lists several terms.
    """
    used = training_datasets(training)
    restricted, unknown = restricted_datasets(training), terms_are_unknown(training)
    if not restricted and not unknown:
        credit = any(SOURCES[name].terms != "CC0" for name in used)
        return Licence("cc-by-4.0" if credit else "mit")
    names = [f"{name.replace('_', '-')}-terms" for name in restricted] + ["terms-not-known"] * unknown
    url = SOURCES[restricted[0]].url if len(restricted) == 1 and not unknown else ""
    return Licence("other", "-and-".join(names), url or f"{card_url}#data-and-terms")


def restricted_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets of the training whose terms are known and do not allow every use of the weights."""
    return [name for name in training_datasets(training) if name in SOURCES and SOURCES[name].terms not in FREE_TERMS]


def terms_are_unknown(training: Mapping[str, Any]) -> bool:
    """Return whether the weights learned from something whose terms are not known."""
    used = training_datasets(training)
    return not used or any(name not in SOURCES for name in used) or bool(_unrecorded(training))


def _unrecorded(training: Mapping[str, Any]) -> list[str]:
    """List the releases that the weights learned from and whose own training data are not in the record."""
    parent = unrecorded_parent(training)
    teachers = [name for name, recorded in teacher_releases(training).items() if not recorded]
    return [*([parent] if parent else []), *teachers]
