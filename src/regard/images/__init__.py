"""Where pixels come from: images, in memory or in files that are too large for it, and sensors that read a few patches
of them instead of everything."""

from regard.images.glimpses import Glimpses, grid
from regard.images.opening import ENDINGS, open_image
from regard.images.patches import Patches
from regard.images.sources import Level, Source, overview, shrunk
from regard.images.tiles import Cache

__all__ = ["ENDINGS", "Cache", "Glimpses", "Level", "Patches", "Source", "grid", "open_image", "overview", "shrunk"]
