"""Count how often each warning of a photograph's quality is raised on the `train` photographs of image folders.

Run `python tests/benchmarks/count_warnings.py FOLDER ...`. Vessels are those of the references; without references, the
warning of few vessels is not looked for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from resegnet.fov import find_field_of_view
from resegnet.image import read_image
from resegnet.quality import find_warnings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    for folder in parser.parse_args().folders:
        lines = (folder / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        counts: Counter[str] = Counter()
        for row in map(json.loads, lines):
            image = read_image(folder / "train" / (row.get("image_file_name") or row["file_name"]))
            vessels = None
            if "mask_file_name" in row:
                with Image.open(folder / "train" / row["mask_file_name"]) as mask:
                    vessels = np.asarray(mask.convert("L")) > 127
            counts.update(warning.code for warning in find_warnings(image, find_field_of_view(image), vessels))
        told = ", ".join(f"{code} {count}" for code, count in counts.most_common()) or "none"
        print(f"{folder.name}, {len(lines)} photographs: {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
