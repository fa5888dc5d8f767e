"""The one way in for files of data, whichever format they have."""

import gzip
import zlib
from pathlib import Path

from regard.app.text.reading import printable


def contents(file: Path) -> bytes:
    """The bytes of a file, decompressed if its name ends in .gz.

    Raises ValueError where it is missing, cannot be read, is no whole gzip file, or holds nothing.

    >>> contents(Path("nowhere.txt"))
    Traceback (most recent call last):
    ValueError: nowhere.txt cannot be read: No such file or directory
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{printable(file)} cannot be read: {error.strerror}") from error
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{printable(file)} is not a whole gzip file: {error}") from error
    if not data:
        raise ValueError(f"{printable(file)} is empty")
    return data
