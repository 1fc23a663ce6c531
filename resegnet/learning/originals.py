"""Public data sets as their owners distribute them: the files of each download, and how it is split."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resegnet.dataset_source import by_numbers

logger = logging.getLogger(__name__)

Files = Mapping[str, Sequence[Path]]

_PICTURES = ("jpg", "jpeg", "png", "tif", "tiff")


@dataclass(frozen=True)
class Eye:
    """One photograph of a download: its names, and the files that belong to it.

    Files are named in lower case and without `.gz`: by file name or, where names repeat, with the last two or four
    folders.
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
    tests = [eye for eye in eyes if eye.split == "test"]
    if any(eye.image in files for eye in tests) and not any(eye.mask in files for eye in tests):
        logger.warning(
            "This download of DRIVE has no references of its test photographs (test/1st_manual): since DRIVE "
            "became a challenge they are not published. The split 'test' is left out: train.py and evaluate need one, "
            "so add one of photographs of your own, or take another data set."
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


def _dr_hagis_eyes(files: Files) -> list[Eye]:
    test = (33, 34, 35, 37, 39, 40)
    return [
        Eye(
            split="test" if number in test else "train",
            image_id=f"drhagis_{number:03d}",
            patient=f"drhagis_{number:03d}",
            image=f"{number}.jpg",
            mask=f"{number}_manual_orig.png",
            fov=f"{number}_mask_orig.png",
        )
        for number in range(1, 41)
        if number != 32  # the same photograph as 24
    ]


def _aria_eyes(files: Files) -> list[Eye]:
    """Return the photographs of the owners' archives or, failing that, of the copy beside ORVS."""
    eyes = []
    for group in "acd":
        photographs = _in_folder(files, f"aria_{group}_markups")
        vessels = _in_folder(files, f"aria_{group}_markup_vessel")
        # Names of photographs and of references, so that one without the other is reported as missing.
        stems = photographs.keys() | {stem.removesuffix("_bdp") for stem in vessels if stem.endswith("_bdp")}
        for position, stem in enumerate(sorted(stems, key=by_numbers)):
            # The number in brackets that a few names start with goes to the end: (0001)aria_d_26.
            prefix, name = re.fullmatch(r"(?:\((\d+)\))?(.*)", stem).groups()  # type: ignore[union-attr]
            image_id = name if prefix is None else f"{name}_{prefix}"
            eyes.append(
                Eye(
                    split="train" if position < round(5 / 6 * len(stems)) else "test",
                    image_id=image_id,
                    patient=image_id,
                    image=photographs.get(stem, f"aria_{group}_markups/{stem}.tif"),
                    mask=vessels.get(f"{stem}_bdp", f"aria_{group}_markup_vessel/{stem}_bdp.tif"),
                    second=vessels.get(f"{stem}_bss"),
                )
            )
    return eyes or _eyes_of_sarhan(files, "aria")


def _orvs_eyes(files: Files) -> list[Eye]:
    return _eyes_of_sarhan(files, "orvs")


def _eyes_of_sarhan(files: Files, name: str) -> list[Eye]:
    """Return the photographs of one folder of the download of Sarhan et al., which holds ORVS and copies of other sets.

    Its splits are folders: `ORVS/Train/Original/Images/2012.jpg` and `ORVS/Train/Original/Labels/2012.jpg`.
    """
    eyes = []
    for split in ("train", "test"):
        folder = f"{name}/{split}/original"
        photographs, vessels = (_in_folder(files, f"{folder}/{part}") for part in ("images", "labels"))
        for stem in sorted(photographs.keys() | vessels.keys(), key=by_numbers):
            image_id = f"{name}_{stem}"
            eyes.append(
                Eye(
                    split=split,
                    image_id=image_id,
                    patient=image_id,
                    image=photographs.get(stem, f"{folder}/images/{stem}"),
                    mask=vessels.get(stem, f"{folder}/labels/{stem}"),
                )
            )
    return eyes


def _in_folder(files: Files, folder: str) -> dict[str, str]:
    """Map the names of a folder's pictures, without suffix and spaces, to their names in `files`."""
    depth = folder.count("/") + 1
    found = {}
    for key in files:
        *parents, name = key.split("/")
        stem, dot, suffix = name.rpartition(".")
        if len(parents) in (2, 4) and "/".join(parents[-depth:]) == folder and dot and suffix in _PICTURES:
            found[stem.replace(" ", "")] = key
    return found


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
    "dr_hagis": Original(
        split="33, 34, 35, 37, 39 and 40 to test, as Sarhan et al. 2021, the others to train; the owners define none",
        layout="Fundus_Images/1.jpg, Manual_Segmentations/1_manual_orig.png, Mask_images/1_mask_orig.png and so on, "
        "to 40",
        find_eyes=_dr_hagis_eyes,
    ),
    "aria": Original(
        split="by the folders Train and Test where the download is that of Sarhan et al. 2021; otherwise the last "
        "sixth of each group by number to test, because the owners define none",
        layout="aria_a_markups/*.tif, aria_a_markup_vessel/*_BDP.tif and *_BSS.tif, and the same for the groups c and "
        "d; or ARIA/Train/Original/Images/500.tif, ARIA/Train/Original/Labels/500.tif and so on",
        find_eyes=_aria_eyes,
    ),
    "orvs": Original(
        split="by the owners: folders Train and Test",
        layout="ORVS/Train/Original/Images/2012.jpg, ORVS/Train/Original/Labels/2012.jpg and so on",
        find_eyes=_orvs_eyes,
    ),
}
