"""The model card: what it says of the training data and the runs, and the licence that follows from them."""

from __future__ import annotations

import copy
import json
import re

import pytest
from huggingface_hub import ModelCard
from support.cards import RECORDS, changed, rows
from support.stand_in import stored_record

from resegnet import Config
from resegnet.hub import BUNDLED_RELEASES
from resegnet.publishing.card import model_card
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import threshold_origin, training_runs


def test_the_terms_of_the_training_data_are_told(card):
    text = card()
    assert "**DRIVE, terms: research and education only, no redistribution.**" in text
    assert text.index("Trained on DRIVE (terms: research and education only, no redistribution)") < text.index("## Use")
    free = card(**changed("training", "options", "dataset", to=["chase_db1", "hrf", "synthetic"]))
    assert "may bind you" not in free and "| DRIVE | scores |" in free and "CC BY\nrequires credit" in free
    unknown = card(**changed("training", "options", "dataset", to=["my_clinic"]))
    assert r"**my\_clinic, terms: not known to ReSegNet.**" in unknown


@pytest.mark.parametrize(
    ("datasets", "licence"),
    [
        (["drive", "hrf"], ("other", "drive-terms", "https://drive.grand-challenge.org")),
        (["stare", "drive"], ("other", "stare-terms-and-drive-terms", "#data-and-terms")),
        (["my_clinic"], ("other", "terms-not-known", "#data-and-terms")),
        (["drive", "my_clinic"], ("other", "drive-terms-and-terms-not-known", "#data-and-terms")),
        (["chase_db1", "hrf", "synthetic"], ("cc-by-4.0", None, None)),
        (["synthetic"], ("mit", None, None)),
        ([], ("other", "terms-not-known", "#data-and-terms")),
    ],
)
def test_the_licence_is_that_of_the_training_data(card, datasets, licence):
    text = card(metrics={}, **changed("training", "options", "dataset", to=datasets))
    data = ModelCard(text).data.to_dict()
    found = [data.get(key) for key in ("license", "license_name", "license_link")]
    assert [value and value.removeprefix("https://huggingface.co/someone/resegnet") for value in found] == [*licence]
    said = {
        "mit": "and these weights are published under the MIT licence.",
        "cc-by-4.0": "these weights under\n[CC BY 4.0]",
        "other": "puts no terms of its own on these weights",
    }
    assert [name for name, words in said.items() if words in text] == [licence[0]]


def test_a_model_of_all_sets_names_the_terms_and_the_purpose_of_each(card):
    training = copy.deepcopy(RECORDS["training"]) | {"artery_vein_datasets": ["drive", "hrf", "my_clinic"]}
    training["options"] |= {
        "dataset": ["drive", "chase_db1", "hrf", "dr_hagis", "aria", "orvs"],
        "anatomy": ["idrid_disc", "idrid_unlabelled"],
    }
    text = card(training=training)
    data = ModelCard(text).data.to_dict()
    names = ["drive", "dr-hagis", "aria", "orvs", "rite", "hrf-av"]
    assert data["license"] == "other"
    assert data["license_name"] == "-and-".join([*(f"{name}-terms" for name in names), "terms-not-known"])
    header, *table = rows(text, "data set | used for")
    uses = {row[0].replace("\\", ""): dict(zip(header, row, strict=True)) for row in table}
    expected = {
        "DRIVE": "training, scores",
        "ARIA": "training",
        "LES-AV": "scores",
        "RITE (arteries and veins of DRIVE)": "training of arteries and veins",
        "my_clinic": "training of arteries and veins",
        "IDRiD (masks of the optic disc)": "training of optic disc and fovea",
        "IDRiD (centres of disc and fovea)": "training of optic disc and fovea",
    }
    assert {name: uses[name]["used for"] for name in expected} == expected
    for name in ("dr_hagis", "aria", "orvs", "rite", "hrf_av", "idrid_disc"):
        about, row = SOURCES[name], uses[SOURCES[name].title]
        assert about.terms in row["terms of its publishers"] and about.camera == row["camera"]
        assert f"https://doi.org/{about.paper.split('doi:')[1]}" in row["paper"]
    told = re.sub(r"\s+", " ", text)
    assert "* ORVS: The manual segmentations leave out most fine vessels" in told
    assert "* ARIA: The lines of the manual segmentations are broad" in told
    same_terms = ", ".join(SOURCES[name].title for name in ("dr_hagis", "aria", "orvs", "rite", "hrf_av"))
    assert f"* **{same_terms}, terms: {SOURCES['aria'].terms}.**" in told
    assert f"Trained on DRIVE (terms: {SOURCES['drive'].terms}), {same_terms} (terms: {SOURCES['aria'].terms})" in told
    assert "* DR-HAGIS, ARIA, ORVS: The persons are not named" in told


def test_the_licence_counts_what_the_weights_learned_from_earlier_and_from_teachers(card):
    def licence(**changes):
        training = copy.deepcopy(RECORDS["training"]) | changes
        training["options"] |= {
            "dataset": ["hrf"],
            "start_from": "a",
            "teacher": ["b"] if "teachers" in changes else [],
        }
        return ModelCard(card(metrics={}, training=training)).data.to_dict().get("license_name", "free")

    earlier = {"options": {"dataset": ["drive"], "start_from": ""}}
    assert licence(earlier=earlier) == "drive-terms"
    assert licence(earlier={}) == licence(earlier=[1]) == licence(earlier="none") == "terms-not-known"
    earlier["options"]["dataset"] = ["hrf"]
    assert licence(earlier=earlier) == "free"
    assert licence(earlier=earlier, teachers=[{"name": "b", "trained_on": ["stare"]}]) == "stare-terms"
    assert licence(earlier=earlier, teachers=[{"name": "b", "trained_on": []}]) == "terms-not-known"


@pytest.mark.parametrize(("name", "licence"), [("bundled", "other"), ("bundled-cc-by", "cc-by-4.0")])
def test_the_licences_of_the_bundled_releases(name, licence):
    text = model_card(BUNDLED_RELEASES[name], "someone/resegnet")
    assert ModelCard(text).data.license == licence
    assert "By their names, none of the photographs of this table was used for training or validation" in text
    assert "were also used" not in text
    # The pixels of some of the photographs are on record for one of them, and of none for the other.
    told = " ".join(text.split())
    assert ("hold the SHA-256 of the pixels of some of the photographs" in told) == (name == "bundled")
    assert ("hold the names of the photographs, not their content" in told) == (name != "bundled")


def test_the_licence_counts_what_the_models_that_labelled_photographs_learned_from(card):
    def licence(**changes):
        training = copy.deepcopy(RECORDS["training"]) | {"earlier": {}, "labelled_ids": ["a"]} | changes
        training["options"] |= {"dataset": ["hrf"], "extra": ["idrid"], "start_from": "", "teacher": []}
        text = card(metrics={}, training=training)
        return ModelCard(text).data.to_dict().get("license_name", "free"), " ".join(text.split())

    known = {"name": "mine", "trained_on": ["chase_db1"]}
    assert licence(labelled_by=[known])[0] == "free"
    name, text = licence(labelled_by=[known, {"name": "theirs", "trained_on": ["drive"]}])
    assert name == "drive-terms" and "| DRIVE | training of teachers |" in text
    assert "on the predictions of other models, its teachers: mine, theirs." in text
    assert licence(labelled_by=[known | {"trained_on_complete": False}])[0] == "terms-not-known"
    for unknown in ({}, {"labelled_by": [known, {"name": "unknown models that labelled idrid", "trained_on": []}]}):
        name, text = licence(**unknown)  # records of early versions say nothing of these models
        assert name == "terms-not-known"
        assert "The training data of unknown models that labelled idrid are not in this record." in text


def test_photographs_of_teachers_may_be_unlisted(card):
    unlisted = "photographs that its teachers learned from are not listed (see *Data and terms*)"
    assert unlisted not in card()
    assert unlisted in card(training=stored_record("training_of_six_runs"))


def with_digests(train: list[str], scored: list[str], **training: object) -> dict:
    """Return records of a set that numbers both splits from 0, with the given SHA-256 of the photographs."""
    pictures = [{"image_id": str(number), "f1": 0.5, "sha256": digest} for number, digest in enumerate(scored)]
    record = {"options": {"dataset": ["eyes"]}, "train_ids": [*map(str, range(len(train)))], "train_sha256": train}
    return {"training": record | training, "metrics": {"eyes": {"count": len(scored), "pictures": pictures}}}


def test_a_reused_photograph_is_known_by_its_content_not_by_its_id(card):
    reused, separate = "photographs of this table were also used", "None of the photographs of this table was used"
    honest = card(**with_digests(["a", "b"], ["c", "d"]))
    assert separate in honest and reused not in honest
    assert f"**2 of the {reused}" in card(**with_digests(["a", "b"], ["b", "c", "a"]))
    other_run = with_digests(["a"], ["c"], earlier=with_digests(["c"], [])["training"])
    assert f"**1 of the {reused}" in card(**other_run)
    teacher = {"options": {"dataset": ["eyes"], "teacher": ["t"]}, "teachers": [{"name": "t", "sha256": ["d", "e"]}]}
    assert f"**1 of the {reused}" in card(**with_digests(["a"], ["c", "d"], **teacher))
    teacher["teachers"][0].pop("sha256")
    for unknown in (
        with_digests(["a"], ["c"], **teacher),
        with_digests(["a"], ["c"], validation_ids=["7"]),
        with_digests(["a"], ["c"], earlier={"options": {"dataset": ["eyes"]}}),
        with_digests(["a"], ["c"], anatomy_train_ids=["0"]),
        with_digests(["a"], ["c"], labelled_by=[{"name": "mine", "trained_on": ["eyes"]}]),
        with_digests(["a"], [""]),
        with_digests([], ["c"], train_ids=["0"]),  # the same id, and no SHA-256: it tells nothing
    ):
        text = card(**unknown)
        assert reused not in text and separate not in text and "By their names" not in text
    assert "By their names, none of" in card(**with_digests([], ["c"], train_ids=["1"]))


def test_photographs_with_disc_or_fovea_are_compared_with_the_scored_ones(card):
    hashed = {"anatomy_train_ids": ["0"], "anatomy_train_sha256": ["e"], "anatomy_validation_ids": ["1"]}
    hashed["anatomy_validation_sha256"] = ["f"]
    assert "None of the photographs of this table was used" in card(**with_digests(["a"], ["c"], **hashed))
    for digest in ("e", "f"):
        assert "**1 of the photographs of this table were also used" in card(
            **with_digests(["a"], ["c", digest], **hashed)
        )
    text = card(**with_digests(["a"], ["c"], anatomy_train_ids=["eye"], train_ids=["another"]))
    told = " ".join(text.split())
    assert "None of the photographs of this table was" not in told and "By their names, none of the photographs" in told
    assert "none of these has the same pixels as one of them" in told


def test_an_earlier_release_is_named(card):
    assert "earlier release" in card(**changed("training", "options", "start_from", to="another"))
    assert "earlier release" not in card()


def test_the_card_of_a_release_of_six_runs_tells_them(card):
    told = card(training=stored_record("training_of_six_runs"))
    assert "| IDRiD | training, with vessel masks made by models |" in told
    assert "Training was 6 runs:" in told
    assert "It also has a note on runs 1 and 2." in told and "driver outside" not in told
    header, *runs = rows(told, "run | data sets")
    assert len(runs) == 6 and all(len(row) == len(header) for row in runs)
    assert [row[3:6] for row in runs[-2:]] == [["46", "9", "18"], ["55", "0", "8"]]
    assert "* The threshold was fitted on 9 validation photographs before the model was trained on them" in told


@pytest.mark.parametrize("name", BUNDLED_RELEASES)
def test_the_card_of_a_bundled_release_tells_its_runs_sizes_and_network(name):
    told = model_card(BUNDLED_RELEASES[name], "someone/resegnet", "v1.0.0")
    training = json.loads((BUNDLED_RELEASES[name] / "training.json").read_text())
    header, *runs = rows(told, "run | data sets")
    assert len(runs) == len(training_runs(training)) and all(len(row) == len(header) for row in runs)
    config = Config.load(BUNDLED_RELEASES[name] / "config.json")
    assert f"a square of {config.smallest_input_size} to {config.input_size} pixels" in told
    assert "one logit per pixel" not in told and "A U-Net" in told
    own = config.encoder in ("plain", "two-looks")
    assert ("of residual blocks" in told) == own and ("`segmentation_models_pytorch`" in told) != own
    assert ("It does not tell arteries from veins" in told) == (config.context_size is None)
    assert threshold_origin(training) in told


def test_earlier_runs_and_vessels_marked_by_models_are_told(card):
    first = RECORDS["training"]
    second = copy.deepcopy(first) | {"earlier": first, "labelled_ids": ["idrid_001", "idrid_002"], "epochs_run": 9}
    second["options"] |= {"dataset": ["hrf"], "extra": ["idrid"], "start_from": "first"}
    told = card(training=second)
    assert "| IDRiD | training, with vessel masks made by models |" in told
    assert "| DRIVE | training, scores |" in told  # the earlier run was trained on it
    assert "No person segmented the photographs of IDRiD (2\nof them were used)." in told
    assert "Training was 2 runs:" in told
    table = [(row[5], row[-1]) for row in rows(told, "run | data sets")[1:]]
    assert table == [(str(first["epochs_run"]), "random weights"), ("9", "run 1")]
    assert "an earlier release" not in told

    unknown = copy.deepcopy(second) | {"earlier": {}}
    assert 'Training started from the weights of an earlier release, named "first"' in card(training=unknown)


def test_the_training_data_of_teachers_count_too(card):
    training = copy.deepcopy(RECORDS["training"]) | {"earlier": {}}
    training["options"] |= {"dataset": ["hrf"], "teacher": ["ours", "theirs"], "start_from": ""}
    training["teachers"] = [{"name": "ours", "trained_on": ["drive"]}, {"name": "theirs", "trained_on": ["chase_db1"]}]

    def trained(training: dict) -> list[str]:
        _, *table = rows(card(training=training), "data set | split")
        return [row[3] for row in table]

    assert trained(training) == ["yes", "yes", "yes", "no"]
    told = card(training=training)
    assert "on the predictions of other models, its teachers: ours, theirs." in told
    assert "The training data of theirs are not in this record." not in told
    assert "**DRIVE, terms: research and education only, no redistribution.**" in told
    training["teachers"][1]["trained_on"] = []
    assert trained(training) == ["yes", "-", "yes", "-"]
    assert "The training data of theirs are not in this record." in card(training=training)
    training["teachers"][0]["name"] = "theirs"
    assert trained(training) == ["yes", "-", "yes", "-"]
    del training["teachers"]
    assert trained(training) == ["-", "-", "yes", "-"]


def test_kinds_that_a_model_labelled_are_told(card):
    assert "(pseudo-labels)" not in card()
    text = card(**changed("training", "options", "self_training", to=True))
    assert "In run 1, photographs whose arteries and veins no person labelled were labelled by a model" in " ".join(
        text.split()
    )
