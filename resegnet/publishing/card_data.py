"""Data sets in the model card: what they were used for, and their terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from resegnet.releases.datasheets import SOURCES, Source
from resegnet.releases.licence import FREE_TERMS, Licence
from resegnet.releases.records import (
    anatomy_datasets,
    artery_vein_datasets,
    as_list,
    dataset_title,
    escape_markdown,
    markdown_table,
    pseudo_labelled_datasets,
    published_weights,
    teacher_releases,
    training_datasets,
    training_runs,
    unrecorded_parent,
    vessel_datasets,
)

_UNKNOWN = "not known to ReSegNet"


@dataclass(frozen=True)
class Restricted:
    """Data sets of the training with the same terms, which may forbid some use of the weights."""

    titles: str
    terms: str


@dataclass(frozen=True)
class Data:
    """Values of the section on data and terms, as Markdown."""

    table: str
    notes: list[str]
    pseudo_labelled: str
    pseudo_labels: int
    licence: str
    restricted: list[Restricted]
    unrecorded_parent: str
    encoder: str
    teachers: str
    unrecorded_teachers: str


def training_and_test_data(scored: Sequence[str], training: Mapping[str, Any], licence: Licence) -> Data:
    """Collect the values of the card's section on data and terms; `scored` names the data sets with scores."""
    used, pseudo_labelled = training_datasets(training), pseudo_labelled_datasets(training)
    names = list(dict.fromkeys([*used, *scored]))
    rows = []
    for name in names:
        uses = [*([_training_use(name, training)] if name in used else []), *(["scores"] if name in scored else [])]
        source = SOURCES.get(name, Source(name, _UNKNOWN, _UNKNOWN))
        facts = [escape_markdown(fact) if fact else "-" for fact in (source.camera, source.eyes)]
        rows.append([dataset_title(name), ", ".join(uses), *facts, _paper(source), _linked_terms(name)])
    notes = ((name, escape_markdown(note)) for name in names if name in SOURCES for note in SOURCES[name].notes)
    header = ["data set", "used for", "camera", "eyes", "paper", "terms of its publishers"]
    teachers = teacher_releases(training)
    return Data(
        table=markdown_table(header, rows) if rows else "",
        notes=[f"{titles}: {note}" for note, titles in _by_text(notes).items()],
        pseudo_labelled=", ".join(map(dataset_title, pseudo_labelled)),
        pseudo_labels=len({str(name) for run in training_runs(training) for name in as_list(run.get("labelled_ids"))}),
        licence=licence.id,
        restricted=[
            Restricted(titles, terms)
            for terms, titles in _by_text((name, _terms(name)) for name in used if not _is_free(name)).items()
        ],
        unrecorded_parent=escape_markdown(unrecorded_parent(training)) if unrecorded_parent(training) else "",
        encoder=", ".join(map(escape_markdown, published_weights(training))),
        teachers=", ".join(map(escape_markdown, teachers)),
        unrecorded_teachers=", ".join(escape_markdown(name) for name, recorded in teachers.items() if not recorded),
    )


def _by_text(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the titles of the data sets, given by name, that have a text in common."""
    found: dict[str, list[str]] = {}
    for name, text in texts:
        found.setdefault(text, []).append(dataset_title(name))
    return {text: ", ".join(titles) for text, titles in found.items()}


def _training_use(name: str, training: Mapping[str, Any]) -> str:
    """Return what was learned from a data set of the training, which may be several things."""
    purposes = {
        "training": vessel_datasets(training),
        "training, with vessel masks made by models": pseudo_labelled_datasets(training),
        "training of arteries and veins": artery_vein_datasets(training),
        "training of optic disc and fovea": anatomy_datasets(training),
    }
    return ", ".join(purpose for purpose, names in purposes.items() if name in names) or "training of teachers"


def _is_free(name: str) -> bool:
    return name in SOURCES and SOURCES[name].terms in FREE_TERMS


def _terms(name: str) -> str:
    return escape_markdown(SOURCES[name].terms) if name in SOURCES else _UNKNOWN


def _linked_terms(name: str) -> str:
    url = SOURCES[name].url if name in SOURCES else ""
    return f"[{_terms(name)}]({url})" if url else _terms(name)


def _paper(source: Source) -> str:
    """Return the paper of a data set, with its DOI as a link."""
    authors, separator, doi = source.paper.partition("doi:")
    if not separator:
        return escape_markdown(source.paper)
    return f"{escape_markdown(authors)} [doi:{escape_markdown(doi)}](https://doi.org/{quote(doi)})"
