"""Types for argparse: numbers and paths. Another value ends the command with one line that says what was expected."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", int, float)


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def positive_integer(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def non_negative_integer(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def _number(text: str, parse: Callable[[str], T], valid: Callable[[T], bool], expected: str) -> T:
    try:
        value = parse(text)
    except ValueError:
        pass
    else:
        if valid(value):
            return value
    raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")


def path_argument(text: str) -> Path:
    """Return the path that an option of a command gives; `~` stands for the home folder, as a shell would have it."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty name, expected a path: is a variable of the shell not set?")
    return Path(os.path.expanduser(text))
