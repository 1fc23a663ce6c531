"""Arteries and veins that a network tells of photographs without labels are kept in files."""

import dataclasses

import numpy as np
import pytest
import torch
from support.synthetic import draw_fundus

from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.parents import ParentRelease
from resegnet.learning.self_training import KindsTeacher, tell_kinds


@pytest.mark.slow
def test_kinds_that_were_told_are_kept_for_the_next_resume(tmp_path):
    parent = ParentRelease.find("--start-from", "bundled")
    teacher = KindsTeacher.of_release(parent, torch.device("cpu"))
    eye = draw_fundus(3, (192, 192))
    planes = np.stack([*eye.image.transpose(2, 0, 1), np.full((192, 192), 255, np.uint8)])
    samples = [AnatomySample(planes, None, None, "eye")]
    (told,) = tell_kinds(samples, teacher, tmp_path)
    assert told.kinds.shape == (2, 192, 192)
    assert (told.kinds > 0).any(axis=(1, 2)).all()
    (told_mirrored,) = tell_kinds([dataclasses.replace(samples[0], planes=planes[:, :, ::-1])], teacher, tmp_path)
    same = told_mirrored.kinds[:, :, ::-1] == told.kinds
    assert same.mean() > 0.97  # the mean of mirror images does not depend on which of them came

    class Absent:
        digest = teacher.digest

    (again,) = tell_kinds(samples, Absent(), tmp_path)
    assert np.array_equal(again.kinds, told.kinds)


def test_kinds_are_told_anew_where_their_file_is_damaged(tmp_path):
    class Teacher:
        digest = "any"
        calls = 0

        def __call__(self, image):
            self.calls += 1
            return image[..., 0] > 127, image[..., 1] > 127

    planes = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    samples, teacher = [AnatomySample(planes, None, None, "eye")], Teacher()
    (told,) = tell_kinds(samples, teacher, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", whole[: len(whole) // 2], bytes(flipped)):  # as a full disk or a power failure leaves it
        path.write_bytes(content)
        (again,) = tell_kinds(samples, teacher, tmp_path)
        assert np.array_equal(again.kinds, told.kinds)
        assert path.read_bytes() == whole
    assert teacher.calls == 4
