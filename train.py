"""Train a vessel segmenter: `python train.py --dataset DIR [DIR ...] --out runs/first`; see --help."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from resegnet.arguments import path_argument
from resegnet.errors import MissingExtraError, ResegnetError

try:
    from resegnet.learning.folder import RunFolder
    from resegnet.learning.options import MAY_CHANGE, PRESETS, TrainingOptions, option_name
    from resegnet.learning.training import train
except MissingExtraError as error:
    sys.exit(f"train.py: {error}")

_PHASES = ("context_epochs", "detail_epochs")
_METAVARS = {int: "N", float: "X", str: "NAME"}
# Headings of `--help`, by the first option below each.
_HEADINGS = {
    "dataset": "data",
    "encoder": "network",
    "crop_size": "steps",
    "optimizer": "learning",
    "validation_fraction": "validation and record",
    "device": "machine",
}
_DESCRIPTION = """\
Train a network that finds blood vessels, on photographs with reference
segmentations. The run is a folder. Its release/ is the result: the page, Segmenter,
`resegnet evaluate --model` and push_to_hub.py take it.
"""
_EPILOG = """\
presets: for whom, time on two CPU threads (of laptop, bundled and two-looks with bfloat16), memory,
F1 on the test photographs of DRIVE
  laptop     a first model, or one camera                          6 min   2.1 GB  0.809
  lite       several cameras, without a GPU                       90 min   7.8 GB  0.813
  (none)     ResNet34; this line from random weights              53 min   3.6 GB  0.817
  bundled    your cameras, beside arteries and veins: fine-tunes  74 min   5.5 GB  0.825
  two-looks  arteries, veins, disc and fovea from your labels     5.6 h    5.5 GB  not measured
  notebook   to compare with a common notebook                   108 min   2.6 GB  0.753
  plain, teacher  vessels alone, on a GPU                        not measured

examples:
  a first model, six minutes on two CPU cores with bfloat16:
    python train.py --preset laptop --dataset data/drive --out runs/first
  after an interruption:
    python train.py --out runs/first --resume
  without any data:
    python train.py --dataset synthetic --out runs/try --encoder-weights none --epochs 2

docs/training.md says which preset is for whom, and what form data may have.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, with one option for each field of `TrainingOptions`.

    Options that are not given are None, so that a preset, or the resumed run, can provide them.
    """
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--preset", choices=PRESETS, help="set of options, for a start: other options that you give override it"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the run in --out; its options need not be given again"
    )
    types = get_type_hints(TrainingOptions)
    group: argparse._ArgumentGroup = parser.add_argument_group()
    for field in dataclasses.fields(TrainingOptions):
        if field.name in _HEADINGS:
            group = parser.add_argument_group(_HEADINGS[field.name])
        _add_option(group, field, types[field.name])
    return parser


def _add_option(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], kind: Any) -> None:
    default: Any = field.default
    if kind is bool:
        group.add_argument(option_name(field.name), action=argparse.BooleanOptionalAction, help=field.metadata["help"])
        return
    several = get_origin(kind) is tuple
    values = " ".join(map(str, default)) if several else default
    value_type = get_args(kind)[0] if get_args(kind) else kind  # of `tuple[int, ...]` and `int | None`, int
    group.add_argument(
        option_name(field.name),
        type=value_type,
        nargs="+" if several else None,
        metavar=field.metadata["metavar"] or "|".join(field.metadata["choices"]) or _METAVARS[value_type],
        help=f"{field.metadata['help']} (default: {'none' if values in ('', None) else values})",
    )


def main(argv: list[str] | None = None) -> int:
    """Train, and return the exit status: 0 after a release was written, 1 after an error, 130 after Ctrl+C."""
    given = {name: value for name, value in vars(build_parser().parse_args(argv)).items() if value is not None}
    out, resume, preset = given.pop("out"), given.pop("resume"), given.pop("preset", None)
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, only the first one reports
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    # Not the root logger, which would show every request to the Hub.
    logging.getLogger("resegnet").setLevel(logging.INFO if is_first else logging.ERROR)
    folder = RunFolder(out)
    try:
        chosen = _shortened(PRESETS.get(preset, {}), given.get("epochs"))
        if resume:
            folder.require_checkpoint()
            # A preset that is given again is compared with the run, except for the options that may change: it would
            # undo an --epochs that the run was started with, and its phases follow from that.
            chosen = folder.read_options() | {name: chosen[name] for name in chosen.keys() - MAY_CHANGE - {*_PHASES}}
        release = train(TrainingOptions(**(chosen | given)), out, resume=resume)
    except (ResegnetError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            print(f"Make room, then {_how_to_continue(folder)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train.py: stopped; {_how_to_continue(folder)}", file=sys.stderr)
        return 130
    if is_first:
        print(f"release: {release}")
    return 0


def _shortened(preset: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Return a preset whose phases are shortened with the number of epochs, if fewer are given than it has."""
    planned = preset.get("epochs", 0)
    if epochs is None or not 0 <= epochs < planned or "context_epochs" not in preset:
        return dict(preset)
    # At least one epoch of the context branch alone, which may have to tell arteries from veins, and one of both.
    context = min(max(preset["context_epochs"] * epochs // planned, 1), max(epochs - 1, 0))
    detail = min(preset["detail_epochs"] * epochs // planned, max(epochs - context - 1, 0))
    return {**preset, "context_epochs": context, "detail_epochs": detail}


def _how_to_continue(folder: RunFolder) -> str:
    if folder.checkpoint.exists():
        return f"resume with: python train.py --out {folder.path} --resume"
    return "start again with the same command; there is no checkpoint yet."


if __name__ == "__main__":
    sys.exit(main())
