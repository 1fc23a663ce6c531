"""From a photograph to its vessels, with networks whose answer is known."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.synthetic import draw_fundus

from resegnet import Config, ImageError, Segmenter
from resegnet.errors import ArgumentError, ConfigError, WeightsError
from resegnet.hub import BUNDLED_RELEASES


def green(rgb: np.ndarray) -> np.ndarray:
    """Return the green channel, in place of a network."""
    return rgb[:, 1]


@pytest.mark.parametrize("size", [(584, 565), (960, 999), (700, 1300)])
def test_results_line_up_with_the_photograph(size):
    image = draw_fundus(1, size).image
    result = Segmenter(green, Config())(image)
    assert result.image.tobytes() == image.tobytes()
    assert result.probability.shape == result.fov.shape == result.mask.shape == size
    assert result.probability.dtype == np.float32
    truth = image[..., 1].astype(np.float32) / 255
    # The rim is left out, since scaling blurs the edge of the field.
    inner = np.zeros(size, bool)
    inner[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = True
    inner &= result.fov

    def difference(rows: int, columns: int) -> float:
        moved = np.roll(result.probability, (rows, columns), (0, 1))
        return float(np.abs(moved - truth)[inner].mean())

    here = difference(0, 0)
    assert here < 0.02
    for shift in [(1, 0), (-1, 0), (0, 1), (0, -1)]:
        assert difference(*shift) > here


def test_mask_is_the_probability_at_the_threshold_inside_the_field(drawn):
    result = Segmenter(green, Config(threshold=0.4))(drawn.image)
    assert np.array_equal(result.mask, (result.probability >= 0.4) & result.fov)
    assert not result.mask[~result.fov].any()
    assert result.mask.any()


def test_another_threshold_needs_no_second_forward_pass(drawn):
    calls = []

    def counting(rgb):
        calls.append(rgb.shape)
        return green(rgb)

    result = Segmenter(counting, Config(threshold=0.3))(drawn.image)
    other = result.at(0.5)
    assert calls == [(1, 3, 768, 768)]
    assert other.threshold == 0.5
    assert result.threshold == 0.3
    assert other.mask.sum() < result.mask.sum()
    assert result.at(np.float32(0.5)) == other
    for bad in (-0.1, 1.5, float("nan"), "a", "0.5", None):
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            result.at(bad)


def test_a_folder_that_is_no_release_is_named_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Segmenter.from_pretrained(tmp_path)
    assert str(caught.value) == (f"{tmp_path} holds no config.json; expected the folder of a release: check the path.")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError) as caught:
        Segmenter.from_pretrained(tmp_path)
    assert str(caught.value).count(str(tmp_path)) == 1


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, drawn, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(BUNDLED_RELEASES["bundled-cc-by"], tmp_path / "release")
    assert Segmenter.from_pretrained("~/release").folder == tmp_path / "release"
    Segmenter(green, Config())(drawn.image).save("~/out", "eye")
    assert (tmp_path / "out" / "eye_mask.png").is_file()


def test_a_file_gives_what_its_pixels_give_and_one_that_is_no_picture_is_named(tmp_path, drawn):
    segmenter = Segmenter(green, Config())
    Image.fromarray(drawn.image).save(tmp_path / "eye.png")
    assert segmenter(tmp_path / "eye.png") == segmenter(drawn.image)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError, match=r"notes\.txt"):
        segmenter(tmp_path / "notes.txt")


def test_a_picture_of_something_else_brings_a_warning():
    from skimage import data

    segmenter = Segmenter(green, Config(threshold=0.2))  # finds many vessels everywhere
    assert segmenter(data.astronaut()).warnings
    assert not segmenter(data.retina()).warnings


@pytest.mark.slow
def test_the_bundled_model_finds_vessels_twice_as_wide_as_well():
    """Cameras of a narrower field show wider vessels; a model trained on few widths lost 0.12 of sensitivity there."""
    segmenter = Segmenter.from_pretrained()
    found = {size: np.zeros(2, int) for size in (760, 1520)}
    for seed in range(5):
        drawn = draw_fundus(seed, (760, 760))
        for size in found:
            photograph, vessels = (
                np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BICUBIC))
                for part in (drawn.image, drawn.vessels.astype(np.uint8) * 255)
            )
            mask, vessels = segmenter(photograph).mask, vessels > 127
            found[size] += np.count_nonzero(mask & vessels), np.count_nonzero(vessels)
    sensitivity = {size: hits / there for size, (hits, there) in found.items()}
    assert sensitivity[760] > 0.85
    assert sensitivity[1520] > sensitivity[760] - 0.09


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_it_can_be_pickled_and_predicts_the_same(engine, drawn, monkeypatch, tmp_path):
    segmenter = Segmenter.from_pretrained("bundled-cc-by", engine=engine)
    content = pickle.dumps(segmenter)
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(content)
    assert (copy.config, copy.model, copy.folder) == (segmenter.config, segmenter.model, segmenter.folder)
    assert type(copy.network) is type(segmenter.network)
    assert np.array_equal(copy(drawn.image).probability, segmenter(drawn.image).probability)


@pytest.mark.slow
def test_a_pickled_path_does_not_depend_on_the_working_folder(drawn, monkeypatch, tmp_path):
    shutil.copytree(BUNDLED_RELEASES["bundled"], tmp_path / "release")
    monkeypatch.chdir(tmp_path)
    segmenter = Segmenter.from_pretrained("release", engine="onnx")
    content = pickle.dumps(segmenter)
    monkeypatch.chdir("/")
    assert np.array_equal(pickle.loads(content)(drawn.image).probability, segmenter(drawn.image).probability)


def test_another_file_in_the_place_of_a_pickled_one_is_refused(monkeypatch, tmp_path):
    shutil.copytree(BUNDLED_RELEASES["bundled"], tmp_path / "release")
    content = pickle.dumps(Segmenter.from_pretrained(tmp_path / "release", engine="onnx"))
    file = tmp_path / "release" / "model.onnx"
    file.write_bytes((BUNDLED_RELEASES["bundled-cc-by"] / "model.onnx").read_bytes())
    with pytest.raises(WeightsError, match="not the file that was pickled"):
        pickle.loads(content)
    file.unlink()
    with pytest.raises(WeightsError, match="there is no such file"):
        pickle.loads(content)


def test_a_revision_of_a_folder_is_refused():
    with pytest.raises(ArgumentError, match=r"revision v1 .* leave it out"):
        Segmenter.from_pretrained(BUNDLED_RELEASES["bundled"], revision="v1")


@pytest.mark.parametrize("device", [None, 0, "gpu", "cuda:99"])
def test_a_device_that_torch_lacks_is_refused_whatever_its_type(device):
    with pytest.raises(ArgumentError, match="torch sees no such device"):
        Segmenter.from_pretrained(device=device)


def test_a_device_may_be_that_of_torch():
    assert Segmenter.from_pretrained(device=torch.device("cpu"), engine="torch").tells_anatomy


def test_a_file_in_place_of_the_folder_of_a_release_is_named():
    with pytest.raises(ArgumentError, match=r"model\.onnx is a file, expected the folder of a release"):
        Segmenter.from_pretrained(BUNDLED_RELEASES["bundled"] / "model.onnx")


def test_a_release_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="check the name"):
        Segmenter.from_pretrained(tmp_path / "absent")
