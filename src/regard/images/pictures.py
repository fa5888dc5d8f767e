"""Pictures in formats that are decoded as a whole."""

from io import BytesIO
from typing import Any
from warnings import catch_warnings

import numpy as np

from regard.images.files import opened
from regard.images.sources import Level
from regard.images.tiles import Header, Tiles

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side
GREY, DEEP = ("1", "L", "LA"), ("I", "I;16", "I;16B", "I;16L")


class Picture(Tiles):
    """A picture in grey or in red, green and blue, upright as its EXIF says, and on white where it is transparent.

    It is one tile: the first look decodes all of it.
    """

    def _open(self) -> bytes:
        with opened(self.path) as file:
            data = file.read()
        self.bytes += len(data)
        return data

    def _header(self, opened: bytes) -> Header:
        with catch_warnings(action="ignore"), _image(opened) as image:
            width, height = image.size[:: -1 if image.getexif().get(ORIENTATION, 1) >= 5 else 1]
            kind = np.dtype(np.uint16 if image.mode in DEEP else np.uint8)
            channels = 1 if image.mode in GREY + DEEP else 3
            return Header(channels, [Level(height, width, 1)], [(height, width)], kind)

    def _decode(self, opened: bytes, level: int, row: int, column: int) -> np.ndarray:
        from PIL import ImageOps

        with catch_warnings(action="ignore"), _image(opened) as image:
            upright = ImageOps.exif_transpose(image)
            pixels = upright if image.mode in DEEP else _opaque(upright).convert("L" if self.shape[0] == 1 else "RGB")
            return np.asarray(pixels).astype(self._kind).reshape(*self.shape[1:], self.shape[0])


def _image(data: bytes) -> Any:
    from PIL import Image

    Image.init()  # or pillow does not know all of FORMATS
    return Image.open(BytesIO(data), formats=FORMATS)


def _opaque(image: Any) -> Any:
    """The picture, on white where it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
