"""Downloads of public data sets as their owners offer them, imitated in their own file formats."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 28)


def draw(key: str) -> dict[str, np.ndarray]:
    """Photograph, reference, field and second reference that belong to this key alone."""
    rng = np.random.default_rng(list(key.encode()))
    fov = np.zeros(SIZE, bool)
    fov[2:-2, 3:-3] = True
    return {
        "image": rng.integers(0, 256, (*SIZE, 3), np.uint8),
        "mask": (rng.random(SIZE) < 0.2) & fov,
        "fov": fov,
        "second": (rng.random(SIZE) < 0.2) & fov,
    }


def write(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels)
    if path.suffix == ".gif":
        picture = picture.convert("P")
    if path.suffix == ".gz":
        stream = io.BytesIO()
        picture.save(stream, "PPM")
        path.write_bytes(gzip.compress(stream.getvalue()))
    else:
        picture.save(path, **options)


def download_drive(folder: Path) -> None:
    for number in range(1, 41):
        name = "training" if number > 20 else "test"
        eye = draw(f"drive_{number:02d}")
        write(folder / name / "images" / f"{number:02d}_{name}.tif", eye["image"])
        write(folder / name / "1st_manual" / f"{number:02d}_manual1.gif", eye["mask"])
        write(folder / name / "mask" / f"{number:02d}_{name}_mask.gif", eye["fov"])
        if number <= 20:
            write(folder / name / "2nd_manual" / f"{number:02d}_manual2.gif", eye["second"])


def download_chase_db1(folder: Path) -> None:
    for child in range(1, 15):
        for side in "LR":
            eye = draw(f"chase_{child:02d}{side}")
            write(folder / f"Image_{child:02d}{side}.jpg", eye["image"], quality=90)
            write(folder / f"Image_{child:02d}{side}_1stHO.png", eye["mask"])
            write(folder / f"Image_{child:02d}{side}_2ndHO.png", eye["second"])


def download_stare(folder: Path) -> None:
    numbers = (1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324)
    for number in (*numbers, 6, 400):  # the collection has photographs that nobody traced
        eye = draw(f"stare_im{number:04d}")
        write(folder / "stare-images" / f"im{number:04d}.ppm.gz", eye["image"])
        if number in numbers:
            write(folder / "labels-ah" / f"im{number:04d}.ah.ppm.gz", eye["mask"])
            write(folder / "labels-vk" / f"im{number:04d}.vk.ppm.gz", eye["second"])


def download_hrf(folder: Path) -> None:
    for group, suffix in (("h", "jpg"), ("dr", "JPG"), ("g", "jpg")):
        for number in range(1, 16):
            eye = draw(f"hrf_{number:02d}_{group}")
            write(folder / "images" / f"{number:02d}_{group}.{suffix}", eye["image"], quality=90)
            write(folder / "manual1" / f"{number:02d}_{group}.tif", eye["mask"])
            colour = np.repeat(eye["fov"][..., None].astype(np.uint8) * 255, 3, axis=2)
            write(folder / "mask" / f"{number:02d}_{group}_mask.tif", colour)


def download_fives(folder: Path) -> None:
    for split, mark, names in (("train", "", ("1_A", "2_D", "10_N")), ("test", "t", ("1_A", "2_G"))):
        for name in names:
            number, group = name.split("_")
            eye = draw(f"fives_{mark}{int(number):03d}_{group}")
            write(folder / split / "Original" / f"{name}.png", eye["image"])
            write(folder / split / "Ground truth" / f"{name}.png", eye["mask"])


def download_dr_hagis(folder: Path) -> None:
    for number in range(1, 41):
        eye = draw(f"drhagis_{number:03d}")
        write(folder / "Fundus_Images" / f"{number}.jpg", eye["image"], quality=90)
        write(folder / "Manual_Segmentations" / f"{number}_manual_orig.png", eye["mask"])
        write(folder / "Mask_images" / f"{number}_mask_orig.png", eye["fov"])


ARIA = {
    "a": ("aria_a_2_1", "aria_a_10_3", "aria_a_1_1"),
    "c": tuple(f"aria_c_1_{number}" for number in range(1, 8)),
    "d": ("(0001)aria_d_26", "aria_d_26", "aria_d_3"),
}


def download_aria(folder: Path) -> None:
    for group, names in ARIA.items():
        for name in names:
            eye = draw("aria_d_26_0001" if name.startswith("(") else name)
            spaced = name.replace("aria_a_2", "aria_a _2")  # as a few photographs of the download are named
            write(folder / f"aria_{group}_markups" / f"{spaced}.tif", eye["image"])
            vessels = folder / f"aria_{group}_markup_vessel" / f"aria_{group}_markup_vessel"
            write(vessels / f"{name}_BDP.tif", eye["mask"])
            write(vessels / f"{name}_BSS.tif", eye["second"])
            # One file of the discs is named as its photograph.
            write(folder / f"aria_{group}_markupdiscfovea" / f"{name}.tif", eye["fov"])


def download_orvs(folder: Path) -> None:
    parts = {"Train": ("orvs", "2012 2013 2110", "jpg"), "Test": ("orvs", "2014 2016", "jpg")}
    aria = {"Train": ("aria", "500 501", "tif"), "Test": ("aria", "508", "tif")}
    for split, (name, numbers, suffix) in (*parts.items(), *aria.items()):
        for number in numbers.split():
            eye = draw(f"{name}_{number}")
            original = folder / "Vessels-Datasets" / name.upper() / split / "Original"
            write(original / "Images" / f"{number}.{suffix}", eye["image"])
            write(
                original / "Labels" / f"{number}.{suffix}", eye["mask"], **({"quality": 100} if suffix == "jpg" else {})
            )


CASES = {
    "drive": (download_drive, {"train": 20, "test": 20}, True, 20),
    "chase_db1": (download_chase_db1, {"train": 20, "test": 8}, False, 28),
    "stare": (download_stare, {"train": 10, "test": 10}, False, 20),
    "hrf": (download_hrf, {"train": 15, "test": 30}, True, 0),
    "fives": (download_fives, {"train": 3, "test": 2}, False, 0),
    "dr_hagis": (download_dr_hagis, {"train": 33, "test": 6}, True, 0),
    "aria": (download_aria, {"train": 10, "test": 3}, False, 13),
    "orvs": (download_orvs, {"train": 3, "test": 2}, False, 0),
}
