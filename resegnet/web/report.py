"""The report: one page with pictures, numbers, warnings and how they were made, as PDF or PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resegnet.io import without_nan
from resegnet.releases.records import DISCLAIMER
from resegnet.results.compare import Comparison
from resegnet.results.metrics import SCORES
from resegnet.results.segmentation import Segmentation
from resegnet.version import __version__
from resegnet.web.numbers import (
    SHOWN_MEASURES,
    TOO_MUCH_VESSEL,
    UNDEFINED,
    ShownMeasure,
    shown_measures,
    write_measure,
)

# A4, in points of 1/72 inch.
WIDTH, HEIGHT, MARGIN = 595, 842, 42
INNER = WIDTH - 2 * MARGIN
GAP = 12
NUMBER_COLUMNS = 3
PNG_DPI = 200
PICTURE_DPI = 300  # of pictures in the PDF, at most
JPEG_QUALITY = 92

INK, GREY, TEAL, AMBER, LINE = (15, 23, 42), (82, 96, 116), (14, 116, 144), (180, 83, 9), (203, 213, 225)
SCORES_SHOWN = ("f1", "recall", "specificity", "precision", "mcc", "cldice", "auroc")


@dataclass(frozen=True)
class Number:
    """A number of the report: its title, the value with its unit, and one sentence."""

    title: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Report:
    """The content of the report.

    Attributes
    ----------
    title
        File name of the photograph.
    pictures
        Captions and (H, W, 3) uint8 RGB.
    numbers, scores
        Measures, and scores of the comparison if there is one.
    warnings
        Sentences.
    facts
        How it was made: titles and texts.
    """

    title: str
    pictures: list[tuple[str, np.ndarray]]
    numbers: list[Number]
    scores: list[Number]
    warnings: list[str]
    facts: Mapping[str, str]


def compose_report(
    result: Segmentation,
    comparison: Comparison | None,
    *,
    fitted: float,
    look: tuple[tuple[int, int, int], float],
    um_per_px: float | None,
    safe_kinds: bool,
    facts: Mapping[str, str],
) -> Report:
    """Collect what the report says.

    Parameters
    ----------
    result
        At the threshold of the report.
    comparison
        None without a reference.
    fitted
        The model's fitted threshold.
    look
        Colour and opacity of the overlay.
    um_per_px
        Micrometres on the retina for a pixel, None if unknown.
    safe_kinds
        Whether arteries and veins have colours that colour-blind people tell apart.
    facts
        What only the caller knows; its "Photograph" is the title.
    """
    measures = shown_measures(result)
    numbers = [
        Number(
            shown["title"],
            write_measure(shown, None if measures is None else measures.values[shown["key"]], um_per_px),
            _meaning(shown, {} if measures is None else measures.reasons),
        )
        for shown in SHOWN_MEASURES
        if (not shown["needs_anatomy"] if measures is None else shown["key"] in measures.values)
    ]
    pictures = [("Photograph", result.image), ("Vessels found", result.overlay(*look))]
    kinds = result.kinds_map(safe_kinds)
    if kinds is not None:
        pictures.append((f"Arteries {'orange' if safe_kinds else 'red'}, veins blue", kinds))
    scores = []
    if comparison is not None:
        pictures.append(("Agreed white, missed orange, extra blue", comparison.error_map()))
        values = without_nan(comparison.scores())
        values["recall"] = values.pop("sensitivity")
        scores = [Number(SCORES[key], _score(values[key]), "") for key in SCORES_SHOWN]
    height, width = result.mask.shape
    own = "fitted for the model" if result.threshold == fitted else f"chosen; fitted for the model: {fitted:.4g}"
    return Report(
        title=facts["Photograph"],
        pictures=pictures,
        numbers=numbers,
        scores=scores,
        warnings=[*result.warnings, *([TOO_MUCH_VESSEL] if measures is None else [])],
        facts={
            "Size": f"{width} x {height} px",
            "Eye": result.eye or "",
            "Scale": "unknown" if um_per_px is None else f"{um_per_px:g} µm per px",
            "Threshold": f"{result.threshold:.4g} ({own})",
            "Model": f"{result.model or 'without a name'}, with ReSegNet {__version__}",
            **{title: text for title, text in facts.items() if title != "Photograph"},
        },
    )


def _meaning(shown: ShownMeasure, reasons: Mapping[str, str]) -> str:
    """Return what a number means, or why there is none."""
    return reasons.get(shown["key"]) or shown["meaning"] + ("" if shown["reliable"] else " Less reliable.")


def _score(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


# The layout: marks on the page, from which both formats are drawn. All lengths are in points, from the upper left.


@dataclass(frozen=True)
class _Text:
    left: float
    base: float
    size: float
    text: str
    color: tuple[int, int, int] = INK


@dataclass(frozen=True)
class _Picture:
    left: float
    top: float
    width: float
    height: float
    pixels: np.ndarray


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    width: float
    height: float
    color: tuple[int, int, int]


_Mark = _Text | _Picture | _Box


def lay_out(report: Report) -> list[_Mark]:
    """Place the content on the page. The pictures take the room that the texts leave."""
    below = [*_warnings(report.warnings), *_numbers(report.numbers), *_scores(report.scores), *_facts(report.facts)]
    needed = sum(height for height, _ in below)
    marks: list[_Mark] = [
        _Text(MARGIN, MARGIN + 8, 10, "ReSegNet", TEAL),
        _Text(MARGIN, MARGIN + 32, 19, _fitting(report.title, 19, INNER)),
    ]
    top = MARGIN + 46.0
    bottom = HEIGHT - MARGIN - 14
    pictures, top = _pictures(report.pictures, top, max(120.0, bottom - top - needed))
    marks += pictures
    for height, block in below:
        marks += [_moved(mark, top) for mark in block]
        top += height
    marks.append(_Box(MARGIN, HEIGHT - MARGIN - 12, INNER, 0.7, LINE))
    return [*marks, _Text(MARGIN, HEIGHT - MARGIN, 8.5, DISCLAIMER, INK)]


def _pictures(pictures: list[tuple[str, np.ndarray]], top: float, room: float) -> tuple[list[_Mark], float]:
    """Return the marks of pictures side by side, in two rows if there are four, and where the next block begins."""
    columns = 2 if len(pictures) in (2, 4) else min(3, len(pictures))
    rows = -(-len(pictures) // columns)
    wide = (INNER - GAP * (columns - 1)) / columns
    height, width = pictures[0][1].shape[:2]
    high = min(wide * height / width, room / rows - 22)
    marks: list[_Mark] = []
    for number, (caption, pixels) in enumerate(pictures):
        left = MARGIN + number % columns * (wide + GAP)
        above = top + number // columns * (high + 22)
        shown = high * width / height
        marks.append(_Picture(left, above, shown, high, pixels))
        marks.append(_Text(left, above + high + 11, 8, caption, GREY))
    return marks, top + rows * (high + 22) + 4


_Block = tuple[float, list[_Mark]]  # its height, and marks from its top


def _numbers(numbers: list[Number]) -> Iterable[_Block]:
    wide = (INNER - 2 * GAP * (NUMBER_COLUMNS - 1)) / NUMBER_COLUMNS
    for start in range(0, len(numbers), NUMBER_COLUMNS):
        marks: list[_Mark] = [_Box(MARGIN, 0, INNER, 0.7, LINE)]
        high = 0.0
        for column, number in enumerate(numbers[start : start + NUMBER_COLUMNS]):
            left = MARGIN + column * (wide + 2 * GAP)
            lines = _wrapped(number.meaning, 7.5, wide)
            marks += [_Text(left, 14, 8.5, number.title, GREY), _Text(left, 31, 14, number.value)]
            marks += [_Text(left, 42 + 9 * k, 7.5, line, GREY) for k, line in enumerate(lines)]
            high = max(high, 42 + 9 * len(lines))
        yield high + 2, marks


def _scores(scores: list[Number]) -> Iterable[_Block]:
    if not scores:
        return
    marks: list[_Mark] = [_Box(MARGIN, 0, INNER, 0.7, LINE)]
    marks.append(_Text(MARGIN, 14, 8.5, "Compared with the manual segmentation, inside the field of view", GREY))
    wide = INNER / len(scores)
    for column, score in enumerate(scores):
        marks.append(_Text(MARGIN + column * wide, 30, 11, score.value))
        marks.append(_Text(MARGIN + column * wide, 40, 7.5, score.title, GREY))
    yield 48, marks


def _warnings(warnings: list[str]) -> Iterable[_Block]:
    for warning in warnings:
        lines = _wrapped(warning, 9, INNER - 12)
        high = 12 * len(lines)
        marks: list[_Mark] = [_Box(MARGIN, 4, 3, high + 2, AMBER)]
        marks += [_Text(MARGIN + 12, 13 + 12 * k, 9, line) for k, line in enumerate(lines)]
        yield high + 10, marks


def _facts(facts: Mapping[str, str]) -> Iterable[_Block]:
    yield 6, [_Box(MARGIN, 2, INNER, 0.7, LINE)]
    for title, text in facts.items():
        if text:
            yield (
                11,
                [
                    _Text(MARGIN, 10, 7.5, title, GREY),
                    _Text(MARGIN + 110, 10, 7.5, _fitting(text, 7.5, INNER - 110)),
                ],
            )


def _moved(mark: _Mark, down: float) -> _Mark:
    match mark:
        case _Text():
            return _Text(mark.left, mark.base + down, mark.size, mark.text, mark.color)
        case _Picture():
            return _Picture(mark.left, mark.top + down, mark.width, mark.height, mark.pixels)
        case _Box():
            return _Box(mark.left, mark.top + down, mark.width, mark.height, mark.color)


def _length(text: str, size: float) -> float:
    return float(_font(100).getlength(text)) * size / 100


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    """Return Bitstream Vera, which comes with reportlab: Pillow's own font has no micro sign."""
    import reportlab  # the extra `app`

    return ImageFont.truetype(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf", size)


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Break a text into lines that are no wider than `width`."""
    lines: list[str] = []
    for word in text.split():
        if lines and _length(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _fitting(text: str, size: float, width: float) -> str:
    """Shorten a text that is wider than `width`."""
    if _length(text, size) <= width:
        return text
    while text and _length(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


# The formats


def report_png(report: Report) -> bytes:
    """Draw the report as PNG of 200 dots per inch."""
    unit = PNG_DPI / 72
    page = Image.new("RGB", (round(WIDTH * unit), round(HEIGHT * unit)), "white")
    draw = ImageDraw.Draw(page)
    for mark in lay_out(report):
        match mark:
            case _Text():
                at = (mark.left * unit, mark.base * unit)
                draw.text(at, _printable(mark.text), mark.color, _font(mark.size * unit), anchor="ls")
            case _Picture():
                at = (round(mark.left * unit), round(mark.top * unit))
                page.paste(_resized(mark.pixels, _size(mark, unit)), at)
            case _Box():
                left, top = mark.left * unit, mark.top * unit
                draw.rectangle((left, top, left + mark.width * unit, top + mark.height * unit), mark.color)
    file = io.BytesIO()
    page.save(file, "PNG", dpi=(PNG_DPI, PNG_DPI))
    return file.getvalue()


def report_pdf(report: Report) -> bytes:
    """Draw the report as PDF, whose texts can be selected."""
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(WIDTH, HEIGHT), pageCompression=0)
    canvas.setTitle(f"ReSegNet report of {report.title}")
    canvas.setSubject(DISCLAIMER)
    canvas.setCreator(f"ReSegNet {__version__}")
    for mark in lay_out(report):
        match mark:
            case _Text():
                canvas.setFont("Helvetica", mark.size)
                canvas.setFillColorRGB(*(channel / 255 for channel in mark.color))
                canvas.drawString(mark.left, HEIGHT - mark.base, _printable(mark.text))
            case _Picture():
                height, width = mark.pixels.shape[:2]
                size = min(_size(mark, PICTURE_DPI / 72), (width, height))
                jpeg = io.BytesIO()
                _resized(mark.pixels, size).save(jpeg, "JPEG", quality=JPEG_QUALITY)
                at = (mark.left, HEIGHT - mark.top - mark.height)
                canvas.drawImage(ImageReader(jpeg), *at, mark.width, mark.height)
            case _Box():
                canvas.setFillColorRGB(*(channel / 255 for channel in mark.color))
                canvas.rect(mark.left, HEIGHT - mark.top - mark.height, mark.width, mark.height, stroke=0, fill=1)
    canvas.save()
    return file.getvalue()


def _printable(text: str) -> str:
    """Replace what the fonts of both formats lack: all but the letters of western Europe."""
    return text.encode("cp1252", "replace").decode("cp1252")


def _size(mark: _Picture, unit: float) -> tuple[int, int]:
    """Return width and height of a picture on the page, `unit` px for each point; a long strip has one row or more."""
    return max(1, round(mark.width * unit)), max(1, round(mark.height * unit))


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
