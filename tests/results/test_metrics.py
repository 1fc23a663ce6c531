"""Scores against scikit-learn, clDice against shapes of known skeleton, the metric as `evaluate` has it."""

import math

import evaluate
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from resegnet.results import calibration
from resegnet.results.calibration import fit_scaling, fit_threshold, half_of_best_f1, reliability
from resegnet.results.metrics import BINS, SCORES, Counts, auroc, count_picture, probability_histograms, scores
from resegnet.results.vessel_scores import VesselScores

THRESHOLD = 0.4


def draw_pictures(number=3, seed=5):
    """Pictures of different sizes: noisy probabilities, vessels, a field that leaves some pixels out."""
    random = np.random.default_rng(seed)
    for size in [(61, 47), (80, 33), (52, 90)][:number]:
        vessels = random.random(size) < 0.15
        probability = np.clip(0.25 + 0.3 * vessels + random.normal(0, 0.2, size), 0, 1).astype(np.float32)
        yield probability, vessels, random.random(size) < 0.8


def inside(pictures):
    """Probability and truth of all pictures' fields, one after the other."""
    return (np.concatenate(flat) for flat in zip(*((p[f], v[f]) for p, v, f in pictures), strict=True))


def sklearn_scores(probability, vessels):
    mask = probability >= THRESHOLD
    return {
        "f1": sklearn_metrics.f1_score(vessels, mask),
        "iou": sklearn_metrics.jaccard_score(vessels, mask),
        "precision": sklearn_metrics.precision_score(vessels, mask),
        "recall": sklearn_metrics.recall_score(vessels, mask),
        "specificity": sklearn_metrics.recall_score(~vessels, ~mask),
        "accuracy": sklearn_metrics.accuracy_score(vessels, mask),
        "mcc": sklearn_metrics.matthews_corrcoef(vessels, mask),
        "auroc": sklearn_metrics.roc_auc_score(vessels, probability),
    }


def test_scores_of_a_picture_agree_with_scikit_learn():
    for probability, vessels, fov in draw_pictures():
        ours = scores(count_picture(probability, vessels, fov, THRESHOLD))
        theirs = sklearn_scores(probability[fov], vessels[fov])
        assert set(ours) == {*theirs, "cldice"} == set(SCORES)
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-4 if name == "auroc" else 1e-12), name


def test_metric_pools_pixels_and_gives_mean_and_sd_over_pictures():
    pictures = list(draw_pictures())
    predictions, references, fov = zip(*pictures, strict=True)
    result = VesselScores(threshold=THRESHOLD).compute(predictions=predictions, references=references, fov=fov)
    pooled = sklearn_scores(*inside(pictures))
    single = [sklearn_scores(p[f], v[f]) for p, v, f in pictures]
    for name, value in pooled.items():
        each = [row[name] for row in single]
        assert result[name] == pytest.approx(value, abs=1e-4)
        assert [row[name] for row in result["pictures"]] == pytest.approx(each, abs=1e-4)
        assert result["mean"][name] == pytest.approx(np.mean(each), abs=1e-4)
        assert result["sd"][name] == pytest.approx(np.std(each, ddof=1), abs=1e-4)


def test_mcc_of_counts_whose_product_exceeds_64_bits():
    billion = 10**9
    counts = Counts(
        true_positives=billion, false_positives=0, false_negatives=0, true_negatives=billion,
        predicted_skeleton=0, predicted_skeleton_hits=0, reference_skeleton=0, reference_skeleton_hits=0,
        histograms=np.zeros((2, BINS), np.int64),
    )  # fmt: skip
    assert scores(counts)["mcc"] == 1.0
    assert math.isnan(scores(counts)["auroc"])


def test_metric_is_one_of_evaluate_and_takes_pictures_one_by_one(tmp_path):
    pictures = list(draw_pictures())
    at_once = VesselScores(threshold=THRESHOLD)
    assert isinstance(at_once, evaluate.Metric)
    assert at_once.name == "vessel_scores"
    predictions, references, fov = (list(column) for column in zip(*pictures, strict=True))
    expected = at_once.compute(predictions=predictions, references=references, fov=fov)
    one_by_one = VesselScores(threshold=THRESHOLD)
    one_by_one.add(prediction=predictions[0], reference=references[0], fov=fov[0])
    one_by_one.add_batch(predictions=predictions[1:], references=references[1:], fov=fov[1:])
    assert len(one_by_one) == 3
    assert one_by_one.compute() == expected
    assert len(one_by_one) == 0
    evaluate.save(tmp_path / "scores.json", **expected)


def test_compute_starts_anew_also_after_an_error():
    metric = VesselScores(threshold=0.5)
    truth = np.eye(9, dtype=bool)
    with pytest.raises(ValueError, match="shape"):
        metric.compute(predictions=[truth, truth[:5]], references=[truth, truth])
    with pytest.raises(ValueError, match="No picture"):
        metric.compute()
    metric.add(prediction=~truth, reference=truth)
    assert metric.compute()["f1"] == 0
    assert metric.compute(predictions=[truth], references=[truth])["f1"] == 1


def test_a_stack_of_pictures_is_taken():
    stack = np.stack([np.eye(6), np.eye(6)[::-1]])
    assert VesselScores(threshold=0.5).compute(predictions=stack, references=stack == 1)["f1"] == 1


def test_plain_lists_are_taken_as_evaluate_takes_them():
    result = VesselScores(threshold=0.5).compute(predictions=[[[0.9, 0.1], [0.8, 0.2]]], references=[[[1, 0], [0, 0]]])
    assert (result["precision"], result["recall"], result["accuracy"]) == (0.5, 1.0, 0.75)
    assert result["auroc"] == 1.0
    assert math.isnan(result["sd"]["f1"])


NAN = math.nan
NOTHING = dict.fromkeys(SCORES, NAN) | {"accuracy": 1.0, "specificity": 1.0}
MISSED = {"f1": 0.0, "precision": NAN, "recall": 0.0, "specificity": NAN, "mcc": NAN, "cldice": 0.0}
INVENTED = {"f1": 0.0, "precision": 0.0, "recall": NAN, "specificity": 0.0, "mcc": NAN, "cldice": 0.0}


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [(False, False, NOTHING), (False, True, MISSED), (True, False, INVENTED)],
)
def test_what_is_not_defined_is_nan(predicted, true, expected):
    shape = (12, 15)
    result = scores(count_picture(np.full(shape, predicted), np.full(shape, true), None, 0.5))
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, nan_ok=True), name


def test_undefined_scores_are_left_out_of_mean_and_sd():
    bar = np.zeros((20, 20), bool)
    bar[8:11, 2:18] = True
    nothing = np.zeros_like(bar)
    result = VesselScores(threshold=0.5).compute(predictions=[bar, bar, nothing], references=[bar, ~bar, nothing])
    assert math.isnan(result["pictures"][2]["f1"])
    assert result["mean"]["f1"] == 0.5
    assert result["sd"]["f1"] == pytest.approx(math.sqrt(0.5))


def test_cldice_of_bars_with_known_skeletons():
    # A bar of odd width has its middle row as skeleton. The prediction is the bar's left half, so its
    # skeleton lies on the truth (precision 1); the truth's skeleton is covered over its left half
    # (sensitivity 1/2 of its length).
    truth = np.zeros((40, 220), bool)
    truth[15:22, 10:210] = True
    prediction = truth.copy()
    prediction[:, 110:] = False
    counts = count_picture(prediction, truth, None, 0.5)
    assert counts.predicted_skeleton_hits == counts.predicted_skeleton
    sensitivity = counts.reference_skeleton_hits / counts.reference_skeleton
    assert sensitivity == pytest.approx(0.5, abs=0.02)  # a skeleton ends a few pixels short of its bar
    assert scores(counts)["cldice"] == pytest.approx(2 / 3, abs=0.02)
    # A bar that swallows the true one is poor by Dice (F1 2/4) and perfect by topology.
    wide = np.zeros_like(truth)
    wide[8:29, 3:217] = True
    assert scores(count_picture(wide, truth, None, 0.5))["cldice"] == 1.0
    assert scores(count_picture(wide, truth, None, 0.5))["f1"] < 0.5


def test_cldice_counts_skeletons_inside_the_field_only_and_pools_their_pixels():
    truth = np.zeros((40, 220), bool)
    truth[15:18, 10:210] = True
    left = np.zeros_like(truth)
    left[:, :110] = True
    wrong_on_the_right = truth & left
    wrong_on_the_right[25:28, 120:200] = True
    assert scores(count_picture(wrong_on_the_right, truth, left, 0.5))["cldice"] == 1.0
    short, long = truth & left, truth
    empty = np.zeros_like(truth)
    pooled = VesselScores(threshold=0.5).compute(predictions=[empty, long], references=[short, long])
    sensitivity = 2 / 3  # 200 of 300 skeleton pixels
    assert pooled["cldice"] == pytest.approx(2 * sensitivity / (1 + sensitivity), abs=0.01)


def test_auroc_of_ties_is_exact_and_of_float_noise_within_its_bound():
    random = np.random.default_rng(0)
    vessels = random.random((300, 200)) < 0.1
    levels = np.round(np.clip(0.3 + 0.2 * vessels + random.normal(0, 0.2, vessels.shape), 0, 1) * 8) / 8
    exact = sklearn_metrics.roc_auc_score(vessels.ravel(), levels.ravel())
    assert auroc(probability_histograms(levels, vessels)) == pytest.approx(exact, abs=1e-12)
    # Saturated like a trained network: nine tenths of all pixels within 0.01 of 0 or 1.
    logits = 12 * (vessels - 0.5) + random.normal(0, 4, vessels.shape)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    histograms = probability_histograms(probability, vessels)
    exact = sklearn_metrics.roc_auc_score(vessels.ravel(), probability.ravel())
    tied = np.sum(histograms[0] / histograms[0].sum() * (histograms[1] / histograms[1].sum()))
    assert abs(auroc(histograms) - exact) <= tied / 2 + 1e-12
    assert tied / 2 < 1e-4


def test_f1_from_histograms_is_that_of_the_pixels_at_every_threshold():
    probability, vessels, fov = next(draw_pictures())
    probability[:3] = np.arange(3 * 47).reshape(3, 47) / 256  # some exactly on bin edges
    thresholds, f1 = calibration._mean_f1([probability_histograms(probability, vessels, fov)])
    for threshold in (1 / 256, 7 / 256, 0.25, 0.5, 0.75, 1 - 1 / BINS):
        (place,) = np.flatnonzero(thresholds == threshold)
        assert f1[place] == pytest.approx(sklearn_metrics.f1_score(vessels[fov], probability[fov] >= threshold))


def test_fitted_threshold_is_the_best_of_all():
    pictures = list(draw_pictures())
    threshold, f1 = fit_threshold([probability_histograms(*picture) for picture in pictures])
    probability, vessels = inside(pictures)
    assert f1 == pytest.approx(sklearn_metrics.f1_score(vessels, probability >= threshold), abs=1e-12)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(vessels, probability)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9))
    assert best - 1e-4 < f1 <= best + 1e-12
    assert abs(threshold - 0.5) > 0.005  # the pictures were drawn so that habit would be wrong


def test_half_of_the_best_f1_is_where_an_honest_probability_is_best_cut():
    rng = np.random.default_rng(0)
    for a, b in ((0.3, 2.0), (0.5, 0.5), (2.0, 6.0)):
        probability = rng.beta(a, b, (1000, 1000))
        honest = probability_histograms(probability, rng.random(probability.shape) < probability)
        (threshold, f1), (fitted, best) = half_of_best_f1([honest]), fit_threshold([honest])
        assert threshold == pytest.approx(best / 2, abs=1e-3)
        assert threshold == pytest.approx(fitted, abs=0.03)
        assert best - 1e-3 < f1 <= best
    with pytest.raises(ValueError, match="0 histograms"):
        half_of_best_f1([])


def test_threshold_of_a_binary_network_is_the_middle():
    mask = np.eye(20, dtype=bool)
    assert fit_threshold([probability_histograms(mask, mask)]) == (0.5, 1.0)


def test_threshold_by_dataset_is_not_outvoted_by_large_photographs():
    def picture(height, low, high):
        """Vessels at `high`, as many false candidates at `low`, so that a threshold between them is right."""
        vessels = np.zeros((height, 10), bool)
        probability = np.zeros(vessels.shape)
        vessels[:, :2], probability[:, :2], probability[:, 2:4] = True, high, low
        return probability_histograms(probability, vessels)

    # Small set: right between 0.1 and 0.3. Large set: right between 0.6 and 0.9, where the small set finds
    # nothing.
    small, large = picture(10, 0.1, 0.3), picture(1000, 0.6, 0.9)
    pooled, _ = fit_threshold([small, large])
    assert 0.6 < pooled <= 0.9
    fair, f1 = fit_threshold([small, small, large], ["small", "small", "large"])
    assert 0.1 < fair <= 0.3
    assert f1 == pytest.approx((1 + 2 / 3) / 2)


def test_fit_threshold_refuses_what_it_cannot_fit():
    nothing = np.zeros((5, 5), bool)
    with pytest.raises(ValueError, match=r"no vessel pixel.*'hrf'"):
        fit_threshold([probability_histograms(nothing, nothing)], ["hrf"])
    with pytest.raises(ValueError, match="0 histograms"):
        fit_threshold([])
    with pytest.raises(ValueError, match="1 histograms and 2 names"):
        fit_threshold([probability_histograms(~nothing, ~nothing)], ["a", "b"])


@pytest.mark.parametrize(
    ("prediction", "reference", "fov", "message"),
    [
        (
            np.full((4, 4), 200, np.uint8),
            np.eye(4, dtype=bool),
            None,
            "from 0.0 to 200.0|from 200.0 to 200.0",
        ),
        (np.full((4, 4), np.nan), np.eye(4, dtype=bool), None, "from nan"),
        (np.full((4, 4), -0.1), np.eye(4, dtype=bool), None, "from -0.1"),
        (np.zeros((4, 4)), np.eye(4) * 255, None, "reference has values from 0.0 to 255.0"),
        (np.zeros((4, 5)), np.eye(4, dtype=bool), None, r"shape \(4, 5\)"),
        (np.zeros(4), np.zeros(4, bool), None, "one photograph"),
        (np.zeros((4, 4)), np.eye(4, dtype=bool), np.zeros((4, 4), bool), "has no pixel"),
    ],
)
def test_wrong_input_is_named(prediction, reference, fov, message):
    with pytest.raises(ValueError, match=message):
        count_picture(prediction, reference, fov, 0.5)


@pytest.mark.parametrize("threshold", [0, -0.2, 1.1, math.nan])
def test_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        VesselScores(threshold)


def test_unequal_numbers_of_pictures_are_refused():
    mask = np.eye(4, dtype=bool)
    with pytest.raises(ValueError, match="2 predictions, 1 references"):
        VesselScores(0.5).add_batch(predictions=[mask, mask], references=[mask])
    with pytest.raises(ValueError, match="1 predictions, 0 references"):
        VesselScores(0.5).compute(predictions=[mask])


def test_reliability_agrees_with_scikit_learn():
    generator = np.random.default_rng(5)
    probability = generator.random((200, 300)).astype(np.float32) * np.float32(0.87)  # the last bin stays empty
    vessels = generator.random((200, 300)) < probability**2
    found = reliability([probability_histograms(probability, vessels)], ["one"], bins=8)  # edges exact in float32
    shares, means = calibration_curve(vessels.ravel(), probability.ravel(), n_bins=8)
    assert found["vessels"] == pytest.approx([*shares, None])
    assert found["probability"][:7] == pytest.approx(means, abs=1e-4)
    assert sum(found["pixels"]) == pytest.approx(1)
    expected = np.average(np.abs(shares - means), weights=found["pixels"][:7])
    assert found["expected_calibration_error"] == pytest.approx(expected, abs=1e-4)


def test_reliability_gives_every_set_the_same_say():
    sure, unsure = np.full((10, 10), 0.9, np.float32), np.full((1000, 1000), 0.5, np.float32)
    half = np.zeros((1000, 1000), bool)
    half[:500] = True
    histograms = [probability_histograms(sure, np.ones((10, 10), bool)), probability_histograms(unsure, half)]
    found = reliability(histograms, ["small", "large"])
    assert found["pixels"][5] == found["pixels"][9] == 0.5
    assert found["expected_calibration_error"] == pytest.approx(0.05, abs=1e-3)


def test_scaling_undoes_a_known_fault_and_leaves_what_is_right_alone():
    generator = np.random.default_rng(6)
    logit = generator.normal(-1, 2, (600, 600))
    vessels = generator.random(logit.shape) < 1 / (1 + np.exp(-logit))
    for slope, offset in ((1.0, 0.0), (0.6, -0.5)):
        said = 1 / (1 + np.exp(-(logit - offset) / slope))
        histograms = [probability_histograms(said.astype(np.float32), vessels)]
        assert fit_scaling(histograms, ["one"]) == pytest.approx((slope, offset), abs=0.03)


def test_scaling_gives_every_set_the_same_say():
    """A small set with half of its pixels vessels, a large one without: said 0.5, meant 0.25."""
    small, large = np.full((10, 10), 0.5, np.float32), np.full((500, 500), 0.5, np.float32)
    histograms = [
        probability_histograms(small, np.indices((10, 10))[0] < 5),
        probability_histograms(large, np.zeros((500, 500), bool)),
    ]
    _, offset = fit_scaling(histograms, ["small", "large"])
    assert 1 / (1 + np.exp(-offset)) == pytest.approx(0.25, abs=0.01)
