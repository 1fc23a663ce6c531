"""The photographs of a run: what they are compared with, whose labels they get, and what the record says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.synthetic import draw_fundus
from support.tiny_run import TINY, TWO_LOOKS

from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.options import TrainingOptions
from resegnet.learning.parents import Parents
from resegnet.learning.photographs import TrainingData, WorkingSamples
from resegnet.learning.record import training_record
from resegnet.learning.run import Run
from resegnet.learning.training import train

pytestmark = pytest.mark.usefixtures("own_cache")

NO_PARENTS = Parents(None, None, (), None)


def write_eyes(folder: Path, eyes: dict[str, dict[str, int]]) -> str:
    """Write drawn eyes, given by split and `image_id` with their seeds, with vessels and the whole as optic disc."""
    for split, seeds in eyes.items():
        (folder / split).mkdir(parents=True)
        lines = []
        for name, seed in seeds.items():
            eye = draw_fundus(seed, (200, 200))
            Image.fromarray(eye.image).save(folder / split / f"{name}.png")
            Image.fromarray(eye.vessels).save(folder / split / f"{name}_mask.png")
            Image.fromarray(np.ones((200, 200), bool)).save(folder / split / f"{name}_disc.png")
            lines.append({"image_id": name, "dataset": "eyes", "image_file_name": f"{name}.png"})
            lines[-1] |= {"mask_file_name": f"{name}_mask.png", "disc_file_name": f"{name}_disc.png"}
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def read(options: TrainingOptions, cache: Path) -> tuple[TrainingData, WorkingSamples]:
    data = TrainingData.load(options)
    return data, WorkingSamples.read(data, options, NO_PARENTS, cache)


def test_photographs_that_are_scored_or_validated_on_are_not_among_those_with_disc_or_fovea(tmp_path):
    tiny = write_eyes(tmp_path / "tiny", {"train": {f"eye{seed}": seed for seed in range(5)}, "test": {"eye9": 9}})
    unseen = write_eyes(tmp_path / "unseen", {"test": {"other": 10}})
    discs = write_eyes(tmp_path / "discs", {"train": {f"disc{seed}": seed for seed in (*range(5), 9, 10, 11)}})
    options = TrainingOptions(dataset=(tiny,), unseen=(unseen,), anatomy=(discs,), **TWO_LOOKS)
    data, samples = read(options, tmp_path / "cache")
    anatomy = [*samples.anatomy, *samples.anatomy_validation]
    learned = {f"disc{name.removeprefix('eye')}" for name in data.train["image_id"]}
    assert len(learned) < 5
    assert {sample.image_id for sample in anatomy} == {*learned, "disc11"}
    assert {sample.image_id for sample in samples.anatomy} >= learned
    assert len({sample.sha256 for sample in anatomy}) == len(anatomy)


def test_labels_of_arteries_and_veins_come_from_the_folder_of_the_own_data_set(tmp_path):
    """The sets are named alike in their rows, and the labels of one are of a photograph that it only scores."""
    ids = {"train": {"a1": 1, "a2": 2}, "test": {"b1": 5}}
    one = write_eyes(tmp_path / "here" / "one", ids)
    other = write_eyes(tmp_path / "there" / "other", {"train": {"b1": 3, "b2": 4}, "test": {"b3": 6}})
    labels = tmp_path / "here" / "artery_vein"
    labels.mkdir()
    for name in ("a1", "a2", "b1"):
        Image.fromarray(np.full((200, 200), 3, np.uint8)).save(labels / f"{name}.png")
    options = TrainingOptions(dataset=(one, other), validation_fraction=0.3, **TWO_LOOKS)
    data, samples = read(options, tmp_path / "cache")
    for rows, part in ((data.train, samples.train), (data.validation, samples.validation)):
        found = {name: sample.kinds_by_person for name, sample in zip(rows["image_id"], part, strict=True)}
        assert found == {name: name.startswith("a") for name in rows["image_id"]}


def test_the_record_has_the_digests_of_photographs_with_disc_or_fovea_and_the_models_that_labelled(folder, tmp_path):
    eyes = {f"extra{seed}": seed for seed in (20, 21)}
    extra = write_eyes(tmp_path / "clinic", {"train": eyes})
    models = [{"name": "mine", "trained_on": ["drive"]}]
    (tmp_path / "clinic" / "labelled_by.json").write_text(json.dumps(models))
    options = TrainingOptions(dataset=(str(folder),), extra=(extra,), **TINY)
    data = TrainingData.load(options)
    anatomy = [AnatomySample(np.zeros((4, 1, 1), np.uint8), None, None, name, sha256=name * 2) for name in ("a", "b")]
    samples = WorkingSamples([], [], [], anatomy[:1], anatomy[1:])
    record = training_record(Run(options), data, samples, NO_PARENTS, {})
    assert (record["anatomy_train_ids"], record["anatomy_train_sha256"]) == (["a"], ["aa"])
    assert (record["anatomy_validation_ids"], record["anatomy_validation_sha256"]) == (["b"], ["bb"])
    assert record["labelled_by"] == models


def test_teachers_are_compared_too(folder, tmp_path, monkeypatch):
    def stop(data, releases):
        raise KeyError([release.source for release in releases])

    monkeypatch.setattr(TrainingData, "warn_of_known_eyes", stop)
    options = TrainingOptions(dataset=(str(folder),), teacher=("bundled-cc-by", "bundled-vessels"), **TINY)
    with pytest.raises(KeyError, match=r"bundled-cc-by.*bundled-vessels"):
        train(options, tmp_path / "run")
