"""The command line: `python -m resegnet COMMAND`, also installed as `resegnet`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType

from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from resegnet.arguments import fraction, non_negative_integer, path_argument, positive_integer, positive_number
from resegnet.engine import ENGINES
from resegnet.errors import ArgumentError, DataError, OutputError, ResegnetError, require_torch
from resegnet.hub import BUNDLED_RELEASES
from resegnet.segmenter import Segmenter
from resegnet.version import __version__
from resegnet.web.serve import add_serve_arguments

_MODEL_HELP = "release: bundled, bundled-vessels, bundled-cc-by, a folder or a Hub id (default: bundled)"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. The attribute `run` of the parsed arguments is the function of the chosen command."""
    parser = argparse.ArgumentParser(
        prog="resegnet", description="Find the blood vessels in colour fundus photographs."
    )
    parser.add_argument("--version", action="version", version=f"resegnet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands.add_parser("serve", help="serve the web page"))
    _add_segment(commands.add_parser("segment", help="find vessels: masks, overlays and a table of measurements"))
    _add_evaluate(commands.add_parser("evaluate", help="score a release on a data set with reference segmentations"))
    _add_prepare(commands.add_parser("prepare", help="convert the original download of a data set to an image folder"))
    _add_benchmark(commands.add_parser("benchmark", help="compare the speed with a plain U-Net/ResNet34 script"))
    _add_label(commands.add_parser("label", help="pseudo-label photographs by models, as extra training data"))
    _add_verify(commands.add_parser("verify", help="check a release: files, SHA-256, self-test"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add_serve_arguments(parser)
    parser.set_defaults(run=_serve)


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photographs",
        nargs="+",
        metavar="PHOTO",
        help="file, folder, glob pattern, table (.csv, .tsv, .jsonl, .parquet) with a column `image`, Hub data set, or "
        "address such as s3://...",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or address for the results")
    parser.add_argument("--resume", action="store_true", help="keep results that are already there and still valid")
    _add_model(parser)
    parser.add_argument(
        "--engine",
        choices=(*ENGINES, "ray"),
        help="inference engine (default: onnx if the release has it); ray runs the default engine on a Ray cluster",
    )
    parser.add_argument(
        "--address", help="address of the Ray cluster, or `auto` (default: $RAY_ADDRESS, else this machine)"
    )
    parser.add_argument(
        "--workers", type=positive_integer, metavar="N", help="photographs at a time (default: one per processor)"
    )
    parser.add_argument(
        "--threshold",
        type=fraction,
        metavar="X",
        help="probability from which a pixel is called vessel, 0 to 1 (default: the fitted threshold of the release)",
    )
    parser.add_argument(
        "--um-per-px",
        type=positive_number,
        metavar="X",
        help="micrometres per pixel of photographs whose table gives none (default: as in their DICOM files)",
    )
    parser.add_argument("--probability", action="store_true", help="also write the probability, as 16-bit PNG")
    parser.add_argument("--quadrants", action="store_true", help="also measure the four quadrants of the field")
    parser.add_argument("--no-overlay", action="store_true", help="do not write overlays")
    parser.add_argument("--no-anatomy", action="store_true", help="leave out arteries, veins, disc, fovea and eye")
    parser.add_argument("--split", help="split of a data set (default: all splits)")
    parser.set_defaults(run=_segment)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=os.path.expanduser,
        required=True,
        metavar="SOURCE",
        help="folder, Hub id or `synthetic`",
    )
    parser.add_argument(
        "--split",
        default="test",
        help="split to score; with --anatomy also `validation`, the photographs of `train` with disc or fovea that the "
        "training held back (default: test)",
    )
    _add_model(parser)
    parser.add_argument("--engine", choices=ENGINES, help="inference engine (default: onnx if the release has it)")
    parser.add_argument(
        "--second-observer",
        type=path_argument,
        metavar="DIR",
        help="folder of reference segmentations by a second person",
    )
    parser.add_argument("--json", type=path_argument, metavar="FILE", help="write the report to this file")
    parser.add_argument(
        "--numbers",
        type=path_argument,
        metavar="FILE",
        help="measure the vessels found and those of the reference, and write the measurements to this CSV file",
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="DIR",
        help="folder for the error maps of the photographs with the lowest F1 (default: errors/SOURCE)",
    )
    parser.add_argument(
        "--worst", type=non_negative_integer, default=3, metavar="N", help="number of error maps (default: 3)"
    )
    parser.add_argument(
        "--stress",
        action="store_true",
        help="also score every photograph enlarged, softened, darkened, compressed and discoloured (slow)",
    )
    parser.add_argument(
        "--anatomy",
        action="store_true",
        help="also score arteries and veins, or the optic disc, fovea and eye of a folder with references of these",
    )
    parser.add_argument(
        "--save", action="store_true", help="add the scores to metrics.json of the release, which its model card shows"
    )
    parser.set_defaults(run=_evaluate)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="drive, chase_db1, stare, hrf, fives, dr_hagis, aria or orvs")
    parser.add_argument("source", type=path_argument, metavar="SRC", help="folder of the unpacked download")
    parser.add_argument("destination", type=path_argument, metavar="DST", help="image folder to create")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="publish it as a data set on the Hub, as Parquet")
    parser.add_argument("--private", action="store_true", help="make the published data set private")
    parser.set_defaults(run=_prepare)


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photographs", nargs="*", type=path_argument, metavar="PHOTO", help="photographs (default: two synthetic ones)"
    )
    parser.add_argument("--model", help=_MODEL_HELP)
    parser.add_argument(
        "--repeats", type=positive_integer, default=5, metavar="N", help="rounds; medians are shown (default: 5)"
    )
    parser.add_argument(
        "--files",
        type=non_negative_integer,
        default=100,
        metavar="N",
        help="photographs in the folder that is segmented as a whole, 0 to skip it (default: 100)",
    )
    parser.set_defaults(run=_benchmark)


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=path_argument, metavar="SRC", help="folder of photographs")
    parser.add_argument(
        "destination", type=path_argument, metavar="DST", help="image folder to create, for `train.py --extra`"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        help="one or more releases, whose probabilities are averaged: bundled, bundled-vessels, bundled-cc-by, folders "
        "or Hub ids (default: bundled)",
    )
    parser.add_argument(
        "--limit",
        type=positive_integer,
        metavar="N",
        help="largest number of photographs, taken evenly from the sorted names (default: all)",
    )
    parser.set_defaults(run=_label)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=path_argument, nargs="?", help="release to check (default: the bundled releases)"
    )
    parser.set_defaults(run=_verify)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=_MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a release on the Hub")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        Exit status: 0 for success, 1 if something could not be done, 130 if interrupted.
    """
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    arguments = build_parser().parse_args(argv)
    return run_command(partial(arguments.run, arguments))


def _interrupt_once(signum: int, frame: FrameType | None) -> None:
    """Handle Ctrl+C. Pressed again, it would interrupt the tidying up after the first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_command(command: Callable[[], int], name: str = "resegnet") -> int:
    """Run a command, and print errors that the user can mend as one line that starts with `name`.

    An error of any other kind is a defect of this package; it keeps its traceback.

    Returns
    -------
    int
        Exit status of the command, 1 after such an error, 130 if interrupted.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("resegnet").setLevel(logging.INFO)  # not the root logger: the Hub client logs every request
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the bytes of a file name may not be valid UTF-8
    try:
        status = command()
        sys.stdout.flush()  # here, since Python reports a pipe that is closed at its exit as an error of its own
        return status
    except BrokenPipeError:  # stdout is closed, for example by `| head`; Python flushes it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ResegnetError, HfHubHTTPError, HFValidationError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("resegnet."):
            raise
        print(
            f"{name}: {error.name} is not part of this copy, which comes from a Space and holds what its page needs: "
            "install ReSegNet from its repository.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130


def _serve(arguments: argparse.Namespace) -> int:
    from resegnet.web.serve import serve

    return serve(arguments.model, arguments.revision, arguments.host, arguments.port, arguments.examples)


def _segment(arguments: argparse.Namespace) -> int:
    from resegnet.cohort.lines import Teller, summary_lines
    from resegnet.cohort.listing import list_photographs
    from resegnet.cohort.run import by_threads, make_folder, segment_cohort
    from resegnet.cohort.store import is_remote
    from resegnet.cohort.work import CohortOptions, Work

    on_cluster = arguments.engine == "ray"
    if arguments.address is not None and not on_cluster:
        raise ArgumentError("--address is for a Ray cluster: add --engine ray, or leave out --address.")
    out = arguments.out if is_remote(arguments.out) else os.path.expanduser(arguments.out)
    options = CohortOptions(
        out,
        threshold=arguments.threshold,
        um_per_px=arguments.um_per_px,
        overlay=not arguments.no_overlay,
        probability=arguments.probability,
        quadrants=arguments.quadrants,
        resume=arguments.resume,
    )
    photographs = list_photographs(arguments.photographs, arguments.split)
    if not photographs:
        raise DataError(f"No photograph was found in {', '.join(arguments.photographs)}.")
    load = partial(
        Segmenter.from_pretrained,
        arguments.model,
        revision=arguments.revision,
        engine=None if on_cluster else arguments.engine,
        threads=1 if on_cluster or len(photographs) > 1 else None,
        anatomy=not arguments.no_anatomy,
    )
    segmenter = load()  # before work on a cluster too, so that a wrong --model is reported at once
    if options.threshold is None:  # run.json tells the threshold that was used
        options = replace(options, threshold=segmenter.config.threshold)
    folder = out.rstrip("/")
    try:
        make_folder(options)
    except OutputError as error:
        raise OutputError(f"{error}: give a folder or address that can be written to as --out.") from error
    try:
        if on_cluster:
            from resegnet.cohort.cluster import on_ray

            outcomes = on_ray(load, options, photographs, arguments.workers, arguments.address)
        else:
            outcomes = by_threads(Work(segmenter, options), photographs, arguments.workers)
        counts = segment_cohort(photographs, options, outcomes, Teller(folder, len(photographs)), shards=on_cluster)
    except OutputError as error:
        raise OutputError(
            f"{error}. The results written so far are complete: mend the cause, then run the same command with "
            "--resume."
        ) from error
    except KeyboardInterrupt:
        print("resegnet: stopped; to continue, run the same command with --resume.", file=sys.stderr)
        return 130
    print(*summary_lines(counts, options, folder), sep="\n")
    return 1 if counts.failed else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from resegnet.learning.evaluate import evaluate

    return evaluate(arguments)


def _prepare(arguments: argparse.Namespace) -> int:
    from resegnet.learning.prepare import check_publishable, is_prepared, prepare, publish

    name, destination, repo_id = arguments.name, arguments.destination, arguments.push_to_hub
    if repo_id is not None:
        check_publishable(name, repo_id, private=arguments.private)
    if repo_id is not None and is_prepared(destination, name):
        print(f"{destination}: prepared already")
    else:
        counts = prepare(name, arguments.source, destination)
        print(f"{destination}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    if repo_id is not None:
        publish(destination, name, repo_id, private=arguments.private)
        print(f"published as {repo_id}")
    return 0


def _benchmark(arguments: argparse.Namespace) -> int:
    require_torch("the benchmark")
    from resegnet.benchmark import benchmark

    for line in benchmark(arguments.photographs, arguments.model, arguments.repeats, arguments.files):
        print(line, flush=True)
    return 0


def _label(arguments: argparse.Namespace) -> int:
    from resegnet.learning.label import label

    segmenters = [Segmenter.from_pretrained(model) for model in arguments.model or [None]]
    labelled, left_out = label(segmenters, arguments.source, arguments.destination, arguments.limit)
    print(f"{arguments.destination}: {labelled} photographs labelled, {left_out} left out")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from resegnet.releases.release import verify_release

    for folder in BUNDLED_RELEASES.values() if arguments.folder is None else [arguments.folder]:
        difference = verify_release(folder)
        if difference is not None:
            print(f"{folder}: sound; the self-test's probabilities differ by at most {difference:.6f}")
        else:
            print(f"{folder}: files and model.onnx are sound; the weights were not run, as torch is not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
