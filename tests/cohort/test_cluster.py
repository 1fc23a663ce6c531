"""`--engine ray`: the same results by processes of a cluster, here of two on this machine, whatever befalls them."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from resegnet import Config, Segmenter, read_image
from resegnet.__main__ import main
from resegnet.geometry import as_network_input
from resegnet.io import png
from resegnet.segmenter import prepare_input
from resegnet.synthetic import draw_fundus

ray = pytest.importorskip("ray", reason='the cluster needs pip install "resegnet[ray]"')

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what Ray and its processes leave open


class Bright:
    """Finds what is bright; kills its process once at its second photograph, or at each one of a brightness."""

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
def cluster():
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")  # on a busy machine
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import it
    ray.init(num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(10):
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
    assert table.num_rows == 10
    assert len(set(table.column("vessel_area_px").to_pylist())) > 5

    (tmp_path / "ray/masks/p1_1.png").unlink()
    assert segment(photographs, "--out", "ray", "--engine", "ray", "--resume", network=Bright()) == 1
    assert tree(tmp_path / "ray") == tree(tmp_path / "plain")


def test_a_photograph_that_kills_every_worker_is_a_failure_and_the_others_are_done(
    photographs, segment, tmp_path, monkeypatch
):
    monkeypatch.setattr("resegnet.cohort.cluster._RETRIES", 1)  # a new worker takes long to start
    image = read_image(photographs / "p1/4.png")
    deadly = float(as_network_input(prepare_input(image, Config(input_size=96))[0]).mean())
    network = Bright(deadly=deadly)
    assert segment(photographs / "p1", "--out", "ray", "--engine", "ray", "--workers", 1, network=network) == 1
    failures = (tmp_path / "ray/failures.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in failures] == ["id", "4"]
    assert "workers that tried it died of it" in failures[1]
    assert pq.read_table(tmp_path / "ray/results").column("id").to_pylist() == ["1", "7"]


def test_workers_read_and_write_by_fsspec(photographs, segment, tmp_path):
    """By addresses of its local file system, which take the way of any store."""
    assert segment(photographs, "--out", "plain", network=Bright()) == 1
    out = f"local://{tmp_path}/ray"
    assert segment(f"local://{photographs}", "--out", out, "--engine", "ray", network=Bright()) == 1
    plain, far = tree(tmp_path / "plain"), tree(tmp_path / "ray")
    assert far.keys() == plain.keys()
    pictures = [name for name in plain if name.startswith(("masks/", "overlays/"))]
    assert len(pictures) == 20
    assert [far[name] for name in pictures] == [plain[name] for name in pictures]


def test_only_rows_pass_between_processes():
    """What a worker gives back for a photograph does not grow with it."""
    from resegnet.cohort.cluster import _Worker
    from resegnet.cohort.listing import Photograph
    from resegnet.cohort.work import CohortOptions

    # "." since it goes to that folder, in this process.
    worker = _Worker(lambda: Segmenter(Bright(), Config(input_size=96)), CohortOptions("memory://sizes"), ".")
    import fsspec

    sizes = []
    for side in (130, 520):
        fsspec.filesystem("memory").pipe_file(f"/{side}.png", png(draw_fundus(1, (side, side)).image))
        photograph = Photograph("eye", "eye", f"memory://{side}.png")
        answer = worker({"number": np.array([0]), "photograph": np.array([pickle.dumps(photograph)], object)})
        sizes.append(len(answer["outcome"][0]))
    assert max(sizes) < min(sizes) + 200 < 3000
