"""Options of a network of two looks that contradict each other are refused."""

import pytest

import train as train_script
from resegnet.errors import TrainingError
from resegnet.learning.options import PRESETS, TrainingOptions


def test_both_branches_learn_between_context_and_detail_epochs():
    short = {**PRESETS["two-looks"], "dataset": ("any",), "epochs": 100, "detail_epochs": 50}
    with pytest.raises(TrainingError, match="are 50 and 50, expected fewer than the 100 of --epochs together"):
        TrainingOptions(**short | {"context_epochs": 50})
    assert TrainingOptions(**short | {"context_epochs": 49}).context_epochs == 49
    assert TrainingOptions(**short | {"epochs": 0, "start_from": "a"}).context_epochs == 100  # scores a release
    with pytest.raises(TrainingError, match="--context-epochs needs a network of two looks"):
        TrainingOptions(dataset=("any",), context_epochs=1)


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 53, 529])
def test_fewer_epochs_shorten_every_phase_and_leave_none_out(epochs):
    options = TrainingOptions(
        **train_script._shortened(PRESETS["two-looks"], epochs) | {"dataset": ("any",), "epochs": epochs}
    )
    assert options.context_epochs >= 1
    assert options.context_epochs + options.detail_epochs < epochs


def test_self_training_needs_a_parent_of_two_looks():
    with pytest.raises(TrainingError, match="--self-training needs a network of two looks"):
        TrainingOptions(dataset=("any",), self_training=True, start_from="bundled")
    with pytest.raises(TrainingError, match="--self-training needs a network that tells arteries from veins"):
        TrainingOptions(**PRESETS["two-looks"] | {"dataset": ("any",), "context_epochs": 0})


def test_a_context_branch_that_would_never_learn_is_refused():
    short = {**PRESETS["two-looks"], "dataset": ("any",), "epochs": 20, "context_epochs": 0, "self_training": False}
    with pytest.raises(TrainingError, match="--detail-epochs is 380, expected fewer than the 20 of --epochs"):
        TrainingOptions(**short)
    assert TrainingOptions(**short | {"detail_epochs": 19}).epochs == 20
    assert TrainingOptions(**short | {"start_from": "parent"}).detail_epochs == 380  # its context has learned


def test_detail_epochs_need_a_detail_branch():
    with pytest.raises(TrainingError, match="--detail-epochs needs a network of two looks"):
        TrainingOptions(dataset=("any",), detail_epochs=1)
    with pytest.raises(TrainingError, match="--detail-from needs a network of two looks"):
        TrainingOptions(dataset=("any",), detail_from="bundled")
