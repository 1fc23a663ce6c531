"""Losses are least at the truth and count the field of view only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resegnet.config import Config
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import Sample
from resegnet.learning.losses import bce_dice_loss, centreline_loss


def test_loss_counts_the_field_only():
    logits = torch.zeros(1, 1, 8, 8)
    vessels = torch.zeros(1, 1, 8, 8)
    field = torch.zeros(1, 1, 8, 8)
    field[..., :4] = 1
    vessels[..., 2:4] = 1
    before = bce_dice_loss(logits, vessels, field)
    logits[..., 4:] = 30  # wrong, and outside
    assert torch.equal(bce_dice_loss(logits, vessels, field), before)
    perfect = torch.where(vessels > 0, 30.0, -30.0)
    assert bce_dice_loss(perfect, vessels, field) < 1e-4
    assert bce_dice_loss(-perfect, vessels, field) > 10


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_without_dice_the_loss_is_least_at_the_truth(share):
    vessels = torch.rand(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)).lt(share).float()
    field, answers = torch.ones_like(vessels), torch.linspace(-6, 6, 241)
    least = {}
    for weight in (0.0, 1.0):
        losses = [bce_dice_loss(torch.full_like(vessels, z), vessels, field, weight) for z in answers.tolist()]
        least[weight] = torch.sigmoid(answers[torch.stack(losses).argmin()]).item()
    assert least[0.0] == pytest.approx(share, abs=0.02)
    assert least[1.0] > share + 0.03


def test_centreline_loss_counts_a_thin_vessel_as_a_wide_one_of_its_length():
    vessels = np.zeros((96, 96), np.uint8)
    vessels[20:32, 8:88] = 255
    vessels[60:62, 8:88] = 255
    flat = np.full((96, 96, 3), 90, np.uint8)
    sample = Sample(flat, vessels > 0, fov=None, image_id="eye", patient="eye", dataset="synthetic")
    masks = WorkingSample.of(sample, Config(input_size=96)).planes()[None, 3:] / 255
    truth, field, lines = masks.split(1, dim=1)
    wide, thin = truth.clone(), truth.clone()
    wide[..., 48:, :] = 0
    thin[..., :48, :] = 0
    missed = [float(centreline_loss(20 * found - 10, lines, field)) for found in (truth, wide, thin, 0 * truth)]
    assert missed[0] < 0.25  # lines are three pixels wide, thin vessels two
    assert abs(missed[1] - missed[2]) < 0.3
    assert missed[3] > 0.98
    assert float(centreline_loss(20 * wide - 10, lines, torch.where(truth > 0, wide, field))) < 0.25
