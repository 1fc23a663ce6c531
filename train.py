"""Train a vessel segmenter: `python train.py --dataset DIR [DIR ...] --out runs/first`; see --help."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import logging
import os
import sys
from pathlib import Path

from resegnet.errors import TrainingError
from resegnet.learning.options import MAY_CHANGE, PRESETS, TrainingOptions
from resegnet.learning.training import CHECKPOINT_NAME, OPTIONS_NAME, train


def build_parser() -> argparse.ArgumentParser:
    """Arguments default to None: what is not given comes from `TrainingOptions`, or with --resume from the run itself."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingOptions)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="SOURCE",
        help="Hub ids, image folders, Parquet, the public layout, or `synthetic`",
    )
    parser.add_argument(
        "--extra", nargs="+", metavar="SOURCE", help="sets labelled by a model (`resegnet label`), for training alone"
    )
    parser.add_argument(
        "--teacher", nargs="+", metavar="RELEASE", help="releases whose mean answer is mixed into the references"
    )
    parser.add_argument("--unseen", nargs="+", metavar="SOURCE", help="sets to score at the end but not to train on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; its `release/` is the result")
    parser.add_argument("--preset", choices=PRESETS, help="a set of options; what else is given overrides it")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly where it was cut")
    for name, kind, text in [
        ("encoder", str, "encoder of segmentation_models_pytorch, or tu-<timm name>; or plain, the U-Net at full size"),
        ("encoder_depth", int, "stages of the encoder"),
        ("encoder_weights", str, "`imagenet` (from the Hub), `none` (random) or a file of tensors"),
        ("start_from", str, "folder or Hub id of a release of that encoder to go on from"),
        ("input_size", int, "px, side of the square that the field of view is scaled to"),
        (
            "smallest_input_size",
            int,
            "px, side of the square for small fields; those up to input_size are not scaled",
        ),
        ("crop_size", int, "px, side of a training crop"),
        ("batch_size", int, "crops in a batch"),
        ("accumulate", int, "batches of a step"),
        ("steps_per_epoch", int, "steps between two validations"),
        ("epochs", int, "most epochs; 0 only calibrates and scores what --start-from names"),
        ("optimizer", str, "adamw or adam"),
        ("learning_rate", float, "highest learning rate"),
        ("weight_decay", float, "weight decay"),
        ("schedule", str, "cosine or plateau (ReduceLROnPlateau)"),
        ("patience", int, "epochs without a better validation F1 until training stops"),
        ("dice_weight", float, "of the Dice loss beside cross-entropy"),
        ("centreline_weight", float, "of the share of the centre lines that is missed, in the loss"),
        (
            "weak_augmentation_share",
            float,
            "share of the epochs, the last ones, in which most crops are augmented weakly",
        ),
        ("average_decay", float, "of the running average of the weights; 0 turns it off"),
        ("validation_fraction", float, "share of the patients kept back for validation"),
        ("seed", int, "of weights, split and augmentation"),
        ("preview_every", int, "epochs between preview pictures"),
        ("device", str, "cpu or cuda"),
        ("workers", int, "processes that make crops on the CPU; 0 makes them on the device that trains"),
        ("threads", int, "of torch on the CPU; 0: torch's own choice"),
    ]:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help=f"{text} (default: {defaults[name]})", metavar=kind.__name__
        )
    parser.add_argument(
        "--decoder-channels", type=int, nargs="+", help=f"coarse to fine (default: {defaults['decoder_channels']})"
    )
    parser.add_argument(
        "--freeze-norm",
        action="store_true",
        default=None,
        help="let batch normalisation keep the statistics that it started with",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status is 0 when a release was written."""
    arguments = vars(build_parser().parse_args(argv))
    out, resume, preset = (arguments.pop(name) for name in ("out", "resume", "preset"))
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    first = os.environ.get("RANK", "0") == "0"  # of those that torchrun starts; one voice is enough
    # Not the root: the hub client tells every request.
    logging.getLogger("resegnet").setLevel(logging.INFO if first else logging.ERROR)
    try:
        given = {name: value for name, value in arguments.items() if value is not None}
        chosen = PRESETS.get(preset, {})
        if resume and (out / OPTIONS_NAME).exists():
            # Of the preset only what a run cannot change, to be checked: it would undo an --epochs of the beginning.
            chosen = {name: value for name, value in chosen.items() if name not in MAY_CHANGE}
            chosen = json.loads((out / OPTIONS_NAME).read_text(encoding="utf-8")) | chosen
        given = chosen | given
        options = TrainingOptions(**{"dataset": (), **given})
        release = train(options, out, resume=resume)
    except (TrainingError, ValueError, OSError) as error:  # DataError and ConfigError are ValueErrors
        print(f"train.py: {error}", file=sys.stderr)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            print(f"Make room, then {_how_to_go_on(out)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train.py: stopped; {_how_to_go_on(out)}", file=sys.stderr)
        return 130
    if first:
        print(f"release: {release}")
    return 0


def _how_to_go_on(out: Path) -> str:
    if (out / CHECKPOINT_NAME).exists():
        return f"go on with: python train.py --out {out} --resume"
    return "start again with the same command; there is no checkpoint yet."


if __name__ == "__main__":
    sys.exit(main())
