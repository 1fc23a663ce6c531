"""Count how often each warning is raised on the `train` photographs of image folders.

Run `python tests/benchmarks/count_warnings.py FOLDER ...`. The vessels are those that the bundled model finds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from resegnet import Segmenter


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    folders = parser.parse_args().folders
    segmenter = Segmenter.from_pretrained(anatomy=False)
    for folder in folders:
        lines = (folder / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        raised: dict[str, list[str]] = {}
        for row in map(json.loads, lines):
            name = row.get("image_file_name") or row["file_name"]
            for warning in segmenter(folder / "train" / name).warnings:
                raised.setdefault(warning.code, []).append(Path(name).stem)
        print(f"{folder.name}, {len(lines)} photographs")
        for code, names in sorted(raised.items()):
            print(f"  {code} {len(names)}: {' '.join(names[:8])}{' ...' if len(names) > 8 else ''}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
