"""The text of the model card: no record breaks it, its commands work, and the Hub client accepts it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load
from markdown_it import MarkdownIt
from support.cards import HOSTILE, PICTURE, RECORDS, changed, code, rows

from resegnet import ConfigError, Segmenter
from resegnet.__main__ import build_parser
from resegnet.errors import ReleaseError
from resegnet.publishing.card import model_card


def test_data_sets_of_the_hub_are_in_the_front_matter(card):
    text = card(**changed("training", "hub_datasets", to=["someone/chase", "/home/me/eyes", HOSTILE, 3, None]))
    assert ModelCard(text).data.datasets == ["someone/chase"]


def test_no_name_of_a_record_is_in_the_text(bundled):
    prose = re.sub(r"`[^`]*`", "", bundled.replace("\\", ""))
    for name in ("validation_ids", "train_ids", "threshold_fitted_on", "hub_datasets"):
        assert name not in prose


def test_the_hub_client_keeps_the_card_as_it_is(card, tmp_path):
    path = tmp_path / "README.md"
    ModelCard(card()).save(path)
    assert metadata_load(path) == ModelCard(card()).data.to_dict()
    assert ModelCard.load(path).text.strip() == card().split("\n---\n", 1)[1].strip()


def test_the_same_records_give_the_same_card(bundled, card):
    assert card() == bundled


@pytest.mark.parametrize("value", [None, 3, "x", [None], {"x": [{}]}])
@pytest.mark.parametrize("key", ["options", "environment", "train_ids", "epochs_run", "best_epoch", "validation_f1"])
def test_a_training_record_of_odd_types_gives_a_card(card, key, value):
    assert "# ReSegNet" in card(metrics={"drive": {}}, **changed("training", key, to=value))


def hostile_records() -> dict:
    stress = [{"stress": HOSTILE, "count": HOSTILE, "f1": 0.5, "recall": HOSTILE}, HOSTILE]
    metrics = {
        HOSTILE: RECORDS["metrics"]["drive"]
        | {"protocol": HOSTILE, "field_of_view": [HOSTILE], "split": HOSTILE, "stress": stress},
        "- !!python/object:os.system": RECORDS["metrics"]["hrf"] | {"versions": {HOSTILE: HOSTILE}},
        "null": {"pooled": {HOSTILE: 0.5}, "pictures": [{"image_id": HOSTILE, "f1": 0.5, "warnings": [HOSTILE]}]},
        "": {"pooled": {"f1": 0.25}},
    }
    options = RECORDS["training"]["options"] | {
        "dataset": [HOSTILE, "```\nrm -rf /", "$(reboot)"],
        "start_from": HOSTILE,
        "encoder_weights": HOSTILE,
        HOSTILE: HOSTILE,
    }
    training = {"options": options, "threshold_fitted_on": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    training |= {"hub_datasets": [HOSTILE], "data_sha256": HOSTILE, "best_epoch": HOSTILE, "train_ids": [HOSTILE]}
    earlier = {"options": {"dataset": HOSTILE, "extra": [HOSTILE], "start_from": HOSTILE}, "epochs_run": HOSTILE}
    return {"metrics": metrics, "training": training | {"earlier": earlier}}  # a hostile config is refused


def test_hostile_names_stay_text(card, tmp_path):
    text = card(pictures={PICTURE: HOSTILE}, revision=HOSTILE, **hostile_records())
    (tmp_path / "README.md").write_text(text, encoding="utf-8")  # a lone surrogate could not be written
    results = ModelCard(text).data.eval_results
    sound = " ".join(HOSTILE.translate(dict.fromkeys(map(ord, "\n\r\u2028\u202e\ud800"), " ")).split())
    assert {r.dataset_type for r in results} == {sound, "- !!python/object:os.system", "null", "unnamed"}
    assert {r.metric_value for r in results if r.dataset_type == sound} == set(
        RECORDS["metrics"]["drive"]["pooled"].values()
    )
    body = text.split("\n---\n", 1)[1]
    prose = re.sub(r"^```.*?^```", "", body, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<script|(?<!\\)\]\(http://x|\$|\\\\", prose)
    assert body.count("\n```") == text.count("\n```") == card().count("\n```")
    for start in ("data set | split", "data set | photographs", "data set | photograph |", "data set | used for"):
        header, *table = rows(text, start)
        assert table and all(len(row) == len(header) for row in table)
    assert not re.search(r"[\r\u2028\u202e\ud800]", text)
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert headings == [line for line in card(pictures={"a": "b"}).splitlines() if line.startswith("#")]


def test_hostile_names_come_out_as_text_in_html(card):
    markdown = MarkdownIt("commonmark").enable("table")
    records = hostile_records()
    text = card(pictures={PICTURE: HOSTILE}, **records)
    html = markdown.render(text.split("\n---\n", 1)[1])
    tags = set(re.findall(r"<([a-z0-9]+)", html))
    plain = markdown.render(card(pictures={"pictures/a.jpg": "b"}).split("\n---\n", 1)[1])
    assert tags <= set(re.findall(r"<([a-z0-9]+)", plain))
    assert set(re.findall(r'href="([^"]*)"', html)) <= set(re.findall(r'href="([^"]*)"', plain))
    shown = re.sub(r"\s+", " ", HOSTILE.translate(dict.fromkeys(map(ord, "\u202e\ud800"), " "))).strip()
    for raw, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        shown = shown.replace(raw, entity)
    assert f"<td>{shown}</td>" in html  # the reader sees the text of the record


@pytest.mark.parametrize("revision", ["v1.0.0", None])
def test_the_example_loads_the_published_revision(card, monkeypatch, revision):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return lambda photograph: photograph

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    example = code(card(revision=revision), "python", "from_pretrained")
    assert len(list(filter(None, example.splitlines()))) == 3
    exec(example, {})
    assert asked == [(("someone/resegnet",), {} if revision is None else {"revision": revision})]


def test_the_commands_to_verify_exist(card):
    lines = code(card(), "bash", "verify").splitlines()
    assert lines[0] == "hf download someone/resegnet --revision v1.0.0 --local-dir downloaded"
    assert "--revision" not in code(card(revision=None), "bash", "verify")
    assert build_parser().parse_args(lines[1].split()[3:]).folder == Path("downloaded")


def test_the_card_tells_how_to_install(card, monkeypatch):
    assert "Ask the publisher of this page for the code" in card() and "/spaces/" not in card()
    space = card(space_id="someone/demo")
    assert "[someone/demo](https://huggingface.co/spaces/someone/demo)" in space
    assert (
        "hf download someone/demo --repo-type space --local-dir resegnet-space\npip install ./resegnet-space" in space
    )
    monkeypatch.setattr("resegnet.publishing.card.REPOSITORY_URL", "https://example.org/resegnet")
    for space_id in (None, "someone/demo"):
        text = card(space_id=space_id)
        assert 'pip install "resegnet @ git+https://example.org/resegnet"' in text
        assert "Ask the publisher" not in text and "resegnet-space" not in text
        assert ("someone/demo" in text) == (space_id is not None)


@pytest.mark.parametrize("name", ["training", "metrics"])
@pytest.mark.parametrize("content", [None, "[]", "{", "[" * 100_000])
def test_a_missing_or_broken_record_is_named(card, tmp_path, name, content):
    card()
    path = tmp_path / f"{name}.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ReleaseError, match=f"{name}.json"):
        model_card(tmp_path, "someone/resegnet")


def test_an_impossible_config_is_refused(card):
    with pytest.raises(ConfigError, match="input_size"):
        card(config=RECORDS["config"] | {"input_size": 7})


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "a b", "user/name\n", "../x"])
def test_an_impossible_repository_is_refused(card, repo_id):
    with pytest.raises(ValueError, match=r"[Rr]epo"):
        card(repo_id=repo_id)
