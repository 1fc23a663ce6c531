"""What other people's code relies on."""

from __future__ import annotations

import subprocess
import sys

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


def test_import_loads_nothing_heavy():
    code = "import sys, resegnet; print([m for m in ('torch', 'gradio', 'datasets', 'skimage') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, resegnet; resegnet.Segmenter(lambda rgb: rgb[:, 1], resegnet.Config())"
        "(b'P6 96 96 255 ' + bytes(96 * 96 * 3));"
        "heavy = ('resegnet.learning', 'resegnet.results.measure', 'resegnet.results.render', 'resegnet.releases');"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
