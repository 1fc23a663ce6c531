"""The extras of pyproject.toml: what works without them, and the sentence for what does not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import PATIENCE_S

import app
import resegnet
from resegnet import Segmenter
from resegnet.__main__ import main
from resegnet.cohort.cluster import on_ray
from resegnet.cohort.entries import read_data_set
from resegnet.cohort.work import CohortOptions
from resegnet.errors import MissingExtraError, ResegnetError
from resegnet.hub import BUNDLED_RELEASES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# Top-level packages that the extras install, and those that come along with them.
OPTIONAL = (
    *("torch", "torchvision", "segmentation_models_pytorch", "timm", "safetensors", "datasets", "evaluate"),
    *("onnx", "onnxscript", "pydicom", "gradio", "gradio_client", "fastapi", "pandas", "reportlab", "ray", "mcp"),
    "sklearn",
)
# Makes imports of packages fail as if they were not installed. Setting sys.modules to None would not do: scipy takes a
# name in sys.modules for an imported package.
BLOCK = """
import sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing)
"""


def run_without(packages: tuple[str, ...], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which these packages cannot be imported."""
    code = BLOCK.format(packages=packages) + code
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )


def test_requirements_txt_lists_the_package_with_app_and_train():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == [*PROJECT["dependencies"], *EXTRAS["app"], *EXTRAS["train"]]


def test_the_tests_have_every_extra():
    # trackio brings another event loop, which the page's tests would then run on in place of users' own.
    left_out = ("dev", "notebook", "track")
    assert EXTRAS["dev"][0] == f"resegnet[{','.join(name for name in EXTRAS if name not in left_out)}]"


@pytest.mark.slow
def test_photographs_are_segmented_without_any_extra(tmp_path):
    photograph = ROOT / "examples" / "synthetic_pink.jpg"
    code = f"""
from resegnet import Segmenter
from resegnet.__main__ import main

result = Segmenter.from_pretrained()({str(photograph)!r})
result.measure(), result.save("saved"), result.compare(result.mask).scores()
assert main(["segment", {str(photograph)!r}, "--out", "out"]) == 0
assert main(["segment", "user/eyes", "--out", "none"]) == 1
assert main(["verify"]) == 0
for command in (["serve"], ["evaluate", "--dataset", "x"], ["prepare", "drive", "a", "b"], ["benchmark"]):
    assert main(command) == 1
"""
    done = run_without(OPTIONAL, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "saved").iterdir())) == 6
    assert {"results.csv", "results.parquet"} <= {path.name for path in (tmp_path / "out").iterdir()}
    weights_not_run = "files and model.onnx are sound; the weights were not run, as torch is not installed\n"
    assert done.stdout.count(weights_not_run) == len(BUNDLED_RELEASES)
    sentences = done.stderr.splitlines()
    assert [line.rsplit("pip install ")[-1] for line in sentences] == [
        f'"resegnet[{extra}]"`.' for extra in ("train", "app", "train", "train", "train")
    ]
    assert sentences[0].startswith("resegnet: datasets is not installed, and reading user/eyes as a data set needs it")


@pytest.mark.slow
def test_the_page_is_built_without_torch(tmp_path):
    code = f"""
sys.path.insert(0, {str(ROOT)!r})
import app
from resegnet import Segmenter
app.build_app(Segmenter.from_pretrained())
"""
    done = run_without(("torch", "torchvision", "timm", "safetensors", "datasets", "evaluate", "onnx"), code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_dry_run_of_publishing_needs_no_extra_and_says_what_was_not_tested(tmp_path):
    release = str(BUNDLED_RELEASES["bundled-cc-by"])
    code = f"""
import push_to_hub
arguments = ["--release", {release!r}, "--repo-id", "user/net", "--space-id", "user/page"]
assert push_to_hub.main([*arguments, "--dry-run"]) == 0
assert push_to_hub.main(arguments) == 1
"""
    done = run_without(OPTIONAL, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "files and model.onnx are sound. The weights were not run: PyTorch is missing." in done.stdout
    assert "bytes  requirements.txt" in done.stdout
    assert done.stderr == (
        "Not published, nothing was sent: torch is not installed, and publishing, which runs the weights before and "
        'after, needs it: run `pip install "resegnet[train]"`.\n'
    )


def test_pytorch_without_the_rest_of_its_extra_is_told_and_a_release_is_verified_without(tmp_path):
    release = str(BUNDLED_RELEASES["bundled-cc-by"])
    code = f"""
from resegnet import Segmenter
from resegnet.errors import MissingExtraError
from resegnet.releases.release import verify_release
assert verify_release({release!r}) is None
try:
    Segmenter.from_pretrained(engine="torch")
except MissingExtraError as error:
    print(error)
"""
    done = run_without(("segmentation_models_pytorch",), code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("segmentation_models_pytorch is not installed, and the engine 'torch' needs it: run")


def test_train_py_says_which_extra_it_needs(tmp_path):
    done = run_without(("torch",), "import train", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "train.py: torch is not installed, and everything about training, evaluation and data sets needs it: run "
        '`pip install "resegnet[train]"`.\n'
    )


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        (lambda: Segmenter.from_pretrained(engine="torch"), "train"),
        (lambda: Segmenter.from_pretrained(device="cuda"), "train"),
        (lambda: resegnet.ReSegNet, "train"),
        (lambda: list(read_data_set("user/eyes", None)), "train"),
        (lambda: app.build_app(None), "app"),
        (lambda: next(on_ray(None, CohortOptions("out"), [], None, None)), "ray"),
    ],
    ids=["engine", "device", "ReSegNet", "data set", "page", "ray"],
)
def test_a_missing_extra_is_one_sentence_with_the_command(monkeypatch, use, extra):
    monkeypatch.setattr("resegnet.errors.find_spec", lambda _: None)
    with pytest.raises(
        MissingExtraError, match=rf'not installed, and .* needs it: run `pip install "resegnet\[{extra}\]"`\.$'
    ) as caught:
        use()
    assert isinstance(caught.value, ResegnetError) and isinstance(caught.value, ImportError)


def test_a_command_prints_that_sentence(monkeypatch, capsys):
    monkeypatch.setattr("resegnet.errors.find_spec", lambda _: None)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == (
        'resegnet: gradio is not installed, and the page needs it: run `pip install "resegnet[app]"`.\n'
    )
