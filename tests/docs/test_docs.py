"""README, docs/ and examples/README.md: figures, links and options are those of the repository."""

from __future__ import annotations

import json
import re
import shlex
import string
import tomllib
from pathlib import Path

import pytest
from support.documentation import NAMES, ROOT, code_blocks, table_rows, text

import push_to_hub
import train
from resegnet import Segmenter, __version__
from resegnet.__main__ import build_parser
from resegnet.hub import BUNDLED_RELEASES
from resegnet.learning.data import load_vessels
from resegnet.learning.options import PRESETS
from resegnet.learning.stress import STRESSES, stress_table
from resegnet.publishing.card_scores import PEER_F1
from resegnet.web.numbers import SHOWN_MEASURES

DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), ROOT / "examples" / "README.md", *DOCS.glob("*.md"), *ROOT.glob(".github/*.md")]
)

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
    assert f"{100 * (1 - kinds['accuracy']):.0f} % of its vessel pixels are misclassified" in words
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


def test_the_readme_and_the_model_card_compare_with_the_same_method():
    rows = {row.split(",")[0]: cells[-1] for row, cells in table_rows("README.md", "## Results").items()}
    assert {name: rows[NAMES[name]] for name in PEER_F1} == {name: f"{f1:.3f}" for name, (_, f1) in PEER_F1.items()}


def test_the_onnx_page_states_the_sizes_of_both_releases():
    page = text("docs/onnx.md")
    sizes = [json.loads((folder / "config.json").read_text()) for folder in BUNDLED_RELEASES.values()]
    assert all(f"{size['smallest_input_size']} to {size['input_size']} p" in page for size in sizes)


@pytest.mark.data
@pytest.mark.slow
def test_stressed_photographs_score_as_the_results_say(real):
    rows = table_rows("docs/results.md", "## Where it fails")
    assert list(rows)[-len(STRESSES) :] == [stress.name for stress in STRESSES]
    enlarged = [stress for stress in STRESSES if stress.name == "enlarged 3 times"]
    (row,) = stress_table(
        Segmenter.from_pretrained(), load_vessels(str(real / "drive"), "test"), enlarged, progress=False
    )
    scores = ", ".join(f"{row[key]:.3f}" for key in ("f1", "recall", "worst_f1"))
    assert rows[row["stress"]][0] == scores


def test_the_layers_are_those_of_the_contract():
    contract = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    block = re.search(r"\n\n((?:    .*\n)+)", text("docs/architecture.md").split("## Layers")[1])
    assert block is not None
    assert [line.strip() for line in block[1].splitlines()[1:]] == [row.replace("resegnet.", "") for row in contract]


def test_the_threshold_is_that_of_the_bundled_release():
    threshold = json.loads((BUNDLED_RELEASES["bundled"] / "config.json").read_text())["threshold"]
    assert f"threshold of {threshold:.4f}" in text("docs/results.md")


def test_every_preset_is_described_alike_on_its_page_and_in_the_help():
    described = table_rows("docs/training.md", "## Presets")
    lines = train._EPILOG.partition("presets: ")[2].partition("DRIVE\n")[2].partition("\n\n")[0].splitlines()
    helped = {name: line for line in lines for name in line.split("  ")[1].split(", ")}
    assert {*PRESETS, "(none)"} == set(helped)
    for name, line in helped.items():
        row = " ".join(described["none, the default" if name == "(none)" else f"`{name}`"])
        for number in re.findall(r"0\.\d{3}|[\d.]+ GB", line):
            assert number in row, (name, number)


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
