"""The one way in: what an image lies in becomes a source."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from regard.images.arrays import Mapped, from_memory
from regard.images.files import is_remote
from regard.images.pictures import Picture
from regard.images.slides import Slide
from regard.images.sources import Source
from regard.images.stores import Zarr
from regard.images.tiff import Tiff
from regard.images.tiles import Cache, printable

KINDS: dict[str, Any] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"), Picture),
    **dict.fromkeys((".tif", ".tiff", ".btf"), Tiff),
    **dict.fromkeys((".svs", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide", ".dcm"), Slide),
    ".zarr": Zarr,
    ".npy": Mapped,
}
"""What reads a file, by how its name ends."""
ENDINGS = tuple(KINDS)
"""How the names of files end that can be opened."""


def open_image(image: Tensor | np.ndarray | str | Path, axes: str | None = None, cache: Cache | None = None) -> Source:
    """An image as a source, of which a box is read at a time: `Glimpses` looks at a list of them as at a tensor.

    | what | read is |
    | --- | --- |
    | a tensor, (C, Y, X) or (Y, X), or an array of NumPy's | what is looked at |
    | .npy | what is looked at: the file is mapped to memory |
    | .png .jpg .jpeg .webp .bmp .gif | all of it, at the first look |
    | .tif .tiff .btf, OME-TIFF among them | the tiles or strips that are looked at, of the level that is looked at |
    | .svs .ndpi .scn .mrxs .vms .vmu .bif .svslide .dcm, which OpenSlide reads | the same |
    | .zarr, OME-Zarr among them, also a path within | the chunks that are looked at, of the level that is looked at |

    A path may be an address that fsspec knows, such as https://host/slide.tif, of a picture, a TIFF or a store.
    TIFF, slides, stores and addresses need the extra: pip install 'regard[slides]'.

    Whole numbers are read as float32 in [0, 1], divided by the largest number of their type, or of their bits where a
    TIFF says how many they are; floating point numbers are read as they are. Of the smaller images in a file, those
    are used that are halves of it, some times over: a glimpse of that scale is read from there. Others are pooled.

    To open a file reads its header, of a TIFF also where its tiles are, 16 bytes each. A source is pickled as its name:
    each process opens the file itself, when it first reads there. One thread at a time may read of a source.

    Args:
        image: what it lies in.
        axes: a letter for each axis of an array, a .npy or a .zarr, such as "YXC": needed where it has three and not
            exactly one of the first and the last is of size four or less. A tensor of three axes is CYX.
        cache: what keeps decoded tiles and open files, one for many sources; each has 16 MiB of its own without.

    Raises ValueError, with the name of the file, where it cannot be read, as far as its header tells; where the package
    is missing that reads it; where axes do not fit. Raises TypeError for what is no image.

    >>> import torch
    >>> image = open_image(torch.rand(3, 1000, 2000))
    >>> image.shape, image.crop(500, 1990, 20, 20).shape, image.bytes
    ((3, 1000, 2000), torch.Size([3, 20, 20]), 2400)
    """
    if isinstance(image, Tensor | np.ndarray):
        return from_memory(image, axes)
    if not isinstance(image, str | Path):
        raise TypeError(f"image expected a tensor, an array or a path, but got {type(image).__name__}.")
    path = str(image)
    kind = _kind(path)
    if kind in (Zarr, Mapped):
        return Zarr(path, cache, axes) if kind is Zarr else Mapped(path, axes)
    if axes is not None:
        raise ValueError(f"axes expected None for {printable(path)}, which names its own, but got {axes!r}.")
    return kind(path, cache)


def _kind(path: str) -> Any:
    """What reads a path."""
    plain = path.split("?")[0] if is_remote(path) else path
    if any(part.lower().endswith(".zarr") for part in plain.replace("\\", "/").split("/")):
        return Zarr
    ending = Path(plain).suffix.lower()
    if ending in KINDS:
        return KINDS[ending]
    raise ValueError(f"image {printable(path)} expected a name that ends in {', '.join(KINDS)}, but it does not.")
