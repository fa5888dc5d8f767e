"""The one way in for pictures: a file becomes pixels, upright and of eight bits, and no file is opened any other way.

What is defined, for every format: of several frames the first is read; a picture is turned upright as its EXIF says;
what is transparent lies on white; palettes, CMYK and other colours become red, green and blue. Values of more than
eight bits are scaled by the bits that are used, 2^bits - 1, which is the same for all pictures of a data set: 4095 is
white among pictures of at most 4095. Negative values are black, as is what is no number. Of colours of 16 bits a file
only the higher eight are known.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.app.text.reading import printable

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # as pillow calls them: no other decoder is run
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")  # what pillow calls the modes of grey files

ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side


class Stored(NamedTuple):
    """A file that lies in another one, an archive, where it has this name."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


File = Path | Stored


class Facts(NamedTuple):
    """What is to be known of a picture before those of a data set are given one form."""

    grey: bool
    height: int
    width: int
    bits: int
    """Of its largest value, where the file has more than eight of them; else 0."""


class _Decoded(NamedTuple):
    """A picture with all its pixels, and how the file holds one, such as RGB;16B."""

    image: Any
    raw_mode: str

    @property
    def deep(self) -> bool:
        """Whether its values have more than eight bits in the file."""
        return self.image.mode[0] in "IF" or ";16" in self.raw_mode


def _opened(file: File) -> Any:
    """The first frame of the picture in a file, not decoded yet."""
    from PIL import Image

    Image.init()  # or pillow does not know all of FORMATS
    return Image.open(io.BytesIO(file.data) if isinstance(file, Stored) else file, formats=FORMATS)


def _raw_mode(image: Any) -> str:
    return str(image.tile[0].args) if image.tile else ""  # pillow forgets it once the picture is decoded


def facts(file: File) -> Facts:
    """What there is to know of the picture in a file. All of it is decoded, so that nothing is found missing later; a
    JPEG to an eighth of its size, which takes a fraction of the time.

    Raises ValueError if it cannot be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("I;16", (40, 30), 4000).save(Path(folder) / "deep.png")
    ...     facts(Path(folder) / "deep.png")
    Facts(grey=True, height=30, width=40, bits=12)
    """
    with _named(file), _opened(file) as image:
        raw_mode, size = _raw_mode(image), image.size
        drafted = image.draft(None, (1, 1))
        image.load()
        width, height = size if drafted else image.size
        if image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        grey = image.mode in GREY or "LA;" in raw_mode
        found = _Decoded(image, raw_mode)
        return Facts(grey, height, width, _bits(found) if found.deep else 0)


def _bits(found: _Decoded) -> int:
    """The bits of the largest value, one at least."""
    import numpy as np

    values = _values(found.image)
    most = values[np.isfinite(values)].max(initial=0)
    return max(1, round(float(most)).bit_length())


def _values(image: Any) -> Any:
    """The values of a picture of more than eight bits; of colours, as if what is unknown of them were like the rest."""
    import numpy as np

    if image.mode[0] in "IF":
        return np.asarray(image, np.float64)
    return np.asarray(image.convert("RGB"), np.float64) * 257


def read(file: File, shape: tuple[int, int, int], bits: int = 16) -> UInt8[Tensor, "C Y X"]:
    """The picture in a file, on a canvas of `shape` as `fitted` puts it there; 2^`bits` - 1 is the largest value if it
    has more than eight bits. Raises ValueError if it cannot be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("I;16", (40, 30), 4095).save(Path(folder) / "deep.png")
    ...     read(Path(folder) / "deep.png", (1, 30, 40), bits=12).unique()
    tensor([255], dtype=torch.uint8)
    """
    import numpy as np

    channels, height, width = shape
    with quiet(), _named(file):
        found = _decoded(file)
        plain = _opaque(_eight_bit(found, bits)).convert("L" if channels == 1 else "RGB")
        pixels = np.array(fitted(plain, height, width))
    return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)


def _decoded(file: File) -> _Decoded:
    """The picture in a file, upright."""
    from PIL import ImageOps

    with _opened(file) as image:
        raw_mode = _raw_mode(image)
        image.load()
        return _Decoded(ImageOps.exif_transpose(image), raw_mode)


def _eight_bit(found: _Decoded, bits: int) -> Any:
    """The picture with values of eight bits, which pillow's own conversion would clip or cut instead of scaling."""
    import numpy as np
    from PIL import Image

    if not found.deep:
        return found.image
    values = np.nan_to_num(_values(found.image), nan=0, posinf=math.inf) * (255 / (2**bits - 1))
    scaled = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if "A" in found.image.getbands():
        scaled.putalpha(found.image.getchannel("A"))
    return scaled


def _opaque(image: Any) -> Any:
    """The picture in red, green and blue, or as it is if it is grey already; what is transparent of it, on white."""
    from PIL import Image

    if not ({"A", "a"} & set(image.getbands()) and image.mode != "LAB") and "transparency" not in image.info:
        return image if image.mode in ("1", "L") else image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def fitted(image: Any, height: int, width: int) -> Any:
    """A picture of pillow's scaled until it just fits a canvas, in its own proportions, and centred; the rest is black.

    >>> from PIL import Image
    >>> fitted(Image.new("L", (1000, 1), 255), height=3, width=10).tobytes().hex(" ", 10)
    '00000000000000000000 ffffffffffffffffffff 00000000000000000000'
    """
    from PIL import Image

    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(image.resize(size, Image.Resampling.BICUBIC), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def quiet() -> warnings.catch_warnings:
    """Keeps pillow's warnings, which name no file, from the user. It is no matter of one thread alone."""
    return warnings.catch_warnings(action="ignore")


@contextmanager
def _named(file: File) -> Iterator[None]:
    """Says which picture cannot be read."""
    try:
        yield
    except Exception as error:  # pillow raises what the format's reader happens to raise
        raise ValueError(f"picture {printable(file)} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(error) or type(error).__name__
