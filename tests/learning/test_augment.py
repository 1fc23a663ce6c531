"""Crops show the photograph and its vessels at one place, and augmentation changes what it says."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from support.synthetic import draw_fundus

from resegnet.config import Config
from resegnet.learning.augment import Camera, Place, augment, compress_jpeg, cut_crops, draw_camera, draw_place
from resegnet.learning.crops import Crops, WorkingSample, identity_collate
from resegnet.learning.data import Sample, load_vessels, read_sample


def test_the_last_epochs_see_photographs_nearly_as_they_are(folder):
    one = [WorkingSample.of(read_sample(load_vessels(folder, "train")[0]), Config(input_size=192))]
    strong, weak = Crops(one, 160, 0), Crops(one, 160, 0, weak_from=4)
    assert torch.equal(strong[3][0], weak[3][0])
    assert not torch.equal(strong[4][0], weak[4][0])

    def changes(crops):
        lit = [(image[:, masks[1] > 0.99]).mean(dim=1) for image, masks in (crops[place] for place in range(4, 64))]
        lit = torch.stack(lit)
        return (lit - lit.median(dim=0).values).abs().mean(dim=1)

    little = changes(strong).median() / 2
    assert changes(weak).median() < little
    assert 3 < (changes(weak) > little).sum() < 30  # but not all of them: other cameras are not to be forgotten


@pytest.mark.slow
def test_workers_do_not_change_the_crops(folder):
    samples = [WorkingSample.of(read_sample(row), Config(input_size=192)) for row in load_vessels(folder, "train")]
    crops = Crops(samples, 64, seed=4)
    state = torch.get_rng_state()
    expected = [crops[place] for place in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    loader = torch.utils.data.DataLoader(
        crops, batch_size=3, sampler=range(12), num_workers=2, collate_fn=identity_collate
    )
    for index, (image, masks) in enumerate(loader):
        for k in range(3):
            torch.testing.assert_close(image[k], expected[3 * index + k][0], rtol=0, atol=1e-6)  # alone or in a batch
            assert torch.equal(masks[k], expected[3 * index + k][1])
    assert not torch.equal(expected[0][0], Crops(samples, 64, seed=5)[0][0])


def test_augmentation_moves_photograph_and_vessels_together():
    # The picture is its own mask, so whatever the crop does has to happen to both.
    eye = draw_fundus(5, (400, 400))
    planes = torch.from_numpy(np.stack([255 * eye.vessels.astype(np.uint8)] * 4))
    rng = np.random.default_rng(0)
    for _ in range(20):
        (crop,) = cut_crops([planes], [draw_place(rng, np.argwhere(eye.fov), 400)], 128)
        assert crop.shape == (4, 128, 128)
        assert torch.equal(crop[0], crop[3])
        changed = augment(crop[None, :3], [draw_camera(rng)])
        assert changed.shape == (1, 3, 128, 128)
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_crops_turn_freely_but_stand_upright_under_weak_augmentation():
    rng, inside = np.random.default_rng(0), np.argwhere(np.ones((9, 9)))
    strong, weak = ([draw_place(rng, inside, 9, strength) for _ in range(60)] for strength in (1.0, 0.2))
    up = [place.matrix[0, 0] > abs(place.matrix[1, 0]) and not place.flip for place in strong]
    assert 1 < sum(up) < 30
    for place in weak:
        assert not place.flip
        assert place.matrix[1, 0] == 0 and place.matrix[0, 0] == place.matrix[1, 1] > 0
    assert {place.exact for place in weak} == {place.exact for place in strong} == {True, False}


def test_most_weakly_augmented_crops_are_the_photographs_own_pixels():
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)  # each pixel is told by its values
    planes, inside = torch.from_numpy(np.stack([rows, columns])), np.argwhere(np.ones((256, 256)))
    rng = np.random.default_rng(0)
    exact = 0
    for _ in range(60):
        place = draw_place(rng, inside, 256, strength=0.2)
        crop = cut_crops([planes], [place], 64)[0] * 255
        lies_inside = crop[:, (crop > 0).all(dim=0)]
        whole = torch.allclose(lies_inside, lies_inside.round(), atol=1e-4)
        assert whole >= place.exact
        if place.exact:
            exact += 1
    assert 30 < exact < 55
    # So are half of those of strong variation, turned. Down and right in the crop, as (row, column) in the photograph:
    # four turns, and each of them flipped.
    seen = set()
    for place in (draw_place(rng, inside, 256) for _ in range(200)):
        if place.exact:
            crop = cut_crops([planes], [place], 64)[0] * 255
            steps = (crop[:, 33, 32] - crop[:, 32, 32], crop[:, 32, 33] - crop[:, 32, 32])
            seen.add(tuple(round(float(value)) for step in steps for value in step))
    assert seen == {
        (1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0),
        (1, 0, 0, -1), (0, -1, -1, 0), (-1, 0, 0, 1), (0, 1, 1, 0),
    }  # fmt: skip


def test_a_large_photograph_gives_more_of_the_crops():
    samples = [WorkingSample.of(drawn(side), Config(input_size=704, smallest_input_size=192)) for side in (220, 740)]
    small, large = (sample.pixels.shape[0] for sample in samples)
    crops = Crops(samples, 64, seed=0)
    assert 2 * small < 3 * small <= large < 4 * small
    assert [crops.traced.count(photograph) for photograph in dict.fromkeys(crops.traced)] == [1, 3]
    assert len(Crops(samples[1:], 64, seed=0).traced) == 1


def drawn(side: int) -> Sample:
    """Return a synthetic photograph as a sample."""
    eye = draw_fundus(3, (side, side))
    return Sample(eye.image, eye.vessels, eye.fov, "eye", "eye", "synthetic")


def test_a_crop_lies_where_it_is_said_to():
    eye = torch.from_numpy(draw_fundus(7, (300, 300)).image).permute(2, 0, 1)

    def crop(planes, matrix):
        return cut_crops([planes], [Place(160, 140, np.array(matrix), flip=False)], 64)[0]

    exact = crop(eye, [[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(exact, eye[:, 128:192, 108:172] / 255)
    a_little = crop(eye, [[1 + 1e-6, 0.0], [0.0, 1.0]])  # sampled between the pixels, at the pixels
    torch.testing.assert_close(a_little, exact, atol=1e-3, rtol=0)
    down_is_left = np.array([[0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(crop(eye, down_is_left), exact.rot90(1, (-2, -1)))
    torch.testing.assert_close(crop(eye, down_is_left * (1 + 1e-6)), exact.rot90(1, (-2, -1)), atol=1e-3, rtol=0)
    ramp = torch.arange(150, dtype=torch.uint8).repeat_interleave(2).expand(1, 300, 300)
    half = crop(ramp, np.eye(2) / 2)[0, 10] * 255  # twice as large
    assert half[31:33].mean() * 2 + 1 == pytest.approx(140, abs=0.2)
    assert (half[60] - half[4]).item() == pytest.approx(56 / 4, abs=0.3)


PLAIN = Camera(np.ones(3), 1.0, 1.0, 1.0, False, None, None, None, None, None, None, 0)


def test_each_picture_is_augmented_by_its_own_camera():
    eye = draw_fundus(7, (256, 256)).image[64:192, 64:192]
    images = torch.from_numpy(eye).permute(2, 0, 1).float().expand(8, -1, -1, -1) / 255
    changes = [
        {}, {"gains": np.array([0.5, 1, 1])}, {"grey": True}, {"blur": 1.2}, {"sharpness": 2.5}, {"noise": 0.03},
        {"light": np.full((4, 4), -0.3)}, {"haze": np.full((4, 4), 0.5)},
    ]  # fmt: skip
    cameras = [dataclasses.replace(PLAIN, **change) for change in changes]
    plain, red, grey, blurred, sharp, noisy, dark, hazy = augment(images, cameras)
    torch.testing.assert_close(plain, images[0])
    torch.testing.assert_close(red, plain * torch.tensor([0.5, 1, 1]).view(3, 1, 1))
    torch.testing.assert_close(grey, plain[1:2].expand(3, -1, -1))
    expected = ndimage.gaussian_filter(plain.numpy().astype(float), (0, 1.2, 1.2), mode="mirror", radius=3)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)
    assert sharp.diff().abs().mean() > 1.2 * plain.diff().abs().mean() > 1.4 * blurred.diff().abs().mean()
    assert (noisy - plain).std() == pytest.approx(0.03, rel=0.05)
    torch.testing.assert_close(dark, plain * math.exp(-0.3))
    assert (hazy.diff().abs().mean() / plain.diff().abs().mean()).item() == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(hazy.mean(dim=(1, 2)), plain.mean(dim=(1, 2)), atol=5e-3, rtol=0)


@pytest.mark.parametrize("side", [8, 168])  # smaller than what haze looks at, and no multiple of it
def test_haze_keeps_a_slope_of_light(side):
    slope = torch.linspace(0.2, 0.6, side).expand(1, 3, side, side)
    hazy = augment(slope, [dataclasses.replace(PLAIN, haze=np.full((4, 4), 0.5))])
    middle = slice(side // 8, -(side // 8))
    torch.testing.assert_close(
        hazy[..., middle, middle], slope[..., middle, middle], atol=0.1 if side < 16 else 2e-3, rtol=0
    )


@pytest.mark.parametrize("quality", [40, 75, 92])
def test_compression_does_what_jpeg_does(quality):
    eye = draw_fundus(7, (300, 300)).image[80:200, 80:200]  # sides that are no multiple of 16
    file = io.BytesIO()
    Image.fromarray(eye).save(file, "JPEG", quality=quality)
    theirs = np.array(Image.open(file)).astype(float)
    ours = (
        compress_jpeg(torch.from_numpy(eye).permute(2, 0, 1)[None].float() / 255, [quality])[0].permute(1, 2, 0) * 255
    )
    lost = np.abs(theirs - eye).mean()
    assert lost > 0.5
    assert np.abs(ours.numpy() - theirs).mean() < 0.35 * lost + 0.3


def test_a_working_sample_comes_back_from_its_file_and_a_damaged_file_counts_as_none(tmp_path):
    looks = Config(encoder="two-looks", encoder_depth=2, decoder_channels=(16, 16), input_size=192, context_size=96,
                   context_channels=(32, 16, 16))  # fmt: skip
    eye = draw_fundus(3, (220, 220))
    sample = Sample(eye.image, eye.vessels, eye.fov, "eye", "eye", "synthetic")
    path = tmp_path / "eye.npz"
    for config, kinds in ((Config(input_size=192), None), (looks, None), (looks, (eye.arteries, eye.veins))):
        saved = WorkingSample.of(sample, config, kinds=kinds)
        saved.save(path)
        loaded = WorkingSample.load(path, "synthetic")
        assert loaded.dataset == "synthetic" and loaded.kinds_known == saved.kinds_known == (kinds is not None)
        for name in ("pixels", "vessels", "field", "centrelines", "context"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no archive"):  # as a full disk or a kill leaves it
        path.write_bytes(content)
        assert WorkingSample.load(path, "synthetic") is None
    path.unlink()
    assert WorkingSample.load(path, "synthetic") is None
