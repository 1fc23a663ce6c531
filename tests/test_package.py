"""Public names, on which other people's code relies."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import resegnet


def test_public_names():
    assert sorted(resegnet.__all__) == [
        "Config",
        "ConfigError",
        "ImageError",
        "ReSegNet",
        "ResegnetError",
        "Segmentation",
        "Segmenter",
        "__version__",
        "read_image",
    ]
    for name in set(resegnet.__all__) - {"__version__"}:
        assert getattr(resegnet, name).__name__ == name


def public_attributes(kind: type) -> list[str]:
    fields = {field.name for field in dataclasses.fields(kind)}
    return sorted(name for name in fields | set(vars(kind)) if not name.startswith("_"))


def test_public_attributes_of_a_segmentation():
    assert public_attributes(resegnet.Segmentation) == [
        "anatomy",
        "arteries",
        "at",
        "calibre_map",
        "centrelines",
        "compare",
        "disc",
        "eye",
        "fov",
        "fovea",
        "image",
        "kind_probability",
        "kinds",
        "kinds_map",
        "mask",
        "measure",
        "model",
        "overlay",
        "probability",
        "save",
        "threshold",
        "um_per_px",
        "veins",
        "warnings",
    ]


def test_public_attributes_of_a_segmenter():
    assert public_attributes(resegnet.Segmenter) == [
        "anatomy",
        "config",
        "folder",
        "from_pretrained",
        "model",
        "network",
        "tells_anatomy",
    ]


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (resegnet.read_image, ["source", "max_pixels"]),
        (resegnet.Segmenter, ["network", "config", "model", "folder", "anatomy"]),
        (resegnet.Segmenter.from_pretrained, ["name", "revision", "engine", "device", "threads", "anatomy"]),
        (resegnet.Segmenter.__call__, ["self", "source"]),
        (resegnet.Segmentation.at, ["self", "threshold"]),
        (resegnet.Segmentation.measure, ["self", "um_per_px"]),
        (resegnet.Segmentation.overlay, ["self", "color", "opacity"]),
        (resegnet.Segmentation.compare, ["self", "reference"]),
        (resegnet.Segmentation.save, ["self", "folder", "name"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_public_parameters(call, parameters):
    assert list(inspect.signature(call).parameters) == parameters


def test_fields_of_the_configuration():
    assert public_attributes(resegnet.Config) == [
        "context_channels",
        "context_encoder",
        "context_size",
        "context_step",
        "decoder_channels",
        "encoder",
        "encoder_depth",
        "format_version",
        "from_dict",
        "input_sides",
        "input_size",
        "load",
        "mean",
        "network",
        "normalises",
        "smallest_input_size",
        "std",
        "threshold",
        "to_json",
    ]


# Prints the heavy modules that are loaded after each step.
STEPS = """
import sys
def tell(*heavy):
    print([module for module in sys.modules if module.startswith(heavy)])

import resegnet
tell("torch", "gradio", "datasets", "skimage")
segmenter = resegnet.Segmenter(lambda rgb: rgb[:, 1], resegnet.Config())
result = segmenter(b"P6 96 96 255 " + bytes(96 * 96 * 3))
tell("torch", "skimage", "resegnet.learning", "resegnet.releases", "resegnet.results.centrelines",
     "resegnet.results.compare", "resegnet.results.export", "resegnet.results.measure")
import resegnet.results.compare
tell("torch", "datasets", "evaluate")
"""


def test_importing_segmenting_and_comparing_load_nothing_that_they_do_not_need():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]
