"""Where pixels come from: sensors that read a few patches of an image instead of all of it."""

from regard.images.glimpses import Glimpses, grid

__all__ = ["Glimpses", "grid"]
