"""Validation scores: degraded photographs count at the threshold of the others, and the worst of them is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet.config import Config
from resegnet.learning import validation as module
from resegnet.learning.crops import WorkingSample
from resegnet.learning.samples import Sample
from resegnet.learning.stress import Stress
from resegnet.learning.validation import STRESSED_PER_SET, score_validation
from resegnet.model import ReSegNet


@pytest.fixture(scope="module")
def samples() -> list[WorkingSample]:
    config = Config(input_size=256)
    eyes = [draw_fundus(seed, (260, 250)) for seed in range(3)]
    return [WorkingSample.of(Sample(eye.image, eye.vessels, eye.fov, "", "", "one"), config) for eye in eyes]


@pytest.fixture
def score(samples, monkeypatch):
    """Return a function that scores a network which needs no weights, under the given kinds of stress."""
    model = ReSegNet(Config(encoder="plain", encoder_depth=3, decoder_channels=(16, 16, 16), input_size=256))
    network = DarkOnGreen()
    monkeypatch.setattr(module, "TorchNetwork", lambda *_: network)

    def score(*stresses: Stress, samples=samples):
        monkeypatch.setattr(module, "VALIDATION_STRESSES", stresses)
        network.calls = 0
        return score_validation(model, samples, [], under_stress=bool(stresses)), network.calls

    return score


def test_without_stress_nothing_else_is_scored(score):
    scores, calls = score()
    assert scores.keys() == {"validation_f1", "validation_f1_one"} and calls == 3


def test_an_undegraded_photograph_scores_as_before(score, samples):
    few = samples[:STRESSED_PER_SET]
    scores, _ = score(Stress("as it is"), samples=few)
    # The field is found anew in the square, whose scale may change by a percent.
    assert scores["validation_stress"] == pytest.approx(scores["validation_f1"], abs=0.03)


def test_the_worst_kind_counts_at_the_threshold_of_the_others(score):
    flat, _ = score(Stress("flat", contrast=0.3))
    both, calls = score(Stress("as it is"), Stress("flat", contrast=0.3))
    assert both == flat
    assert flat["validation_stress"] < flat["validation_f1"] - 0.05  # a threshold of its own would mend that
    assert calls == 3 + 2 * STRESSED_PER_SET


def test_each_data_set_has_the_same_weight(score, samples):
    elsewhere = np.roll(samples[0].vessels, 40, axis=0) & samples[0].field
    wrong = [dataclasses.replace(samples[0], vessels=elsewhere, dataset="another")]
    scores, calls = score(Stress("as it is"), samples=[*samples[:1], *wrong * 5])
    assert scores["validation_f1_another"] < scores["validation_f1_one"] - 0.3
    assert scores["validation_stress"] == pytest.approx(scores["validation_f1"], abs=0.03)
    assert calls == 6 + 1 + STRESSED_PER_SET
