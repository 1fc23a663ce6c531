"""Public data sets as their owners distribute them: the files of each download, and how it is split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

Files = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Eye:
    """One photograph of a download: its names, and the files that belong to it.

    Files are named in lower case and without `.gz`: by file name or, where names repeat, with the last two folders.
    """

    split: str
    image_id: str
    patient: str
    image: str
    mask: str
    fov: str | None = None
    second: str | None = None


@dataclass(frozen=True)
class Original:
    """How a public data set is split, and the photographs that its download must hold."""

    split: str  # sentence about the split, for the README of the prepared data set
    layout: str  # a few file names, for the message about missing ones
    find_eyes: Callable[[Files], list[Eye]]


def _drive_eyes(files: Files) -> list[Eye]:
    eyes = []
    for number in [*range(21, 41), *range(1, 21)]:
        folder = "training" if number > 20 else "test"
        eyes.append(
            Eye(
                split="train" if number > 20 else "test",
                image_id=f"drive_{number:02d}",
                patient=f"drive_{number:02d}",
                image=f"{number:02d}_{folder}.tif",
                mask=f"{number:02d}_manual1.gif",
                fov=f"{number:02d}_{folder}_mask.gif",
                second=f"{number:02d}_manual2.gif",
            )
        )
    if not any(eye.mask in files for eye in eyes if eye.split == "test"):
        logger.warning(
            "This download of DRIVE has no references of its test photographs (test/1st_manual): since DRIVE "
            "became a challenge they are not published. The split 'test' is left out."
        )
        eyes = [eye for eye in eyes if eye.split == "train"]
    return eyes


def _chase_eyes(files: Files) -> list[Eye]:
    return [
        Eye(
            split="train" if child <= 10 else "test",
            image_id=f"chase_{child:02d}{side}",
            patient=f"chase_{child:02d}",
            image=f"image_{child:02d}{side.lower()}.jpg",
            mask=f"image_{child:02d}{side.lower()}_1stho.png",
            second=f"image_{child:02d}{side.lower()}_2ndho.png",
        )
        for child in range(1, 15)
        for side in "LR"
    ]


def _stare_eyes(files: Files) -> list[Eye]:
    # The 20 of about 400 photographs of the collection that two people segmented.
    numbers = [1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324]
    return [
        Eye(
            split="train" if position < 10 else "test",
            image_id=f"stare_im{number:04d}",
            patient=f"stare_im{number:04d}",
            image=f"im{number:04d}.ppm",
            mask=f"im{number:04d}.ah.ppm",
            second=f"im{number:04d}.vk.ppm",
        )
        for position, number in enumerate(numbers)
    ]


def _hrf_eyes(files: Files) -> list[Eye]:
    # The same number in two groups means two persons.
    return [
        Eye(
            split="train" if number <= 5 else "test",
            image_id=f"hrf_{number:02d}_{group}",
            patient=f"hrf_{number:02d}_{group}",
            image=f"{number:02d}_{group}.jpg",
            mask=f"{number:02d}_{group}.tif",
            fov=f"{number:02d}_{group}_mask.tif",
        )
        for number in range(1, 16)
        for group in ("dr", "g", "h")
    ]


def _fives_eyes(files: Files) -> list[Eye]:
    # The numbers start again in each split. The test photographs get a `t`: `datasets` takes the word "test" in a
    # file name for a split.
    eyes = []
    for split, mark in (("train", ""), ("test", "t")):
        # Names of photographs and of references, so that one without the other is reported as missing.
        names = {
            key.rsplit("/", 1)[-1]
            for key in files
            if key.startswith((f"{split}/original/", f"{split}/ground truth/")) and key.endswith(".png")
        }
        for name in sorted(names, key=lambda name: (len(name), name)):
            number, _, group = name.removesuffix(".png").partition("_")
            image_id = f"fives_{mark}{number.zfill(3)}_{group.upper()}"
            eyes.append(
                Eye(
                    split=split,
                    image_id=image_id,
                    patient=image_id,
                    image=f"{split}/original/{name}",
                    mask=f"{split}/ground truth/{name}",
                )
            )
    return eyes


PREPARERS = {
    "drive": Original(
        split="by the owners: 21-40 to train, 01-20 to test",
        layout="training/images/21_training.tif, training/1st_manual/21_manual1.gif, "
        "training/mask/21_training_mask.gif, test/images/01_test.tif, test/1st_manual/01_manual1.gif, "
        "test/mask/01_test_mask.gif and so on",
        find_eyes=_drive_eyes,
    ),
    "chase_db1": Original(
        split="children 01-10 to train, 11-14 to test; the owners define none",
        layout="Image_01L.jpg, Image_01L_1stHO.png and so on, both eyes of 14 children",
        find_eyes=_chase_eyes,
    ),
    "stare": Original(
        split="the first ten by number to train, the last ten to test, as in mmsegmentation; the owner defines none",
        layout="im0001.ppm (stare-images.tar), im0001.ah.ppm (labels-ah.tar) and so on, or their .gz, "
        "of 20 photographs",
        find_eyes=_stare_eyes,
    ),
    "hrf": Original(
        split="01-05 of each group to train, 06-15 to test; the owners define none",
        layout="images/01_h.jpg, manual1/01_h.tif, mask/01_h_mask.tif and so on, 15 each of h, dr and g",
        find_eyes=_hrf_eyes,
    ),
    "fives": Original(
        split="by the owners: 600 to train, 200 to test. The 800 photographs are of fewer persons; the "
        "download does not name them, so each photograph counts as a patient of its own",
        layout="train/Original/1_A.png, train/Ground truth/1_A.png, test/Original/1_A.png, "
        "test/Ground truth/1_A.png and so on",
        find_eyes=_fives_eyes,
    ),
}
