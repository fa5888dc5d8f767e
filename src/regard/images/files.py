"""Files that images are read from, on a disk or in a store, and the packages that read them."""

from importlib import import_module
from typing import Any

from regard.images.tiles import Unreadable, printable


class Counted:
    """An open file, which counts the bytes that are read of it and is closed when nothing needs it any more."""

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


def opened(path: str, ahead: int = 0) -> Counted:
    """A file, open for reading. Of one in a store is fetched what is read, and so many bytes more each time."""
    if is_remote(path):
        how = {"cache_type": "readahead" if ahead else "none", "block_size": ahead or None}
        return Counted(package("fsspec", path).open(path, "rb", **how).open())
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
        raise Unreadable(f"{needs} ({printable(error)})") from error
