"""Images that are arrays: in memory, or a file that is mapped to memory."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.images.sources import Level
from regard.images.tiles import Unreadable, named, paste, printable, scaled, scaling

MOST = 4
"""Channels that an array may have and be told from one of three axes without being told which."""


class Array:
    """An image that is an array (Y, X, C) in memory."""

    tiles = 0

    def __init__(self, name: str, image: np.ndarray):
        if 0 in image.shape:
            raise Unreadable(f"image {name} expected pixels, but got the shape {image.shape}.")
        self.name, self.bytes, self._image = name, 0, image
        height, width, channels = image.shape
        self.shape = channels, height, width
        self.levels: tuple[Level, ...] = (Level(height, width, 1),)
        self.dtype, self._factor = scaling(name, image.dtype)

    def crop(self, top: int, left: int, height: int, width: int, level: int = 0) -> Float[Tensor, "C height width"]:
        """A box of the image; what lies outside is zero. Whole numbers are divided by the largest of their type."""
        pixels = np.zeros((height, width, self.shape[0]), self._image.dtype)
        self.bytes += paste(self._image, pixels, -top, -left)
        return scaled(pixels, self.dtype, self._factor)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "bytes": 0}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {'x'.join(map(str, self.shape))})"


class Mapped(Array):
    """An image that is an array in a file of NumPy's, of which is read what is looked at. A pickle holds its name."""

    def __init__(self, path: str, axes: str | None):
        self.path, self.axes = path, axes
        super().__init__(printable(path), self._mapped())

    def _mapped(self) -> np.ndarray:
        with named(name := printable(self.path)):
            array = np.load(self.path, mmap_mode="r")
        return by_axes(array, axes_of(name, array.shape, axes=self.axes))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_image": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._image = self._mapped()


def from_memory(array: Tensor | np.ndarray, axes: str | None) -> Array:
    """The image that is a tensor, (C, Y, X) if its axes are not named, or an array."""
    if isinstance(array, Tensor):
        name, axes = "tensor", axes or ("CYX" if array.ndim == 3 else None)
        array = array.detach().cpu()
        array = (array.float() if array.dtype is torch.bfloat16 else array).numpy()
    else:
        name = "array"
    return Array(name, by_axes(array, axes_of(name, array.shape, axes)))


def axes_of(name: str, shape: tuple[int, ...], axes: str | None) -> str:
    """A letter for each axis, Y and X, one C at most, and any others that are of size one.

    Where they are not named, two axes are YX, and of three the one that has at most four is C, in front or at the end.
    Raises ValueError where this does not say, or the axes do not fit.

    >>> axes_of("slide", (1000, 2000, 3), None)
    'YXC'
    """
    known = axes or _guess(shape)
    if known is None:
        raise Unreadable(f"image {name} of shape {shape} expected its axes to be named, such as axes='CYX' or 'YXC'.")
    if len(known) != len(shape) or len(set(known)) != len(known) or not {"Y", "X"} <= set(known):
        raise Unreadable(f"image {name} of shape {shape} expected a letter for each axis, Y and X, but got {known!r}.")
    more = [size for letter, size in zip(known, shape, strict=True) if letter not in "YXC" and size != 1]
    if more:
        raise Unreadable(f"image {name} expected rows, columns and channels, but has the axes {known} of {shape}.")
    return known


def _guess(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 2:
        return "YX"
    few = [size <= MOST for size in shape]
    if len(shape) != 3 or few[0] == few[-1]:
        return None
    return "CYX" if few[0] else "YXC"


def by_axes(array: np.ndarray, axes: str) -> np.ndarray:
    """An array of these axes as one of (Y, X, C), a view."""
    if "C" not in axes:
        array, axes = array[..., None], f"{axes}C"
    others = [axis for axis, letter in enumerate(axes) if letter not in "YXC"]
    order = [axes.index(letter) for letter in "YXC"]
    return array.transpose(*order, *others).reshape([array.shape[axis] for axis in order])
