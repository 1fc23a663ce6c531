"""Inputs that strangers send: files of every format, whole, cut and altered, costly and hostile ones, and odd objects.

Run as a program, it reads them all in one process and prints a line of JSON for each: the outcome, the processor time
and the peak of additional memory.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resegnet.config import Config
from resegnet.errors import ImageError
from resegnet.image import read_image
from resegnet.segmenter import Segmenter
from support.corpus_files import Case, files, foreign, with_metadata
from support.costly_files import costly
from support.pictures import PHOTO, encode

HANGS_S = 180  # wall time on a busy machine, after which the process is stopped with a traceback
SEGMENTED_PX = 1_000_000  # larger pictures are read, but not segmented


# --- objects


class Reader:
    """A file object with the given `read` method and attributes."""

    def __init__(self, read: Callable[[int], Any], **attributes: Any) -> None:
        self.read = read
        self.seekable = lambda: False
        vars(self).update(attributes)


class Raises:
    """An object that raises on every attribute."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Raises
        raise RuntimeError(name)


class LyingPath(os.PathLike):
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        if isinstance(self.path, Exception):
            raise self.path
        return self.path


def objects() -> Iterator[Case]:
    good = encode(Image.fromarray(PHOTO), "PNG")
    reads = {
        "more than asked for": lambda n: good * 2 if n else b"",
        "endless zeros": lambda n: bytes(min(n, 10**6)),
        "endless single bytes": lambda n: b"P",
        "text": lambda n: "text",
        "None": lambda n: None,
        "numbers": lambda n: 7,
        "a list": lambda n: [1, 2],
        "an array": lambda n: PHOTO,
        "less each time": iter([good[:9], b""]).__next__,
        "floats in a view": lambda n: memoryview(np.zeros(9)),
        "an error": lambda n: 1 // 0,
        "recursion": lambda n: (lambda f: f(f))(lambda f: f(f)),
    }
    for name, read in reads.items():
        yield Case(f"read gives {name}", partial(Reader, read))
    yield Case("seek raises", partial(Reader, lambda n: good, seekable=lambda: 1 // 0), refused=True)
    yield Case("a name of many lines", partial(Reader, lambda n: b"", name="a\n\x1b[31m" * 10**6), refused=True)
    yield Case("a name that is a number", partial(Reader, lambda n: b"", name=3), refused=True)
    yield Case("/dev/zero, opened", lambda: open("/dev/zero", "rb"), refused=True)  # noqa: SIM115
    yield Case("every attribute raises", Raises, refused=True)
    for path in (7, None, RuntimeError("no path")):
        yield Case(f"a path object that gives {path!r}", partial(LyingPath, path), refused=True)
    yield Case("every second byte", lambda: memoryview(b"".join(bytes([b, 0]) for b in good))[::2], PHOTO)
    released = memoryview(good)
    released.release()
    yield Case("a released view", lambda: released, refused=True)
    for thing in (
        None,
        7,
        1.5,
        object(),
        {},
        [],
        (),
        int,
        read_image,
        "x" * 10**7,
        b"x" * 10**7,
        type("T" * 10**6, (), {})(),
    ):
        yield Case(f"{type(thing).__name__[:20]} object", lambda t=thing: t, refused=True)
    for mode in Image.MODES:
        yield Case(f"Pillow {mode}", partial(Image.new, mode, (40, 30)))
    for mode in ("LAB", "HSV", "YCbCr", "La", "RGBa", "RGBX", "PA", "I;16B", "I;16L"):
        yield Case(f"Pillow {mode}, odd", partial(Image.new, mode, (40, 30)))
    closed = Image.open(io.BytesIO(good))
    closed.close()
    yield Case("a closed Pillow image", lambda: closed, refused=True)
    yield Case("an empty Pillow image", partial(Image.new, "RGB", (0, 0)), refused=True)

    ramp = np.linspace(0, 1, 40 * 30).reshape(40, 30)
    arrays = {
        "nan": np.full((9, 9), np.nan),
        "inf": np.full((9, 9), -np.inf),
        "nan in half precision": np.full((9, 9), np.nan, "e"),
        "nan in long doubles": np.full((9, 9), np.nan, "g"),
        "negative floats": ramp - 1,
        "huge floats": ramp * 1e308,
        "complex": ramp + 1j,
        "objects": np.full((9, 9), 10**400, object),
        "text": np.full((9, 9), "eye"),
        "dates": np.zeros((9, 9), "M8[s]"),
        "huge integers": np.full((9, 9), 2**63, "u8"),
        "no pixels": np.zeros((0, 9)),
        "no columns": np.zeros((9, 0, 3)),
        "no colours": np.zeros((9, 9, 0)),
        "5-D": np.zeros((1, 1, 9, 9, 3)),
        "64-D": np.zeros((1,) * 64),
        "0-D": np.zeros(()),
        "many fields": np.zeros((9, 9), [(f"field{i}" * 20, "u1") for i in range(2000)]),
        "300 colours": np.zeros((9, 9, 300)),
        "oversize": np.broadcast_to(np.uint8(1), (20_000, 20_000, 3)),
        "signed": np.zeros((9, 9), "i1"),
        "void": np.zeros((9, 9), "V1000000"),
    }
    for name, array in arrays.items():
        yield Case(f"array: {name}", lambda a=array: a, refused=True)
    rounded = np.repeat(np.rint(ramp * 255).astype(np.uint8)[..., None], 3, axis=2)
    good_arrays = {
        "floats": (ramp, rounded),
        "byte-swapped floats": (ramp.astype(">f8"), rounded),
        "long doubles": (ramp.astype("g"), rounded),
        "columns first": (np.asfortranarray(PHOTO), PHOTO),
        "steps": (PHOTO[::-2, ::3], PHOTO[::-2, ::3]),
        "byte-swapped integers": (PHOTO.astype(">u2") * 257, PHOTO),
        "masked": (np.ma.masked_array(PHOTO, PHOTO > 9), PHOTO),
        "read-only": (np.frombuffer(PHOTO.tobytes(), "u1").reshape(PHOTO.shape), PHOTO),
        "strides of 0": (np.broadcast_to(np.uint8(7), (40, 30)), np.full((40, 30, 3), 7, np.uint8)),
        "1 x 1": (np.zeros((1, 1)), (1, 1)),
        "1 x 20000": (np.zeros((20_000, 1)), (20_000, 1)),
        "20000 x 1": (np.zeros((1, 20_000, 3)), (1, 20_000)),
        "24 x 100000": (np.tile(rounded[:24], (1, 4000, 1))[:, :100_000], (24, 100_000)),
        "lone pixels": (np.eye(600) > 0, (600, 600)),
    }
    for name, (array, truth) in good_arrays.items():
        yield Case(f"array: {name}", lambda a=array: a, truth)


def cases(folder: Path) -> Iterator[Case]:
    yield from files(folder)
    yield from with_metadata()
    yield from foreign(folder)
    yield from objects()
    yield from costly(folder)


# --- reading them


def memory_mb(field: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def outcome(case: Case, segmenter: Segmenter) -> dict[str, Any]:
    source = case.make()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    before, start = memory_mb("VmRSS"), time.process_time()
    told: dict[str, Any] = {"case": case.name, "refused": case.refused, "fault": ""}
    image = None
    try:
        image = read_image(source)
    except ImageError as error:
        told["message"] = str(error)
    except BaseException:
        told["fault"] = traceback.format_exc()
    told |= {"seconds": time.process_time() - start, "mb": memory_mb("VmHWM") - before}
    if image is not None:
        told["shape"] = image.shape
        if case.refused:
            told["fault"] = "was read"
        elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.writeable:
            told["fault"] = f"{image.dtype} {image.shape}"
        elif isinstance(case.truth, tuple) and image.shape[:2] != case.truth:
            told["fault"] = f"{image.shape} instead of {case.truth}"
        elif isinstance(case.truth, np.ndarray) and not np.array_equal(image, case.truth):
            told["fault"] = "other pixels"
    elif case.truth is not None and not told["fault"]:
        told["fault"] = told["message"]
    if image is not None and image.size <= 3 * SEGMENTED_PX:
        start = time.process_time()
        try:
            result = segmenter(image)
            if result.mask.shape != image.shape[:2] or not np.isfinite(result.probability).all():
                told["fault"] = "a wrong segmentation"
        except BaseException:
            told["fault"] = traceback.format_exc()
        told["segmented_s"] = time.process_time() - start
    return told


def main() -> None:
    folder = Path(sys.argv[1])
    # The network does not matter here; the steps round it do.
    segmenter = Segmenter(lambda rgb: rgb[:, 1], Config(input_size=64))
    segmenter(PHOTO)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # protects the machine of the test if a limit fails
    for case in cases(folder):
        print(json.dumps({"begun": case.name}), flush=True)
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        print(json.dumps(outcome(case, segmenter)), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
