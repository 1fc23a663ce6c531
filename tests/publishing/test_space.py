"""A Space for each hardware: its files, and what the Hub says of the account's plan."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

import push_to_hub
from resegnet.__main__ import main
from resegnet.publishing import space as space_module
from resegnet.publishing.space import CPU_BASIC, HARDWARE, ZERO_GPU, space_contents

ROOT = Path(__file__).parents[2]
NET, SPACE, COMMIT = "someone/net", "someone/demo", "0" * 40
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def settings(contents, folder):
    (folder / "README.md").write_bytes(contents["README.md"])
    return metadata_load(folder / "README.md")


def requirements(contents):
    return contents["requirements.txt"].decode().splitlines()


def test_on_the_cpu_a_space_needs_the_extra_app_alone(tmp_path):
    contents = space_contents(ROOT, NET, COMMIT)
    assert requirements(contents) == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["app"]]
    header = settings(contents, tmp_path)
    assert (header["python_version"], header["suggested_hardware"]) == ("3.11", "cpu-basic")


def test_on_zero_gpu_a_space_needs_torch_and_spaces_of_versions_that_the_hub_supports(tmp_path):
    contents = space_contents(ROOT, NET, COMMIT, hardware=ZERO_GPU)
    lines = requirements(contents)
    assert {*requirements(space_contents(ROOT, NET, COMMIT)), "torch==2.11.0"} < {*lines}
    added = {re.split("[=>]", line)[0] for line in lines} - {
        re.split("[=>]", line)[0] for line in requirements(space_contents(ROOT, NET, COMMIT))
    }
    # All that `resegnet.model` imports, and nothing for training alone.
    assert added == {"torch", "torchvision", "segmentation-models-pytorch", "timm", "safetensors", "spaces"}
    assert sum(line.startswith("torch") and not line.startswith("torchvision") for line in lines) == 1
    header = settings(contents, tmp_path)
    assert (header["python_version"], header["suggested_hardware"]) == ("3.12.12", "zero-a10g")
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", [NET])


@pytest.mark.parametrize("hardware", HARDWARE)
def test_a_space_is_small_and_leaves_training_out(hardware):
    contents = space_contents(ROOT, NET, COMMIT, hardware=hardware, picture=b"picture")
    assert sum(map(len, contents.values())) < (10_000_000 if hardware == CPU_BASIC else 21_000_000)  # with the weights
    folders = {path.split("/")[1] for path in contents if path.startswith("resegnet/")}
    assert not {"learning", "publishing", "benchmark.py"} & folders
    assert not any(path.startswith(("tests/", "docs/")) for path in contents)
    project = tomllib.loads(contents["pyproject.toml"].decode())
    for package in project["tool"]["setuptools"]["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in contents
    assert list(project["tool"]) == ["setuptools"]


def test_a_space_has_all_that_its_bundled_model_needs_on_its_hardware():
    release = "resegnet/releases/bundled/"
    for hardware, weights in ((CPU_BASIC, "model.onnx"), (ZERO_GPU, "model.safetensors")):
        contents = space_contents(ROOT, NET, COMMIT, hardware=hardware)
        assert {f"{release}{weights}", f"{release}config.json"} <= contents.keys()


def test_its_front_matter_names_no_licence_since_code_and_weights_have_two(tmp_path):
    contents = space_contents(ROOT, NET, COMMIT)
    assert "license" not in settings(contents, tmp_path)
    assert "MIT licence" in contents["README.md"].decode()


def test_all_that_its_modules_import_at_their_start_is_in_the_space():
    contents = space_contents(ROOT, NET, COMMIT)
    modules = {path[:-3].removesuffix("/__init__").replace("/", "."): path for path in contents if path.endswith(".py")}
    for path in modules.values():
        for statement in ast.parse(contents[path]).body:
            if isinstance(statement, ast.ImportFrom) and statement.module.startswith("resegnet"):
                names = {f"{statement.module}.{alias.name}" for alias in statement.names}
                lacking = {name for name in names if (ROOT / f"{name.replace('.', '/')}.py").exists()} - modules.keys()
                assert statement.module in modules and not lacking, path


@pytest.mark.parametrize("address", ["", "https://example.org/resegnet"])
def test_its_readme_links_model_code_and_documents_and_shows_the_picture(address, monkeypatch):
    monkeypatch.setattr(space_module, "REPOSITORY_URL", address)
    contents = space_contents(ROOT, NET, COMMIT, picture=b"picture")
    text = contents["README.md"].decode().split("\n---\n", 1)[1]
    links = dict(re.findall(r"\[([^]]*)\]\(([^)]*)\)", text))
    assert links[NET] == f"https://huggingface.co/{NET}"
    assert contents[links["A fundus photograph, and the vessels that this model finds in it"]] == b"picture"
    if address:
        assert links[address] == address and links["docs"] == f"{address}/tree/main/docs"
    else:
        assert links["app.py"] in contents and f"{links['resegnet']}/__init__.py" in contents
        assert links["model card"] == links[NET]
    assert f"RESEGNET_MODEL={NET}@{COMMIT} python app.py" in text
    assert "not a medical device" in text and "GPU" not in text
    assert "{" not in text and "\n\n\n" not in text


def test_its_readme_states_the_terms_of_the_weights_that_come_with_the_package():
    contents = space_contents(ROOT, NET, COMMIT)
    assert "resegnet/releases/bundled/model.onnx" in contents
    readme = contents["README.md"].decode()
    assert "DRIVE (research and education only, no redistribution); CHASE_DB1 (CC BY 4.0)" in readme


def test_without_a_picture_the_readme_shows_none():
    contents = space_contents(ROOT, NET, COMMIT, hardware=ZERO_GPU)
    assert b"![" not in contents["README.md"] and b"lends this Space a GPU" in contents["README.md"]


# Publishes a Space of one file for each hardware that comes as an argument, and prints the outcomes. "same" leaves the
# hardware to the Space.
PUBLISH = """
import sys
from resegnet.errors import HubError, PublishError
from resegnet.publishing.space import current_hardware, publish_space
files = {"README.md": b"---\\nsdk: gradio\\ntags: [resegnet]\\n---\\n"}
for hardware in sys.argv[1:]:
    try:
        hardware = hardware if hardware != "same" else current_hardware("someone/demo")
        files["app.py"] = hardware.encode()
        publish_space(files, "someone/demo", "someone/net", "0" * 40, private=False, hardware=hardware)
        print("done")
    except (PublishError, HubError) as error:
        print(error)
"""
PAID = "Static Spaces are free, but hosting Gradio and Docker Spaces on free cpu-basic requires a PRO subscription."


@pytest.mark.slow
def test_a_refused_hardware_tells_what_to_do_and_leaves_no_space(hub, tmp_path):
    hub.refused_hardware = {CPU_BASIC: (402, PAID), ZERO_GPU: (403, "You may have 2 ZeroGPU Spaces.")}
    cpu, zero = hub.run(PUBLISH, CPU_BASIC, ZERO_GPU, home=tmp_path / "a").splitlines()
    assert cpu == (
        f"The Hub refuses this account a Space on cpu-basic ({PAID.rstrip('.')}): give --space-hardware zero-a10g, on "
        "which a free account may have two Spaces, or subscribe at https://huggingface.co/pro."
    )
    assert zero.startswith("The Hub refuses this account a Space on zero-a10g (You may have 2 ZeroGPU Spaces): a free")
    assert hub.repos == {} and hub.unknown == []
    # Another refusal keeps its own words.
    (rights,) = hub.run(PUBLISH, ZERO_GPU, home=tmp_path / "a", token="hf_stranger").splitlines()
    assert "the rights" in rights and "zero-a10g" not in rights


@pytest.mark.slow
def test_a_space_is_made_on_its_hardware_and_moves_only_to_and_from_zero_gpu(hub, tmp_path):
    def publish(*hardware):
        assert hub.run(PUBLISH, *hardware, home=tmp_path / "a").split() == ["done"] * len(hardware)
        return hub.repos[f"spaces/{SPACE}"]["hardware"]

    assert publish(ZERO_GPU) == ZERO_GPU
    hub.refused_hardware = {ZERO_GPU: (403, "You may have 2 ZeroGPU Spaces.")}  # one of which is this one
    assert publish(ZERO_GPU, "same") == ZERO_GPU
    assert hub.files(f"spaces/{SPACE}")["app.py"] == ZERO_GPU.encode()
    assert publish(CPU_BASIC) == CPU_BASIC
    hub.repos[f"spaces/{SPACE}"]["hardware"] = "cpu-upgrade"
    assert publish(CPU_BASIC, "same") == "cpu-upgrade"
    assert hub.files(f"spaces/{SPACE}")["app.py"] == CPU_BASIC.encode()
    hub.refused_hardware = {ZERO_GPU: (401, "Invalid username or password.")}
    (told,) = hub.run(PUBLISH, ZERO_GPU, home=tmp_path / "a").splitlines()
    assert told == (
        f"The Hub does not move {SPACE} to zero-a10g (Invalid username or password): choose zero-a10g in the settings "
        "of the Space, then run the same command again."
    )
    assert hub.files(f"spaces/{SPACE}")["app.py"] == CPU_BASIC.encode()
    assert hub.unknown == []


def test_a_command_that_a_space_lacks_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resegnet.benchmark", None)
    assert main(["benchmark"]) == 1
    assert capsys.readouterr().err == (
        "resegnet: resegnet.benchmark is not part of this copy, which comes from a Space and holds what its page "
        "needs: install ReSegNet from its repository.\n"
    )


def test_hardware_without_a_space_is_refused_at_once(capsys, tmp_path):
    assert push_to_hub.main(["--release", str(tmp_path), "--repo-id", NET, "--space-hardware", ZERO_GPU]) == 1
    assert capsys.readouterr().err == (
        "Not published, nothing was sent: --space-hardware came without --space-id: give the name of the Space too.\n"
    )


def test_the_hardware_of_the_script_is_that_of_the_module():
    (option,) = [
        action for action in push_to_hub.build_parser()._actions if action.option_strings == ["--space-hardware"]
    ]
    assert tuple(option.choices) == HARDWARE
