"""Files that images are read from, on a disk or in a store, and the packages that read them."""

from importlib import import_module
from typing import Any

from regard.images.tiles import printable

AHEAD = 1 << 14
"""Bytes that are fetched from a store along with those that are asked for."""


class Counted:
    """An open file that counts the bytes that are read of it, and is closed when nothing needs it any more."""

    def __init__(self, file: Any):
        self.file, self.bytes = file, 0

    def read(self, size: int = -1) -> bytes:
        """So many bytes from where it is, or all that are left."""
        data = self.file.read(size)
        self.bytes += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from where it is; how many bytes there were."""
        count = self.file.readinto(buffer)
        self.bytes += count
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place; which that is."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self.file.tell()

    def close(self) -> None:
        """Closes it."""
        self.file.close()

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def opened(path: str) -> Counted:
    """A file, open for reading; a path with :// is one that fsspec knows."""
    if is_remote(path):
        return Counted(package("fsspec", path).open(path, "rb", block_size=AHEAD).open())
    return Counted(open(path, "rb"))


def is_remote(path: str) -> bool:
    """Whether a path is the address of something in a store, such as https://host/slide.tif."""
    return "://" in path


def package(name: str, path: str) -> Any:
    """A package that a file needs. Raises ValueError where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        needs = f"image {printable(path)} needs the extra slides: pip install 'regard[slides]'"
        raise ValueError(f"{needs} ({printable(error)})") from error
