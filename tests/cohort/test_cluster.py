"""`--engine ray`: two processes of a cluster on this machine give the results of the plain run, also if they die."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter, read_image
from resegnet.__main__ import main
from resegnet.cohort import cluster
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.work import CohortOptions
from resegnet.geometry import as_network_input
from resegnet.io import png
from resegnet.segmenter import prepare_input

ray = pytest.importorskip("ray", reason='the cluster needs pip install "resegnet[ray]"')

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what Ray and its processes leave open


class Bright:
    """Find bright pixels; kill the process once at its second photograph, or at each photograph of a brightness."""

    def __init__(self, killed: str | None = None, deadly: float | None = None) -> None:
        self.killed = killed
        self.deadly = deadly
        self.calls = 0

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.killed is not None and self.calls == 2 and not Path(self.killed).exists():
            Path(self.killed).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deadly is not None and abs(rgb.mean() - self.deadly) < 1e-6:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ascontiguousarray(rgb[:, 1])


@pytest.fixture(scope="module", autouse=True)
def processes():
    """One Ray instance with two processors."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")  # on a busy machine
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import it
    ray.init(num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(8):
        (folder / f"p{number % 3}").mkdir(exist_ok=True)
        (folder / f"p{number % 3}/{number}.png").write_bytes(png(draw_fundus(number, (130, 140)).image))
    (folder / "p0/broken.png").write_text("no picture")
    return folder


@pytest.fixture
def segment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, network):
        segmenter = Segmenter(network, Config(input_size=96, threshold=0.4), "bright")
        monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
        return main(["segment", *map(str, arguments)])

    return run


def tree(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    # The one file or shard of the table, by the same name.
    return {name.replace("results/part-00000", "results"): path.read_bytes() for name, path in files.items()}


def test_a_worker_killed_in_the_middle_costs_nothing_and_every_byte_is_that_of_the_plain_run(
    photographs, segment, tmp_path
):
    assert segment(photographs, "--out", "plain", network=Bright()) == 1
    network = Bright(str(tmp_path / "killed"))
    assert segment(photographs, "--out", "ray", "--engine", "ray", "--workers", 2, network=network) == 1
    assert (tmp_path / "killed").exists()
    assert tree(tmp_path / "ray") == tree(tmp_path / "plain")
    table = pq.read_table(tmp_path / "ray/results")
    assert table.num_rows == 8
    assert len(set(table.column("vessel_area_px").to_pylist())) > 5

    (tmp_path / "ray/masks/p1_1.png").unlink()
    assert segment(photographs, "--out", "ray", "--engine", "ray", "--resume", network=Bright()) == 1
    assert tree(tmp_path / "ray") == tree(tmp_path / "plain")


def test_a_photograph_that_kills_every_worker_is_a_failure_and_the_others_are_done(
    photographs, segment, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "_CRASHES", 2)  # a new worker takes long to start
    monkeypatch.setattr(cluster, "_share_size", lambda *_: 3)  # all three photographs
    image = read_image(photographs / "p1/4.png")
    deadly = float(as_network_input(prepare_input(image, Config(input_size=96))[0]).mean())
    network = Bright(deadly=deadly)
    assert segment(photographs / "p1", "--out", "ray", "--engine", "ray", "--workers", 1, network=network) == 1
    failures = (tmp_path / "ray/failures.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in failures] == ["id", "4"]
    assert "crashed 2 workers" in failures[1]
    assert pq.read_table(tmp_path / "ray/results").column("id").to_pylist() == ["1", "7"]


@pytest.mark.parametrize("is_dead", [False, True])
def test_an_unavailable_worker_costs_no_photograph_of_its_share(photographs, segment, tmp_path, monkeypatch, is_dead):
    """On a busy machine Ray calls a worker unavailable that is alive, or one that has died just now."""
    lost = []

    def get(call):
        answer = ray.get(call)
        if isinstance(answer, list) and answer and not lost:
            lost.append(len(answer))
            if is_dead:
                ray.kill(actors[-1])
            raise ray.exceptions.ActorUnavailableError("it is busy", None)
        return answer

    actors = []
    start = cluster._RayPool.start

    def note(pool):
        worker = start(pool)
        actors.append(pool._actors[worker])
        return worker

    monkeypatch.setattr(cluster._RayPool, "start", note)
    monkeypatch.setattr(cluster, "_get", get)
    monkeypatch.setattr(cluster, "_PAUSE_S", 0.1)
    monkeypatch.setattr(cluster, "_share_size", lambda *_: 3)  # all three photographs
    arguments = ("--out", "ray", "--engine", "ray", "--workers", 1)
    assert segment(photographs / "p1", *arguments, network=Bright()) == 0
    assert lost == [3]
    assert len(actors) == (2 if is_dead else 1)
    assert not (tmp_path / "ray/failures.csv").exists()
    assert pq.read_table(tmp_path / "ray/results").column("id").to_pylist() == ["1", "4", "7"]


def test_workers_read_and_write_by_fsspec(photographs, segment, tmp_path):
    """The addresses are those of fsspec's local file system, which it treats like any store."""
    assert segment(photographs, "--out", "plain", network=Bright()) == 1
    out = f"local://{tmp_path}/ray"
    assert segment(f"local://{photographs}", "--out", out, "--engine", "ray", network=Bright()) == 1
    plain, far = tree(tmp_path / "plain"), tree(tmp_path / "ray")
    assert far.keys() == plain.keys()
    pictures = [name for name in plain if name.startswith(("masks/", "overlays/"))]
    assert len(pictures) == 16
    assert [far[name] for name in pictures] == [plain[name] for name in pictures]


def test_only_rows_pass_between_processes():
    """The answer of a worker does not grow with the photograph."""
    import fsspec

    # The folder is ".", since the worker changes to it, here in this process.
    worker = cluster._Worker(lambda: Segmenter(Bright(), Config(input_size=96)), CohortOptions("memory://sizes"), ".")
    sizes = []
    for side in (130, 520):
        fsspec.filesystem("memory").pipe_file(f"/{side}.png", png(draw_fundus(1, (side, side)).image))
        sizes.append(len(pickle.dumps(worker.segment([Photograph("eye", "eye", f"memory://{side}.png")]))))
    assert max(sizes) < min(sizes) + 200 < 3000
