"""ReSegNet finds the blood vessels in colour fundus photographs.

>>> from resegnet import Segmenter
>>> result = Segmenter.from_pretrained()("eye.jpg")
"""

from resegnet.config import Config, ConfigError
from resegnet.image import ImageError, read_image
from resegnet.segmenter import Segmentation, Segmenter

__version__ = "0.1.0"
__all__ = ["Config", "ConfigError", "ImageError", "ReSegNet", "Segmentation", "Segmenter", "read_image"]


def __getattr__(name: str):
    # torch takes seconds to import, and nothing before the first prediction needs it.
    if name == "ReSegNet":
        from resegnet.model import ReSegNet

        return ReSegNet
    raise AttributeError(f"module 'resegnet' has no attribute {name!r}")
