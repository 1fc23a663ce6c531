"""All errors that the package raises on purpose, under one base class.

Command line and scripts catch `ResegnetError`, the Hub's errors and `OSError`, and print one sentence. Any other
exception is a defect of this package, and its traceback is shown.
"""

from __future__ import annotations

from importlib.util import find_spec


class ResegnetError(Exception):
    """Base class of the errors below. The message says what came, what was expected, and what to do."""


class ArgumentError(ResegnetError, ValueError):
    """An argument outside its range, or arguments that contradict each other."""


class ImageError(ResegnetError, ValueError):
    """A picture that cannot be read. The message is one sentence that can be shown to a user."""


class ConfigError(ResegnetError, ValueError):
    """A configuration from which no network can be built."""


class DataError(ResegnetError, ValueError):
    """A data set or a list of photographs that cannot be used."""


class WeightsError(ResegnetError, ValueError):
    """Weights that do not fit the configuration, were altered, or cannot be read."""


class ReleaseError(ResegnetError, ValueError):
    """A release that is incomplete or altered, or that fails its self-test. The message lists every reason."""


class PublishError(ResegnetError, ValueError):
    """A release or data set that must not, or cannot, be published."""


class TrainingError(ResegnetError, RuntimeError):
    """Training options that cannot be used, or a run that cannot start, resume or continue."""


class OutputError(ResegnetError, OSError):
    """Results that cannot be written."""


class ClusterError(ResegnetError, OSError):
    """A Ray cluster that cannot be reached, or that lost too many of its workers."""


class MissingExtraError(ResegnetError, ImportError):
    """A package is missing that only an extra of this package installs. The message names the command."""


class MissingDecoderError(MissingExtraError, ImageError):
    """A photograph of a format that only an extra of this package reads."""


class HubError(ResegnetError, OSError):
    """A request that the Hub refused or that failed on the way.

    Attributes
    ----------
    temporary : bool
        True if the same request may succeed later.
    """

    def __init__(self, message: str, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


# Extras of pyproject.toml that install the packages given to `require`; all other packages belong to `train`.
_EXTRAS = {"gradio": "app", "pydicom": "dicom", "ray": "ray", "spaces": "zerogpu", "trackio": "track"}
_OF_TORCH = ("torch", "segmentation_models_pytorch")  # somebody may have the first alone


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def require(package: str, purpose: str) -> None:
    """Check that an optional package is installed.

    Parameters
    ----------
    package
        Name by which it is imported.
    purpose
        What needs it, in the singular, for the message.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if not is_installed(package):
        extra = _EXTRAS.get(package, "train")
        raise MissingExtraError(
            f'{package} is not installed, and {purpose} needs it: run `pip install "resegnet[{extra}]"`.'
        )


def has_torch() -> bool:
    """Tell whether the packages that run the network in PyTorch are installed."""
    return all(map(is_installed, _OF_TORCH))


def require_torch(purpose: str) -> None:
    """Check that the packages that run the network in PyTorch are installed; see `require`."""
    for package in _OF_TORCH:
        require(package, purpose)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 400 characters, or the name of its class.

    The messages of this package, which end in what to do, are shorter.
    """
    return str(error).strip().partition("\n")[0][:400].rstrip(".") or type(error).__name__


def short_repr(value: object) -> str:
    """Return `repr(value)` for a message, at most 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4,300 digits
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
