"""A network of two looks: its branches meet at one place, and both engines give one answer."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.stand_in import GreenTwice
from support.synthetic import draw_fundus

from resegnet import Config, ReSegNet, Segmenter
from resegnet.engine import OnnxNetwork, TorchNetwork
from resegnet.errors import ArgumentError, WeightsError
from resegnet.learning.label import MirroredNetwork
from resegnet.releases.quantise import write_onnx
from resegnet.segmenter import predict, prepare_context, prepare_input

CONFIG = Config(
    encoder="two-looks",
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=192,  # twice the context: the resize between the branches is one of 2, as those of the decoders
    smallest_input_size=128,
    context_size=96,
    context_channels=(32, 16, 16),
    mean=(0, 0, 0),
    std=(1, 1, 1),
)


WITH_ENCODER = dataclasses.replace(
    CONFIG, context_encoder="tu-tf_efficientnet_lite0", context_channels=(32, 16, 16, 16)
)


def drawn(config: Config) -> ReSegNet:
    """Return a network of random weights, also where training starts from zeros, with features of a moderate size.

    Without statistics of batch normalisation, features grow from layer to layer, and 8 bits do not hold them.
    """
    torch.manual_seed(0)
    model = ReSegNet(config)
    torch.nn.init.normal_(model.net.detail.beside.weight, std=0.1)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the mean over all batches
    for side in (128, 180, 400):
        pixels, context = (torch.from_numpy(square).permute(2, 0, 1)[None] / 255 for square in looks(side))
        with torch.no_grad():
            model.train()(pixels, context)
    return model.eval()


@pytest.fixture(scope="module", params=[CONFIG, WITH_ENCODER], ids=["residual blocks", "encoder"])
def model(request) -> ReSegNet:
    return drawn(request.param)


def looks(side: int) -> tuple[np.ndarray, np.ndarray]:
    image = draw_fundus(1, (side, side)).image
    pixels, _, geometry = prepare_input(image, CONFIG)
    context = prepare_context(image, geometry, CONFIG)
    assert context is not None
    return pixels, context


def test_it_gives_logits_of_both_looks_and_comes_back_as_it_was(model, tmp_path):
    detail, context = torch.rand(2, 3, 128, 128), torch.rand(3, 3, 96, 96)
    places = torch.eye(2, 3)[None].repeat(2, 1, 1)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        vessels, around = model(detail, context, places)
        assert vessels.shape == (2, 1, 128, 128)
        assert around.shape == (3, 5, 96, 96)
        # A place that is the whole square is what prediction takes.
        torch.testing.assert_close(model(detail, context[:2])[0], vessels)
        assert torch.equal(ReSegNet.from_pretrained(tmp_path)(detail, context, places)[0], vessels)


def test_the_context_reaches_the_vessels_where_it_lies():
    model = drawn(CONFIG)  # an encoder sees so small a context whole from everywhere
    detail, context = torch.full((1, 3, 192, 192), 0.5), torch.full((1, 3, 96, 96), 0.5)
    spot = context.clone()
    spot[..., 20:26, 60:66] = 1
    with torch.inference_mode():
        change = (model(detail, spot)[0] - model(detail, context)[0]).abs()[0, 0]
    weight = change / change.sum()
    steps = torch.arange(192) + 0.5
    centre = [float((weight.sum(axis) * steps).sum()) for axis in (1, 0)]
    assert np.allclose(centre, (46, 126), atol=6)


def test_the_context_is_the_same_square_of_the_photograph():
    image = draw_fundus(3, (190, 210)).image
    pixels, _, geometry = prepare_input(image, CONFIG)
    context = prepare_context(image, geometry, CONFIG)
    assert context is not None
    assert context.shape == (96, 96, 3)
    assert pixels.shape == (192, 192, 3)
    halved = pixels.reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(halved - context).mean() < 2
    assert prepare_context(image, geometry, Config()) is None


def test_a_network_of_one_look_is_refused_where_two_are_needed():
    with pytest.raises(ArgumentError, match="look_twice"):
        Segmenter(lambda rgb: rgb[:, 0], CONFIG)(draw_fundus(5, (130, 130)).image)


def test_an_ensemble_sees_mirror_images_of_both_looks(model):
    network = TorchNetwork(model)
    rgb, context = np.random.default_rng(0).random((2, 1, 3, 96, 96), np.float32)
    found, anatomy = MirroredNetwork(network).look_twice(rgb, context)
    mirrored, its_anatomy = MirroredNetwork(network).look_twice(rgb[..., ::-1].copy(), context[..., ::-1].copy())
    assert np.allclose(found, mirrored[..., ::-1], atol=1e-5)
    assert np.allclose(anatomy, its_anatomy[..., ::-1], atol=1e-5)


@pytest.mark.slow
def test_both_engines_answer_alike_at_every_size(model, tmp_path):
    path = tmp_path / "model.onnx"
    squares = [looks(side) for side in (128, 150, 180, 400)]
    assert [len(pixels) for pixels, _ in squares] == [160, 160, 192, 192]
    write_onnx(model, squares, path)
    fast, slow = OnnxNetwork(path, None, context_size=96), TorchNetwork(model)
    for pixels, context in squares:
        for one, other in zip(predict(fast, pixels, context), predict(slow, pixels, context), strict=True):
            assert one is not None
            assert other is not None
            assert one.shape == other.shape
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98
    again = pickle.loads(pickle.dumps(fast))
    assert np.array_equal(predict(again, *squares[0])[0], predict(fast, *squares[0])[0])
    result = Segmenter(fast, CONFIG)(draw_fundus(5, (170, 150)).image)
    assert result.probability.shape == (170, 150)
    for unfit in (None, 64):
        with pytest.raises(WeightsError, match="second look"):
            OnnxNetwork(path, None, context_size=unfit)


@pytest.mark.slow
def test_rows_that_the_frame_cuts_off_are_not_computed(model, tmp_path):
    image = draw_fundus(1, (180, 180)).image[50:-50]
    pixels, _, geometry = prepare_input(image, CONFIG)
    context = prepare_context(image, geometry, CONFIG)
    assert context is not None
    write_onnx(model, [(pixels, context)], tmp_path / "model.onnx")
    for network in (OnnxNetwork(tmp_path / "model.onnx", None, context_size=96), TorchNetwork(model)):
        seen = []

        class Spy:
            takes_rectangles = True

            def look_twice(self, rgb, context, network=network, seen=seen):
                seen.append(rgb.shape[2:])
                return network.look_twice(rgb, context)

        spy = Spy()
        found, anatomy = predict(spy, pixels, context)
        spy.takes_rectangles = False
        whole, its_anatomy = predict(spy, pixels, context)
        assert seen == [(128, 192), (192, 192)]
        assert np.array_equal(anatomy, its_anatomy)
        filled = pixels.any(axis=(1, 2))
        assert np.corrcoef(found[filled].ravel(), whole[filled].ravel())[0, 1] > 0.99
        shifted = np.roll(found, 2, axis=0)
        assert np.corrcoef(shifted[filled].ravel(), whole[filled].ravel())[0, 1] < 0.99


def test_the_anatomy_lines_up_with_the_photograph_and_can_be_left_out():
    image = draw_fundus(1, (400, 500)).image
    result = Segmenter(GreenTwice(), CONFIG)(image)
    probability = result.kind_probability
    assert probability.shape == (2, 400, 500)
    inner = np.zeros((400, 500), bool)
    inner[100:-100, 150:-150] = True
    truth = image[..., 1] / 255
    here = np.abs(probability[0] - truth)[inner].mean()
    for shift in [(3, 0), (-3, 0), (0, 3), (0, -3)]:
        assert np.abs(np.roll(probability[0], shift, (0, 1)) - truth)[inner].mean() > here
    assert np.array_equal(result.arteries | result.veins, result.mask)
    assert not probability[:, ndimage.distance_transform_edt(~result.fov) > 14].any()  # 3 px of the second look
    without = Segmenter(GreenTwice(), CONFIG, anatomy=False)(image)
    assert without.anatomy is None
    assert np.array_equal(without.mask, result.mask)
