"""The command line: `python -m resegnet COMMAND`, also installed as `resegnet`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from resegnet import ImageError, Segmentation, Segmenter
from resegnet.engine import ENGINES
from resegnet.hub import ENVIRONMENT, SHIPPED


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's `run` takes the parsed arguments and gives the exit status."""
    parser = argparse.ArgumentParser(prog="resegnet", description="Find the vessels in colour fundus photographs.")
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="serve the page")
    serve.add_argument(
        "--model", help=f"bundled-cc-by, folder, Hub id or ID@REVISION (default: ${ENVIRONMENT}, else bundled)"
    )
    serve.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    serve.add_argument("--host", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    serve.add_argument("--examples", type=Path, metavar="DIR", help="folder of photographs to offer as examples")
    serve.set_defaults(run=_serve)

    segment = commands.add_parser("segment", help="write mask, probability and overlay of photographs")
    segment.add_argument("photographs", nargs="+", type=Path, metavar="PHOTO")
    segment.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    segment.add_argument("--model", help="bundled-cc-by, folder or Hub id of a release (default: bundled)")
    segment.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    segment.add_argument("--engine", choices=ENGINES, help="what runs the network (default: onnx if the model has it)")
    segment.add_argument("--threshold", type=float, help="probability from which a pixel is a vessel (default: fitted)")
    segment.set_defaults(run=_segment)

    evaluate = commands.add_parser("evaluate", help="score a model on a data set with traced vessels")
    evaluate.add_argument("--dataset", required=True, metavar="SOURCE", help="folder, Hub id or `drawn`")
    evaluate.add_argument("--split", help="split to score (default: test)")
    evaluate.add_argument("--model", help="bundled-cc-by, folder or Hub id of a release (default: bundled)")
    evaluate.add_argument("--revision", help="branch, tag or commit of a model of the Hub")
    evaluate.add_argument("--engine", choices=ENGINES, help="what runs the network (default: onnx if the model has it)")
    evaluate.add_argument("--second-observer", type=Path, metavar="DIR", help="a second person's tracings")
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
    benchmark.add_argument("--model", help="bundled-cc-by, folder or Hub id of a release (default: bundled)")
    benchmark.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds (default: 5)")
    benchmark.add_argument(
        "--files", type=int, default=100, metavar="N", help="photographs in the folder (default: 100)"
    )
    benchmark.set_defaults(run=_benchmark)

    label = commands.add_parser("label", help="label photographs without tracings by models, to train others on")
    label.add_argument("source", type=Path, metavar="SRC", help="folder of photographs")
    label.add_argument("destination", type=Path, metavar="DST", help="folder to make, for train.py's --extra")
    label.add_argument("--model", nargs="+", help="releases, likewise (default: bundled)")
    label.add_argument(
        "--most", type=int, metavar="N", help="so many photographs, evenly over the names (default: all)"
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
    try:
        return arguments.run(arguments)
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
    from resegnet.batch import segment_many

    photographs = list(dict.fromkeys(arguments.photographs))
    several = len(photographs) > 1
    segmenter = Segmenter.from_pretrained(
        arguments.model, revision=arguments.revision, engine=arguments.engine, threads=1 if several else None
    )
    taken: set[str] = set()
    names = {path: _free_name(path.stem, taken) for path in photographs}

    def write(path: Path, result: Segmentation) -> list[str]:
        if arguments.threshold is not None:
            result = result.at(arguments.threshold)
        paths = result.save(arguments.out, names[path])
        density = result.measure()["vessel_density"]
        return [f"{path}: vessels in {density:.1%} of the field, {paths['mask']}", *result.warnings]

    failed = 0
    for _, outcome in segment_many(segmenter, photographs, write):
        if isinstance(outcome, ImageError):
            print(f"resegnet: {outcome}", file=sys.stderr)
            failed += 1
            continue
        print("\n  note: ".join(outcome))
    return 1 if failed else 0


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem` as a file name, numbered where another photograph of this call has it already."""
    from resegnet.results.export import safe_name

    first = name = safe_name(stem)
    number = 2
    while name.casefold() in taken:
        name, number = safe_name(first[:40] + f"_{number}"), number + 1
    taken.add(name.casefold())
    return name


def _evaluate(arguments: argparse.Namespace) -> int:
    from resegnet.learning.agreement import format_agreement, numbers_csv
    from resegnet.learning.data import load_vessels
    from resegnet.learning.evaluation import evaluate_dataset, find_second_observer, format_table
    from resegnet.results.export import json_bytes, safe_name, write_atomically

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
    count = label(segmenters, arguments.source, arguments.destination, arguments.most)
    print(f"{arguments.destination}: {count} photographs labelled")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from resegnet.release import verify_release

    for folder in SHIPPED.values() if arguments.folder is None else [arguments.folder]:
        print(f"{folder}: sound, self-test off by {verify_release(folder):.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
