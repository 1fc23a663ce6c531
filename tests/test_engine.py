"""The two engines agree, and many photographs at a time come back in order."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from onnx import load
from PIL import Image
from support import PATIENCE_S
from support.exports import quick_releases
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, ImageError, ReSegNet, Segmenter
from resegnet.cohort.threads import segment_many
from resegnet.engine import OnnxNetwork, TorchNetwork, processor_quota
from resegnet.errors import ArgumentError, WeightsError
from resegnet.hub import BUNDLED_RELEASES
from resegnet.releases.quantise import write_onnx
from resegnet.segmenter import prepare_input

CONFIG = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8), input_size=128)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [prepare_input(draw_fundus(seed, (160, 160)).image, CONFIG)[0] for seed in range(4)]


@pytest.fixture(scope="module")
def model() -> ReSegNet:
    torch.manual_seed(3)
    return ReSegNet(CONFIG).eval()


@pytest.fixture(scope="module")
def onnx(model, photographs, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(model, photographs, path)
    return path


@pytest.mark.slow
def test_the_quantised_network_answers_as_the_trained_one(model, onnx, photographs):
    batch = np.stack([pixels.transpose(2, 0, 1).astype(np.float32) / 255 for pixels in photographs[:3]])
    fast, slow = OnnxNetwork(onnx, CONFIG.input_size)(batch), TorchNetwork(model)(batch)
    assert fast.shape == slow.shape == (3, 128, 128)
    assert fast.dtype == np.float32
    assert np.abs(fast - slow).mean() < 0.15 * slow.std()
    for one, other in zip(fast, slow, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_the_file_tells_nothing_of_the_machine_that_exported_it(onnx):
    for path in (onnx, *(folder / "model.onnx" for folder in BUNDLED_RELEASES.values())):
        content = path.read_bytes()
        assert b'File "' not in content and b"site-packages" not in content


@pytest.mark.slow
def test_tests_that_trace_once_get_the_network_that_is_exported(model, onnx, photographs, tmp_path):
    """Guards the short cut of the tests themselves, `support.exports`."""

    def graph(path):
        network = load(path)
        for node in network.graph.node:
            node.name = ""
        return network

    with quick_releases():
        write_onnx(ReSegNet(CONFIG).eval(), photographs, tmp_path / "other.onnx")
        write_onnx(model, photographs, tmp_path / "shared.onnx")
    assert graph(tmp_path / "shared.onnx") == graph(onnx) != graph(tmp_path / "other.onnx")


@pytest.mark.slow
def test_at_every_size_of_a_range_it_answers_as_the_trained_one(tmp_path):
    torch.manual_seed(3)
    # The first encoder has paddings that the export would compute from the size; the second decoder has all its stages.
    # The plain network takes the photograph's own 8 bits; all of its few random channels are rounded.
    raw = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    kinds = [
        ("tu-tf_efficientnet_lite0", (8, 8), {}, 0.98),
        ("resnet18", (8, 8, 4), {}, 0.98),
        ("plain", (16, 16, 16), raw, 0.9),
    ]
    for number, (encoder, channels, more, least) in enumerate(kinds):
        sizes = {"input_size": 256, "smallest_input_size": 128}
        config = Config(encoder=encoder, encoder_depth=3, decoder_channels=channels, **sizes, **more)
        model, path = ReSegNet(config).eval(), tmp_path / f"{number}.onnx"
        squares = [prepare_input(draw_fundus(1, (side, side)).image, config)[0] for side in (128, 170, 220, 400)]
        assert [len(square) for square in squares] == [160, 192, 224, 256]
        write_onnx(model, squares, path)
        for square in squares:
            batch = square.transpose(2, 0, 1).astype(np.float32)[None] / 255
            fast, slow = OnnxNetwork(path, None)(batch), TorchNetwork(model)(batch)
            assert fast.shape == slow.shape == (1, *square.shape[:2])
            assert np.corrcoef(fast.ravel(), slow.ravel())[0, 1] > least
        with pytest.raises(WeightsError, match="states 256 px"):
            OnnxNetwork(path, 256)


@pytest.mark.slow
def test_it_does_not_depend_on_the_number_of_threads(onnx, photographs):
    batch = photographs[0].transpose(2, 0, 1).astype(np.float32)[None] / 255
    answers = [OnnxNetwork(onnx, CONFIG.input_size, threads)(batch) for threads in (1, 2)]
    assert np.array_equal(*answers)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["cut", "text", "missing", "size", "range"])
def test_a_bad_file_is_one_sentence(onnx, tmp_path, spoil):
    path, size = tmp_path / "model.onnx", CONFIG.input_size
    if spoil == "size":
        path, size = onnx, 256
    elif spoil == "range":
        path, size = onnx, None
    elif spoil != "missing":
        path.write_bytes(onnx.read_bytes()[: 1000 if spoil == "cut" else 0] or b"<html>")
    with pytest.raises(WeightsError, match='use engine="torch"'):
        OnnxNetwork(path, size)


@pytest.mark.slow
def test_the_bundled_release_takes_the_fast_engine_and_both_find_the_same_vessels():
    fast, slow = Segmenter.from_pretrained(), Segmenter.from_pretrained(engine="torch")
    assert isinstance(fast.network, OnnxNetwork)
    assert isinstance(slow.network, TorchNetwork)
    scores = {}
    for name, segmenter in (("fast", fast), ("slow", slow)):
        hits = total = 0
        for seed in (211, 212, 213):
            eye = draw_fundus(seed)
            mask = segmenter(eye.image).mask
            hits, total = hits + 2 * (mask & eye.vessels).sum(), total + mask.sum() + eye.vessels.sum()
        scores[name] = hits / total
    assert scores["slow"] > 0.6
    assert abs(scores["fast"] - scores["slow"]) < 0.005


@pytest.mark.slow
def test_threads_hold_for_pytorch_too():
    before = torch.get_num_threads()
    try:
        Segmenter.from_pretrained("bundled-vessels", engine="torch", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_container_may_use_its_share_of_the_processors(files, quota, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processor_quota(tmp_path) == quota


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(ArgumentError, match=r"threads is .*, expected a whole number"):
        Segmenter.from_pretrained(threads=threads)


@pytest.mark.parametrize("options", [{"engine": "tensorrt"}, {"engine": "onnx", "device": "cuda"}, {"device": "gpu"}])
def test_an_unknown_engine_or_device_is_refused(options):
    with pytest.raises(ArgumentError, match=r"expected 'onnx'|no such device"):
        Segmenter.from_pretrained(**options)


def test_many_photographs_give_what_single_calls_give_in_order(tmp_path):
    paths = []
    for seed, size in enumerate([(160, 160), (300, 260), (128, 200), (200, 128), (160, 161)]):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(draw_fundus(seed, size).image).save(paths[-1])
    paths.insert(2, tmp_path / "no_picture.png")
    paths[2].write_text("text")
    segmenter = Segmenter(DarkOnGreen(), CONFIG)
    outcomes = list(segment_many(segmenter, paths, lambda path, result: result.probability, workers=3))
    assert [path for path, _ in outcomes] == paths
    for path, outcome in outcomes:
        if path == paths[2]:
            assert isinstance(outcome, ImageError)
        else:
            assert np.array_equal(outcome, segmenter(path).probability)


@pytest.mark.slow
def test_the_queue_does_not_grow_with_the_number_of_photographs(drawn):
    taken, finished, most = 0, 0, 0
    lock = threading.Lock()

    def sources():
        nonlocal taken
        for _ in range(40):
            with lock:
                taken += 1
            yield drawn.image

    for _ in segment_many(Segmenter(DarkOnGreen(), CONFIG), sources(), lambda *_: None, workers=2):
        finished += 1
        most = max(most, taken - finished)
    assert finished == 40
    assert most <= 5


def test_a_caller_that_stops_early_leaves_no_work_behind(drawn):
    calls, go_on, threads = [], threading.Event(), threading.active_count()

    def network(rgb):
        calls.append(rgb.shape)
        if len(calls) > 1:
            go_on.wait(PATIENCE_S)
        return rgb[:, 1]

    outcomes = segment_many(Segmenter(network, CONFIG), [drawn.image] * 50, lambda *_: None, workers=1)
    next(outcomes)
    release = threading.Timer(0.2, go_on.set)
    release.start()
    outcomes.close()
    release.join()
    assert len(calls) <= 2  # one was under way; a third was waiting
    assert threading.active_count() == threads
