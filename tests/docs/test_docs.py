"""README, docs/ and examples/README.md: figures, links, options and code are those of the repository."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import string
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
import torch
from support import PATIENCE_S

import push_to_hub
import train
from resegnet import ReSegNet, Segmenter, __version__, read_image
from resegnet.__main__ import build_parser
from resegnet.hub import BUNDLED_RELEASES
from resegnet.learning.data import load_vessels
from resegnet.learning.options import PRESETS
from resegnet.learning.stress import STRESSES, stress_table
from resegnet.publishing.card import model_card
from resegnet.publishing.card_scores import PEER_F1
from resegnet.web.numbers import SHOWN_MEASURES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), ROOT / "examples" / "README.md", *DOCS.glob("*.md"), *ROOT.glob(".github/*.md")]
)
NAMES = {
    "drive": "DRIVE",
    "chase_db1": "CHASE_DB1",
    "hrf": "HRF",
    "dr_hagis": "DR-HAGIS",
    "aria": "ARIA",
    "orvs": "ORVS",
    "les_av": "LES-AV",
}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(page: str, language: str) -> list[str]:
    """Code blocks of a language, without those that a comment above marks as not run."""
    found = re.findall(
        rf"^( *)(<!-- not run: .* -->\n *)?```{language}\n(.*?)^ *```", text(page), re.MULTILINE | re.DOTALL
    )
    return [code for _, skipped, code in found if not skipped]


def table_rows(page: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table below a heading: first cell to the others."""
    section = text(page).partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
    assert table, f"{page} has no table below {heading}"
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[0].splitlines()[2:]]
    return {first: rest for first, *rest in rows}


# Length, figures


@pytest.mark.parametrize(("page", "lines", "words"), [("README.md", 200, 1800), ("AGENTS.md", 60, 600)])
def test_pages_that_are_read_whole_are_short(page, lines, words):
    assert len(text(page).splitlines()) <= lines and len(text(page).split()) <= words


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_bundled_release(name):
    report = json.loads((BUNDLED_RELEASES["bundled"] / "metrics.json").read_text())[name]
    pooled, mean = report["pooled"], f"{report['mean']['f1']:.3f}"
    (row,) = [cells for first, cells in table_rows("README.md", "## Results").items() if first.startswith(NAMES[name])]
    expected = [f"{pooled[score]:.3f}" for score in ("f1", "recall", "specificity", "auroc")]
    assert row[:6] == [str(report["count"]), f"**{expected[0]}**", *expected[1:], mean]

    row = table_rows("docs/results.md", "## Further scores of the bundled model")[NAMES[name]]
    worst = min(picture["f1"] for picture in report["pictures"])
    assert row == [
        *(f"{pooled[score]:.3f}" for score in ("precision", "mcc", "cldice")),
        f"{mean} ± {report['sd']['f1']:.3f}",
        f"{worst:.3f}",
        f"{report['ceiling']:.3f}",
    ]


def test_the_readme_tells_the_scores_of_the_bundled_release():
    metrics = json.loads((BUNDLED_RELEASES["bundled"] / "metrics.json").read_text())
    f1 = {name: metrics[name]["pooled"]["f1"] for name in NAMES}
    harder = {name: f1.pop(name) for name in ("dr_hagis", "aria", "orvs")}
    kinds = metrics["les_av"]["kinds"]
    stress = {row["stress"]: f"{row['f1']:.3f}" for row in metrics["drive"]["stress"]}
    names = ("enlarged 3 times", "as it is", "enlarged 3 times, softened by 0.3 %")
    enlarged, plain, softened = (stress[name] for name in names)
    words = " ".join(text("README.md").split())
    assert f"F1 (Dice) {min(f1.values()):.2f} to {max(f1.values()):.2f} on the test photographs" in words
    assert f"HRF and LES-AV, {min(harder.values()):.2f} to {max(harder.values()):.2f} on three harder sets" in words
    assert f"On LES-AV, arteries score F1 {kinds['artery_f1']:.2f} and veins {kinds['vein_f1']:.2f}" in words
    assert f"{100 * (1 - kinds['accuracy']):.0f} % of its vessel pixels get the wrong kind" in words
    assert f"score F1 {enlarged} instead of {plain}, and {softened} if they are softened too" in words


@pytest.mark.parametrize("release", BUNDLED_RELEASES)
def test_each_bundled_release_has_its_row_of_scores(release):
    metrics = json.loads((BUNDLED_RELEASES[release] / "metrics.json").read_text())
    rows = table_rows("docs/results.md", "## Other models")
    (row,) = [cells for first, cells in rows.items() if first.startswith(f"`{release}`: ")]
    assert row == [f"{metrics[name]['pooled']['f1']:.3f}" for name in NAMES]


@pytest.mark.parametrize("name", ["drive", "hrf", "les_av"])
def test_scores_of_arteries_and_veins_are_those_of_the_bundled_release(name):
    report = json.loads((BUNDLED_RELEASES["bundled"] / "metrics.json").read_text())[name]["kinds"]
    row = table_rows("docs/results.md", "## Scores of arteries, veins, disc and fovea")[NAMES[name]]
    assert row == [str(report["count"]), *(f"{report[score]:.3f}" for score in ("artery_f1", "vein_f1", "accuracy"))]


def test_the_page_shows_the_agreement_of_the_tables():
    """A measure with a row has the least and greatest ICC of its data sets, any other measure none."""
    tables = [
        table_rows("docs/measurements.md", heading)
        for heading in ("## Agreement with manual segmentations", "### Arteries and veins")
    ]
    iccs = {
        row.lower(): [float(cell.split()[0]) for cell in cells if cell != "not measured"]
        for row, cells in (tables[1] | tables[0]).items()
    }
    rows = {"Length": "skeleton length", "Fractal dimension": "d0"}
    found = {shown["title"]: iccs.get(rows.get(shown["title"], shown["title"].lower())) for shown in SHOWN_MEASURES}
    expected = {title: (min(values), max(values)) if values else None for title, values in found.items()}
    assert {shown["title"]: shown["icc"] for shown in SHOWN_MEASURES} == expected


def test_the_threshold_is_that_of_the_bundled_release():
    threshold = json.loads((BUNDLED_RELEASES["bundled"] / "config.json").read_text())["threshold"]
    assert f"threshold of {threshold:.4f}" in text("docs/results.md")


def test_every_preset_is_described():
    described = table_rows("docs/training.md", "## Presets")
    assert {f"`{name}`" for name in PRESETS} <= set(described)


def test_the_citation_has_the_version_of_the_package():
    assert re.search(r"^version: (.*)$", text("CITATION.cff"), re.MULTILINE)[1] == __version__


def test_the_map_shows_every_room_and_what_lies_beside_them():
    rows = table_rows("docs/architecture.md", "## Map")
    mapped = {path.strip("`") for path in rows}
    assert {path for path in mapped if not (ROOT / path).exists()} == set()
    modules = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.py"), *ROOT.glob("resegnet/*.py")]}
    rooms = {f"resegnet/{path.parent.name}/" for path in ROOT.glob("resegnet/*/__init__.py")}
    assert (modules - {"resegnet/__init__.py"} | rooms) - mapped == set()
    for path, (purpose,) in rows.items():
        if path.startswith("`resegnet/") and path.endswith("/`"):
            named = re.findall(r"`(\w+\.\w+)`", purpose)
            assert [name for name in named if not (ROOT / path.strip("`") / name).exists()] == []


def test_every_picture_that_the_page_offers_has_its_origin_told():
    """The page offers all pictures beside the examples' README except references; figures lie a folder deeper."""
    described = re.findall(r"^\| `([^`]+)` \|", text("examples/README.md"), re.MULTILINE)
    pictures = [path for kind in ("jpg", "png") for path in (ROOT / "examples").glob(f"*.{kind}")]
    assert {path.name for path in pictures if "_vessels" not in path.stem} == set(described)


# Links


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    without_code = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme_and_the_index():
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\(docs/(\w+\.md)\)", text("README.md")))
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", text("docs/index.md")))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    named = re.findall(r"`((?:tests|resegnet|examples|docs)/[\w./]+)`", text(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


# Commands


def commands(page: str) -> list[list[str]]:
    """Commands of the shell blocks that run this repository's scripts, variables of the block expanded."""
    found = []
    for block in code_blocks(page, "bash"):
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assignment := re.fullmatch(r'(\w+)="(.*)"', line.strip()):
                variables[assignment[1]] = string.Template(assignment[2]).substitute(variables)
                continue
            words = shlex.split(string.Template(line).safe_substitute(variables), comments=True)
            if words[:3] == ["python", "-m", "resegnet"]:
                found.append(["resegnet", *words[3:]])
            elif words[:1] == ["resegnet"]:
                found.append(words)
            elif words and (script := next((word for word in words[:4] if word.endswith(".py")), None)):
                found.append(words[words.index(script) :])
    return found


PARSERS = {"resegnet": build_parser, "train.py": train.build_parser, "push_to_hub.py": push_to_hub.build_parser}


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_options_of_today(page):
    found = commands(page)
    blocks = "".join(code_blocks(page, "bash"))
    assert len(found) == len(re.findall(r"^ *(?:python(?! -m venv)|resegnet|torchrun) ", blocks, re.MULTILINE))
    for script, *arguments in found:
        PARSERS[script]().parse_args(arguments)


def test_fine_tuning_starts_from_a_bundled_release_of_its_own_network():
    pairs = []
    for script, *arguments in commands("docs/training.md"):
        given = vars(train.build_parser().parse_args(arguments)) if script == "train.py" else {}
        if given.get("start_from") in BUNDLED_RELEASES:
            config = json.loads((BUNDLED_RELEASES[given["start_from"]] / "config.json").read_text())
            pairs.append((PRESETS[given["preset"]]["encoder"], config["encoder"]))
    assert pairs and all(own == parent for own, parent in pairs)


def test_commands_are_read_with_their_continued_lines_and_variables():
    assert commands("docs/publishing.md")[2][-3:] == ["--space-hardware", "zero-a10g", "--dry-run"]
    (first, *_) = commands("docs/experiments.md")
    assert "data/drive" in first and "$sets" not in first and "--out" in first


# Code


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the examples and the package, to run code blocks in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "resegnet").symlink_to(ROOT / "resegnet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_blocks(page: str) -> dict:
    """Run a page's Python blocks one after the other in one namespace, as a reader would; gives the namespace."""
    names: dict = {}
    for code in code_blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_readmes_python_runs(workplace, capsys):
    result = run_blocks("README.md")["result"]
    assert f"{result.mask.shape} ()" in capsys.readouterr().out
    assert len(list((workplace / "out").iterdir())) == 6


@pytest.mark.slow
def test_the_examples_are_made_again(workplace):
    run_blocks("examples/README.md")
    for path in (ROOT / "examples").glob("synthetic_*"):
        made, kept = (read_image(folder / path.name).astype(int) for folder in (workplace / "examples", path.parent))
        assert made.shape == kept.shape and np.abs(made - kept).mean() < 0.5  # processors round differently


@pytest.mark.slow
def test_the_python_page_runs(workplace, capsys):
    names = run_blocks("docs/python.md")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" left") and lines[2] == "True" and lines[-1] == "True"
    assert [line.split()[0] for line in lines[5:8]] == [f"synthetic_{name}.jpg" for name in ("brown", "orange", "pink")]
    assert {"mask.png", "overlay.png", "arteries_veins.png", "errors.png", "out"} <= {
        path.name for path in workplace.iterdir()
    }

    # The network that the page loads into segmentation_models_pytorch is that of the release.
    net, model = names["net"].eval(), ReSegNet.from_pretrained(BUNDLED_RELEASES["bundled-cc-by"])
    rgb = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net((rgb - model.mean) / model.std), model(rgb))


@pytest.mark.slow
def test_onnx_without_this_package_finds_the_same_vessels(workplace):
    """In a process of its own, where other packages than numpy, Pillow, onnxruntime and what these need are missing."""
    code = "\n".join(code_blocks("docs/onnx.md", "python"))
    needed, modules = ["numpy", "pillow", "onnxruntime"], packages_distributions()
    for name in needed:
        found = [re.match(r"[\w.-]+", line)[0] for line in requires(name) or [] if "extra ==" not in line]
        needed += [other for other in found if other not in needed]
    missing = {module for module, names in modules.items() if not {name.lower() for name in names} & {*needed}}
    assert {"resegnet", "torch", "scipy", "skimage", "huggingface_hub"} - {"resegnet"} <= missing
    blocked = f"import sys\nfor name in {sorted(missing | {'resegnet'})}:\n    sys.modules[name] = None\n"
    code = f"{blocked}{code}\nnp.savez('found.npz', mask=mask, arteries=arteries, disc=disc, fovea=fovea)\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=workplace, timeout=PATIENCE_S)
    found, result = np.load("found.npz"), Segmenter.from_pretrained()("examples/retina_cc0.jpg")
    np.testing.assert_array_equal(read_image("mask.png")[..., 0] > 0, found["mask"])
    both = found["mask"] & result.mask
    assert 2 * both.sum() / (found["mask"].sum() + result.mask.sum()) > 0.98
    is_artery = result.kind_probability[0] >= result.kind_probability[1]
    assert (found["arteries"] == is_artery)[both].mean() > 0.95
    assert 0.9 < (found["disc"] > 0.5).sum() / result.disc.mask.sum() < 1.1
    assert result.disc.mask[np.unravel_index(found["disc"].argmax(), result.mask.shape)]
    place = np.unravel_index(found["fovea"].argmax(), result.mask.shape)
    assert np.hypot(*np.subtract(place, result.fovea)) < 0.1 * result.disc.diameter


def test_the_model_card_has_the_script_of_the_onnx_page():
    code = code_blocks("docs/onnx.md", "python")[0]
    code = code.replace("resegnet/releases/bundled", "downloaded").replace("examples/retina_cc0.jpg", "eye.jpg")
    for release in BUNDLED_RELEASES.values():
        assert f"```python\n{code}```" in model_card(release, "someone/resegnet")


def test_the_readme_and_the_model_card_compare_with_the_same_method():
    rows = {row.split(",")[0]: cells[-1] for row, cells in table_rows("README.md", "## Results").items()}
    assert {name: rows[NAMES[name]] for name in PEER_F1} == {name: f"{f1:.3f}" for name, (_, f1) in PEER_F1.items()}


def test_the_onnx_page_states_the_sizes_of_both_releases():
    page = text("docs/onnx.md")
    sizes = [json.loads((folder / "config.json").read_text()) for folder in BUNDLED_RELEASES.values()]
    assert all(f"{size['smallest_input_size']} to {size['input_size']} p" in page for size in sizes)


@pytest.mark.data
@pytest.mark.slow
def test_stressed_photographs_score_as_the_results_say(real, segmenter):
    rows = table_rows("docs/results.md", "## Where it fails")
    assert list(rows)[-len(STRESSES) :] == [stress.name for stress in STRESSES]
    enlarged = [stress for stress in STRESSES if stress.name == "enlarged 3 times"]
    (row,) = stress_table(segmenter, load_vessels(str(real / "drive"), "test"), enlarged, progress=False)
    scores = ", ".join(f"{row[key]:.3f}" for key in ("f1", "recall", "worst_f1"))
    assert rows[row["stress"]][0] == scores


def test_the_layers_are_those_of_the_contract():
    contract = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    block = re.search(r"\n\n((?:    .*\n)+)", text("docs/architecture.md").split("## Rooms and layers")[1])
    assert block is not None
    assert [line.strip() for line in block[1].splitlines()[1:]] == [row.replace("resegnet.", "") for row in contract]


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained()


def run_against(url: str, language: str, part: str, *command: str) -> str:
    """Run the block of docs/page.md that holds `part` against the running page; gives what it prints."""
    (code,) = [block for block in code_blocks("docs/page.md", language) if part in block]
    assert "http://127.0.0.1:7860" in code
    code = code.replace("http://127.0.0.1:7860", url.rstrip("/"))
    return subprocess.run(
        [*command, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout


@pytest.mark.slow
def test_the_python_client_runs(url, segmenter):
    printed = run_against(url, "python", "gradio_client", sys.executable, "-c")
    truth = ROOT / "examples/synthetic_pink_vessels.png"
    comparison = segmenter(ROOT / "examples/synthetic_pink.jpg").compare(truth)
    assert float(printed.splitlines()[-1]) == comparison.scores()["f1"]


@pytest.mark.slow
def test_the_curl_commands_run(url, segmenter):
    answer = run_against(url, "bash", "curl", "bash", "-euc")
    assert "event: complete" in answer
    overlay, mask, _, numbers = json.loads(answer.partition("data: ")[2])
    assert mask["url"].endswith("retina_cc0_mask.png") and overlay["url"].startswith(url)
    assert numbers["measures"]["vessel_area_px"] == segmenter(ROOT / "examples/retina_cc0.jpg").at(0.4).mask.sum()
