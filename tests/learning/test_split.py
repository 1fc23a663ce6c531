"""Validation is split off by patient, from every set, and depends on nothing else."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from resegnet.errors import ArgumentError, DataError
from resegnet.learning.split import split_validation


def eyes(**patients: int) -> datasets.Dataset:
    """Two photographs of each patient; only what splitting looks at."""
    rows = [
        {"dataset": name, "patient": f"{number}", "image_id": f"{name}_{number}_{side}"}
        for name, count in patients.items()
        for number in range(count)
        for side in "LR"
    ]
    return datasets.Dataset.from_list(rows)


def test_validation_is_split_off_by_patient_and_from_every_set():
    whole = eyes(a=10, b=3)
    train, validation = split_validation(whole, 0.2, seed=0)
    assert sorted([*train["image_id"], *validation["image_id"]]) == sorted(whole["image_id"])
    sides = [set(zip(part["dataset"], part["patient"], strict=True)) for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert sorted(name for name, _ in sides[1]) == ["a", "a", "b"]


def test_validation_depends_on_seed_and_patients_alone():
    whole = eyes(a=10, b=6)

    def chosen(rows, seed=0, of="ab"):
        return {eye for eye in split_validation(rows, 0.3, seed)[1]["image_id"] if eye[0] in of}

    shuffled = whole.select(np.random.default_rng(5).permutation(len(whole)))
    assert chosen(shuffled) == chosen(whole)
    assert chosen(eyes(a=10), of="a") == chosen(whole, of="a")
    assert len({frozenset(chosen(whole, seed)) for seed in range(5)}) > 1


def test_a_tiny_set_keeps_a_patient_on_either_side():
    for fraction in (0.01, 0.99):
        train, validation = split_validation(eyes(a=2), fraction, seed=1)
        assert len(train) == len(validation) == 2


def test_a_single_patient_cannot_be_split(caplog):
    train, validation = split_validation(eyes(a=1, b=4), 0.5, seed=0)
    assert "a has a single patient" in caplog.text
    assert set(validation["dataset"]) == {"b"}
    assert {"a", "b"} == set(train["dataset"])
    with pytest.raises(DataError, match="No validation split is possible"):
        split_validation(eyes(a=1), 0.5, seed=0)
    with pytest.raises(ArgumentError, match="between 0 and 1; got 20"):
        split_validation(eyes(a=4), 20, seed=0)
