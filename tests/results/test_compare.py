"""A segmentation against a reference: scores of known masks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from support.tracings import grey

from resegnet.results import render
from resegnet.results.compare import Comparison, compare
from resegnet.results.segmentation import Segmentation

NAMES = ["f1", "sensitivity", "specificity", "precision", "accuracy", "auroc", "mcc", "cldice"]


@pytest.fixture
def bars():
    """12 x 20, field without the outer ring; truth two lines of 8, prediction one of 10 on the first of them."""
    probability = np.full((12, 20), 0.125, np.float32)
    probability[3, 4:14] = 0.75
    probability[0] = 1
    fov, reference = np.zeros((12, 20), bool), np.zeros((12, 20), bool)
    fov[1:-1, 1:-1] = True
    reference[3, 4:12] = reference[8, 4:12] = True
    reference[-1] = True
    return Comparison(Segmentation(np.zeros((12, 20, 3), np.uint8), probability, fov, 0.5), reference)


def test_scores_of_masks_counted_by_hand(bars):
    # Field of 180: 8 hits, 2 false alarms, 8 misses, 162 of the rest.
    scores = bars.scores()
    assert list(scores) == NAMES
    assert scores == {
        "f1": pytest.approx(16 / 26),
        "sensitivity": 0.5,
        "specificity": pytest.approx(162 / 164),
        "precision": 0.8,
        "accuracy": pytest.approx(170 / 180),
        # 16 x 164 pairs: half of the vessels win against 162 and tie with 2, half tie with 162 and lose to 2.
        "auroc": pytest.approx((8 * 162 + 8 * 2 / 2 + 8 * 162 / 2) / (16 * 164)),
        "mcc": pytest.approx((8 * 162 - 2 * 8) / math.sqrt(10 * 16 * 164 * 170)),
        # Lines are their own skeletons: 8 of 10 lie on the truth, 8 of 16 on the prediction.
        "cldice": pytest.approx(2 * 0.8 * 0.5 / 1.3),
    }


@pytest.mark.parametrize("threshold", [0, 0.15, 0.4, 1])
def test_scores_agree_with_scikit_learn(eye, result, threshold):
    comparison = compare(result, grey(eye.vessels)).at(threshold)
    scores = comparison.scores()
    truth, probability = eye.vessels[eye.fov], result.probability[eye.fov]
    mask = probability >= threshold
    assert scores["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, mask))
    assert scores["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(truth, mask))
    assert scores["specificity"] == pytest.approx(sklearn_metrics.recall_score(~truth, ~mask))
    assert scores["precision"] == pytest.approx(sklearn_metrics.precision_score(truth, mask))
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, mask))
    assert scores["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, probability), abs=1e-4)
    if threshold:
        assert scores["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(truth, mask))


def test_at_threshold_0_every_pixel_is_called_vessel(bars):
    nothing = replace(bars.segmentation, probability=np.zeros((12, 20), np.float32))
    for segmentation, auroc in ((bars.segmentation, bars.scores()["auroc"]), (nothing, 0.5)):
        scores = replace(bars, segmentation=segmentation).at(0).scores()
        assert (scores["sensitivity"], scores["specificity"]) == (1, 0)
        assert scores["precision"] == scores["accuracy"] == pytest.approx(16 / 180)
        assert scores["auroc"] == auroc
        assert math.isnan(scores["mcc"]) and math.isnan(scores["cldice"])


def test_cldice_is_given_up_to_half_of_the_field(bars):
    probability = np.zeros((12, 20), np.float32)
    probability[1:6] = 1  # 5 of the 10 rows of the field
    half = replace(bars, segmentation=replace(bars.segmentation, probability=probability))
    assert half.scores()["cldice"] > 0
    probability[6, 1] = 1
    scores = half.scores()
    assert math.isnan(scores["cldice"])
    assert scores["accuracy"] == pytest.approx((8 + 90 - 9) / 180)
    assert scores["sensitivity"] == 0.5


def test_a_perfect_prediction_scores_1_throughout(eye, result):
    same = compare(replace(result, probability=eye.vessels.astype(np.float32)), grey(eye.vessels))
    assert same.notes == ()
    assert same.scores() == dict.fromkeys(NAMES, 1.0)


def test_another_threshold_keeps_tracing_and_notes(eye, result):
    comparison = compare(result, grey(~eye.vessels))
    other = comparison.at(0.7)
    assert other.reference is comparison.reference
    assert other.notes == comparison.notes != ()
    assert other != comparison
    assert (comparison.segmentation.threshold, other.segmentation.threshold) == (0.4, 0.7)
    assert other.scores()["specificity"] > comparison.scores()["specificity"]
    assert other.scores()["auroc"] == comparison.scores()["auroc"]
    with pytest.raises(ValueError, match="threshold is 40"):
        comparison.at(40)


def test_error_map_is_that_of_the_mask_inside_the_field(bars):
    colors = bars.error_map()
    counts = {name: np.count_nonzero((colors == color).all(axis=2)) for name, color in render.ERROR_COLORS.items()}
    assert counts == {"hit": 8, "miss": 8, "false alarm": 2}


@pytest.mark.parametrize("threshold", [0, 0.5])
def test_a_tracing_of_another_size_made_by_hand_is_refused(bars, threshold):
    with pytest.raises(ValueError, match="shape"):
        replace(bars.at(threshold), reference=bars.reference[1:]).scores()
