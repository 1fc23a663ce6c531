"""DICOM files of ophthalmic photographs, with a patient who must not be found anywhere else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    OphthalmicPhotography8BitImageStorage,
    RLELossless,
)

PATIENT = {
    "PatientName": "Doe^Jane^Quirk",
    "PatientID": "ID-4711-0815",
    "PatientBirthDate": "19610203",
    "PatientAddress": "17 Harbour Street",
    "InstitutionName": "Saint Elsewhere Hospital",
    "ReferringPhysicianName": "Quack^Doctor",
    "StudyDate": "20240229",
    "AccessionNumber": "ACC-98765",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77777",
    "SeriesDescription": "Jane-Macula",
    "ImageComments": "Jane's-Mother-Present",
}


def dicom(
    pixels: np.ndarray,
    syntax: str = ExplicitVRLittleEndian,
    frames: list[bytes] | None = None,
    **elements: Any,
) -> bytes:
    """Write a DICOM file.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, 3) uint8 or uint16; (N, H, W, 3) are N frames. Written as they are, unless there are `frames`.
    syntax
        UID of the transfer syntax. Pixels are encoded for run lengths; for other compressions give `frames`.
    frames
        Encoded frames of a compressed file.
    elements
        Further elements, or other values of those that follow from the pixels. None leaves one out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = OphthalmicPhotography8BitImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = OphthalmicPhotography8BitImageStorage, "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality = "OP"
    for keyword, value in PATIENT.items():
        setattr(dataset, keyword, value)
    dataset.private_block(0x0099, "Jane's camera", create=True).add_new(0x01, "LO", PATIENT["PatientName"])
    shape = pixels.shape[1:] if pixels.ndim == 4 else pixels.shape
    colours = 3 if len(shape) == 3 else 1
    bits = 8 * pixels.itemsize
    layout = {
        "Rows": shape[0],
        "Columns": shape[1],
        "SamplesPerPixel": colours,
        "PhotometricInterpretation": "RGB" if colours == 3 else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": elements.get("BitsStored", bits) - 1,
        "PixelRepresentation": 0,
        **({"PlanarConfiguration": 0} if colours == 3 else {}),
        **({"NumberOfFrames": len(pixels)} if pixels.ndim == 4 else {}),
    }
    for keyword, value in (layout | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if syntax == RLELossless and frames is None:
        frames = [_run_lengths(pixels, dataset)]
    if "PixelData" not in elements:
        content = pixels.tobytes() if frames is None else encapsulate(frames)
        dataset.PixelData = content + b"\0" * (len(content) % 2)
    if dataset.get("PixelData") is not None:
        dataset["PixelData"].VR = "OB" if bits == 8 or frames is not None else "OW"
        dataset["PixelData"].is_undefined_length = frames is not None
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _run_lengths(pixels: np.ndarray, dataset: Dataset) -> bytes:
    names = {"rows": "Rows", "columns": "Columns", "samples_per_pixel": "SamplesPerPixel"}
    names |= {"bits_allocated": "BitsAllocated", "bits_stored": "BitsStored"}
    options = {name: dataset[keyword].value for name, keyword in names.items()}
    options |= {"photometric_interpretation": dataset.PhotometricInterpretation, "pixel_representation": 0}
    return RLELosslessEncoder.encode(
        pixels, number_of_frames=1, planar_configuration=0, encoding_plugin="pydicom", **options
    )


def whole_dicom(photo: np.ndarray) -> Iterator[tuple[str, bytes, np.ndarray | tuple[int, int]]]:
    """Yield name, file and pixels, or size, of a photograph in several layouts."""
    shape = photo.shape[:2]
    jpeg, jpeg_2000 = (_encode(photo, kind) for kind in ("JPEG", "JPEG2000"))
    yield "DICOM", dicom(photo, PixelSpacing=[0.005, 0.005]), photo
    yield "DICOM implicit", dicom(photo, ImplicitVRLittleEndian), photo
    yield "DICOM run lengths", dicom(photo, RLELossless), photo
    yield "DICOM JPEG", dicom(photo, JPEGBaseline8Bit, [jpeg], PhotometricInterpretation="YBR_FULL_422"), shape
    yield "DICOM JPEG 2000", dicom(photo, JPEG2000Lossless, [jpeg_2000]), photo


def costly_dicom(jpeg_of_many_scans: bytes) -> Iterator[tuple[str, Callable[[], bytes], Any]]:
    """Yield name, maker and size of files that cost much; None for those that must be refused."""
    small = np.zeros((32, 64, 3), np.uint8)
    for side in (16_384, 65_535):
        yield f"DICOM claims {side} x {side}", partial(dicom, small, Rows=side, Columns=side), None
    yield "DICOM claims 8000 x 8000", partial(dicom, small, Rows=8000, Columns=8000), None
    yield "DICOM claims a billion frames", partial(dicom, small, NumberOfFrames=10**9), None
    large = (8000, 8000)
    for name, shape, kind, elements in (
        ("RGB", (*large, 3), np.uint8, {}),
        ("16 bit", (*large, 3), np.uint16, {}),
        ("YBR", (*large, 3), np.uint8, {"PhotometricInterpretation": "YBR_FULL"}),
        ("negative", large, np.uint8, {"PhotometricInterpretation": "MONOCHROME1"}),
    ):
        yield f"DICOM, 64 megapixels, {name}", lambda s=shape, k=kind, e=elements: dicom(np.zeros(s, k), **e), large
    for side, size in ((5000, (5000, 5000)), (5100, None)):
        frame = partial(_encode, np.broadcast_to(np.uint8(0), (side, side, 3)), "JPEG2000")
        yield (
            f"DICOM, JPEG 2000 of {side} x {side}",
            lambda f=frame, s=side: dicom(small, JPEG2000, [f()], Rows=s, Columns=s),
            size,
        )
    deflated = dicom(small, DeflatedExplicitVRLittleEndian)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield "DICOM, deflated zeros", lambda: deflated[:400] + bomb.compress(bytes(500_000_000)) + bomb.flush(), None
    for name, frame in (
        ("1000 scans", jpeg_of_many_scans),
        ("another size", _encode(np.broadcast_to(np.uint8(0), (7000, 7000, 3)), "JPEG")),
    ):
        yield f"DICOM of a JPEG of {name}", partial(dicom, small, JPEGBaseline8Bit, [frame]), None

    def explicit(vr: bytes, length: int, content: bytes) -> bytes:  # of an element before all others
        return struct.pack("<HH2sHI", 0x0006, 0x0001, vr, 0, length) + content

    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    opened = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1) + explicit(b"SQ", 2**32 - 1, b"")
    fragments = b"".join((item, item * 3_000_000))
    for name, content in (
        ("3 million empty items", explicit(b"SQ", 2**32 - 1, item * 3_000_000)),
        ("3 million unknown items", explicit(b"UN", 2**32 - 1, item * 3_000_000)),
        ("100,000 nested sequences", explicit(b"SQ", 2**32 - 1, opened * 100_000)),
        ("3 million small elements", struct.pack("<HH2sH", 0x0006, 0x0002, b"SH", 0) * 3_000_000),
        ("a long undefined value", explicit(b"OB", 2**32 - 1, bytes(100_000_000))),
        ("a value beyond the end", explicit(b"OB", 2**32 - 2, bytes(1000))),
    ):
        yield f"DICOM of {name}", partial(_with_first, dicom(small), content), None
    yield "DICOM of 3 million fragments", partial(dicom, small, JPEG2000, [], PixelData=fragments), None
    offsets = struct.pack("<HHI", 0xFFFE, 0xE000, 40_000_000) + bytes(40_000_000) + item
    yield "DICOM of 10 million offsets", partial(dicom, small, JPEG2000, [], PixelData=offsets), None
    for count, size in ((3_900_000, (32, 64)), (20_000_000, None)):  # three segments of runs of one byte
        segment = b"\0\x07" * (count // 2)
        head = struct.pack("<16I", 3, *(64 + k * len(segment) for k in range(3)), *(0,) * 12)
        frame = head + segment * 3
        yield f"DICOM of {count} bytes of runs", partial(dicom, small, RLELossless, [frame]), size


def _with_first(data: bytes, element: bytes) -> bytes:
    """Put an element before those of the data set, which begin with group 8."""
    start = data.index(b"\x08\x00\x16\x00UI")
    return data[:start] + element + data[start:]


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    return stream.getvalue()
