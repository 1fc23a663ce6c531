"""The command line: `python -m resegnet COMMAND`, also installed as `resegnet`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resegnet.engine import ENGINES
from resegnet.hub import BUNDLED_RELEASES, MODEL_VARIABLE
from resegnet.segmenter import Segmenter

if TYPE_CHECKING:
    from resegnet.cohort.listing import Photograph

MANY = 20  # photographs; of more, only what fails is told one by one


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's `run` takes the parsed arguments and gives the exit status."""
    parser = argparse.ArgumentParser(prog="resegnet", description="Find the vessels in colour fundus photographs.")
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="serve the page")
    asked = f"bundled, bundled-cc-by, folder, Hub id, ID@REVISION (default: ${MODEL_VARIABLE}, else bundled)"
    serve.add_argument("--model", help=asked)
    serve.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    serve.add_argument("--host", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    serve.add_argument("--examples", type=Path, metavar="DIR", help="folder of photographs to offer as examples")
    serve.set_defaults(run=_serve)

    segment = commands.add_parser("segment", help="masks, overlays and a table of numbers of photographs")
    segment.add_argument(
        "photographs",
        nargs="+",
        metavar="PHOTO",
        help="file, folder, glob, table (.csv, .parquet) with a column `image`, Hub data set, or address such as s3://...",
    )
    segment.add_argument("--out", required=True, metavar="DIR", help="folder, or address, for the results")
    segment.add_argument("--resume", action="store_true", help="go on: leave what is there and fits, make the rest")
    segment.add_argument("--model", help="bundled, bundled-cc-by, folder or Hub id (default: bundled)")
    segment.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    segment.add_argument(
        "--engine",
        choices=(*ENGINES, "ray"),
        help="what runs the network (default: onnx if the model has it); ray: that default, on a Ray cluster",
    )
    segment.add_argument("--address", help="of the Ray cluster, or `auto` (default: $RAY_ADDRESS, else this machine)")
    segment.add_argument("--workers", type=int, metavar="N", help="photographs at a time (default: one per processor)")
    segment.add_argument("--threshold", type=float, help="probability from which a pixel is a vessel (default: fitted)")
    segment.add_argument("--um-per-px", type=float, metavar="X", help="scale, where a table has no column um_per_px")
    segment.add_argument("--probability", action="store_true", help="write the probabilities too, as 16-bit PNG")
    segment.add_argument("--no-overlay", action="store_true", help="write no overlays")
    segment.add_argument("--split", help="split of data sets (default: all)")
    segment.set_defaults(run=_segment)

    evaluate = commands.add_parser("evaluate", help="score a model on a data set with traced vessels")
    evaluate.add_argument("--dataset", required=True, metavar="SOURCE", help="folder, Hub id or `synthetic`")
    evaluate.add_argument("--split", help="split to score (default: test)")
    evaluate.add_argument("--model", help="bundled, bundled-cc-by, folder or Hub id (default: bundled)")
    evaluate.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    evaluate.add_argument("--engine", choices=ENGINES, help="what runs the network (default: onnx if the model has it)")
    evaluate.add_argument("--second-observer", type=Path, metavar="DIR", help="a second person's references")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
    evaluate.add_argument(
        "--numbers", type=Path, metavar="FILE", help="measure the vessels found and traced, write it here as CSV"
    )
    evaluate.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for error maps of the worst pictures (default: errors/SOURCE)"
    )
    evaluate.add_argument("--worst", type=int, metavar="N", help="how many of them (default: 3)")
    evaluate.set_defaults(run=_evaluate)

    prepare = commands.add_parser("prepare", help="turn the original download of a data set into an image folder")
    prepare.add_argument("name", help="drive, chase_db1, stare, hrf or fives")
    prepare.add_argument("source", type=Path, metavar="SRC", help="folder of the unpacked download")
    prepare.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    prepare.add_argument("--push-to-hub", metavar="USER/NAME", help="publish it as a data set on the Hub, as Parquet")
    prepare.add_argument("--private", action="store_true", help="make that data set private")
    prepare.set_defaults(run=_prepare)

    benchmark = commands.add_parser("benchmark", help="time this package against a plain U-Net/ResNet34 script")
    benchmark.add_argument("photographs", nargs="*", type=Path, metavar="PHOTO", help="default: two drawn ones")
    benchmark.add_argument("--model", help="bundled, bundled-cc-by, folder or Hub id (default: bundled)")
    benchmark.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds (default: 5)")
    benchmark.add_argument(
        "--files", type=int, default=100, metavar="N", help="photographs in the folder (default: 100)"
    )
    benchmark.set_defaults(run=_benchmark)

    label = commands.add_parser("label", help="label photographs without references by models, to train others on")
    label.add_argument("source", type=Path, metavar="SRC", help="folder of photographs")
    label.add_argument("destination", type=Path, metavar="DST", help="folder to make, for train.py's --extra")
    label.add_argument("--model", nargs="+", help="releases, likewise (default: bundled)")
    label.add_argument(
        "--limit", type=int, metavar="N", help="label at most N photographs, evenly over the names (default: all)"
    )
    label.set_defaults(run=_label)

    verify = commands.add_parser("verify", help="check a release: files, hashes, self-test")
    verify.add_argument("folder", type=Path, nargs="?", help="default: those that are bundled")
    verify.set_defaults(run=_verify)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 if all went well, 1 if something could not be done."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("resegnet").setLevel(logging.INFO)  # not the root: the hub client tells every request
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may be of any bytes
    try:
        return arguments.run(arguments)
    except BrokenPipeError:  # of `| head`; Python flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:  # ImageError, ConfigError, DataError, ReleaseError, and the Hub's own
        print(f"resegnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("resegnet: stopped", file=sys.stderr)
        return 130


def _serve(arguments: argparse.Namespace) -> int:
    from resegnet.web.serve import serve

    return serve(arguments.model, arguments.revision, arguments.host, arguments.port, arguments.examples)


def _segment(arguments: argparse.Namespace) -> int:
    from resegnet.cohort.listing import list_photographs
    from resegnet.cohort.tables import TABLE
    from resegnet.cohort.work import CohortOptions, Work, by_threads, make_folder, segment_cohort
    from resegnet.errors import OutputError

    on_cluster = arguments.engine == "ray"
    if arguments.address is not None and not on_cluster:
        raise ValueError("--address is that of a Ray cluster: add --engine ray, or leave it out.")
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers is {arguments.workers}, expected 1 or more.")
    options = CohortOptions(
        arguments.out,
        threshold=arguments.threshold,
        um_per_px=arguments.um_per_px,
        overlay=not arguments.no_overlay,
        probability=arguments.probability,
        resume=arguments.resume,
    )
    photographs = list_photographs(arguments.photographs, arguments.split)
    if not photographs:
        raise ValueError(f"There is no photograph in {', '.join(arguments.photographs)}.")
    load = partial(
        Segmenter.from_pretrained,
        arguments.model,
        revision=arguments.revision,
        engine=None if on_cluster else arguments.engine,
        threads=1 if on_cluster or len(photographs) > 1 else None,
    )
    segmenter = load()  # also for a cluster: what is wrong with it is told here

    folder = arguments.out.rstrip("/")

    def tell(photograph: Photograph, outcome: dict) -> None:
        if "error" in outcome:
            print(f"resegnet: {photograph.id}: {outcome['error']}", file=sys.stderr)
        elif len(photographs) <= MANY:
            row = outcome["row"]
            share = "no field of view" if row["vessel_density"] is None else f"{row['vessel_density']:.1%} of the field"
            print(f"{photograph.source}: vessels in {share}, {folder}/{row['mask']}")
            if row["warnings"]:
                print(f"  note: {row['warnings']}")

    try:
        make_folder(options)
        if on_cluster:
            from resegnet.cohort.cluster import on_ray

            outcomes = on_ray(load, options, photographs, arguments.workers, arguments.address)
        else:
            outcomes = by_threads(Work(segmenter, options), photographs, arguments.workers)
        counts = segment_cohort(photographs, options, outcomes, tell, shards=on_cluster)
    except OutputError as error:
        raise OutputError(f"{error}. What was done is in order; once that is mended, --resume goes on.") from error
    except KeyboardInterrupt:
        print("resegnet: stopped; the same command with --resume goes on.", file=sys.stderr)
        return 130
    kept = f" ({counts['kept']} of them before)" if counts["kept"] else ""
    failed = f", {counts['failed']} failed, see failures.csv" if counts["failed"] else ""
    table = f"; table: {folder}/{TABLE}" if counts["done"] else ""
    print(f"{counts['done']} of {len(photographs)} done{kept}{failed}{table}")
    return 1 if counts["failed"] else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from resegnet.io import json_bytes, safe_name, write_atomically
    from resegnet.learning.data import load_vessels
    from resegnet.learning.evaluation import evaluate_dataset, find_second_observer, format_table
    from resegnet.results.agreement import format_agreement, numbers_csv

    split = arguments.split or "test"
    report = evaluate_dataset(
        Segmenter.from_pretrained(arguments.model, revision=arguments.revision, engine=arguments.engine),
        load_vessels(arguments.dataset, split),
        second_observer=arguments.second_observer or find_second_observer(arguments.dataset),
        worst=3 if arguments.worst is None else arguments.worst,
        out=arguments.out or Path("errors") / safe_name(Path(arguments.dataset).name),
        numbers=arguments.numbers is not None,
    )
    print(format_table(report))
    if arguments.numbers is not None:
        print("", format_agreement(report), sep="\n")
        arguments.numbers.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.numbers, numbers_csv(report))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json_bytes({"source": arguments.dataset, "split": split, **report}))
    return 0


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
    from resegnet.benchmark import benchmark

    for line in benchmark(arguments.photographs, arguments.model, arguments.repeats, arguments.files):
        print(line, flush=True)
    return 0


def _label(arguments: argparse.Namespace) -> int:
    from resegnet.learning.label import label

    segmenters = [Segmenter.from_pretrained(model) for model in arguments.model or [None]]
    count = label(segmenters, arguments.source, arguments.destination, arguments.limit)
    print(f"{arguments.destination}: {count} photographs labelled")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from resegnet.releases.release import verify_release

    for folder in BUNDLED_RELEASES.values() if arguments.folder is None else [arguments.folder]:
        print(f"{folder}: sound, self-test off by {verify_release(folder):.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
