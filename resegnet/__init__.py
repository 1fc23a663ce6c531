"""ReSegNet segments the blood vessels in colour fundus photographs.

>>> from resegnet import Segmenter
>>> result = Segmenter.from_pretrained()("eye.jpg")
>>> result.save("results", "eye")
"""

from typing import TYPE_CHECKING, Any

from resegnet.config import Config
from resegnet.errors import ConfigError, ImageError, ResegnetError, require_torch
from resegnet.image import read_image
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

if TYPE_CHECKING:
    from resegnet.model import ReSegNet

__all__ = [
    "Config",
    "ConfigError",
    "ImageError",
    "ReSegNet",
    "ResegnetError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "read_image",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, and only ReSegNet and the engine `torch` need it.
    if name == "ReSegNet":
        require_torch("the network in PyTorch")
        from resegnet.model import ReSegNet

        return ReSegNet
    raise AttributeError(f"module 'resegnet' has no attribute {name!r}")
