"""The one way in for files of data, whichever format they have."""

import gzip
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path

from regard.app.text.reading import lines, printable

COMPRESSED = {".gz": ("gzip", gzip.decompress), ".xz": ("xz", lzma.decompress)}


def contents(file: Path) -> bytes:
    """The bytes of a file, decompressed if its name ends in .gz or .xz.

    Raises ValueError where it is missing, cannot be read, is no whole file of that kind, or holds nothing.

    >>> contents(Path("nowhere.txt"))
    Traceback (most recent call last):
    ValueError: nowhere.txt cannot be read: No such file or directory
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{printable(file)} cannot be read: {error.strerror}") from error
    if file.suffix in COMPRESSED:
        kind, decompress = COMPRESSED[file.suffix]
        try:
            data = decompress(data)
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise ValueError(f"{printable(file)} is not a whole {kind} file: {error}") from error
    if not data:
        raise ValueError(f"{printable(file)} is empty")
    return data


def sentences(file: Path) -> list[str]:
    """The lines of a file of plain text, each `clean`, one a sentence; empty where a line is.

    Raises ValueError as `contents` does, and where the file is not in UTF-8, or has nothing but empty lines.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "train.de").write_bytes(b"ein  Haus\\r\\nein Baum\\r\\n")
    ...     sentences(Path(folder) / "train.de")
    ['ein Haus', 'ein Baum']
    """
    found = lines(contents(file), printable(file))
    if not any(found):
        raise ValueError(f"{printable(file)} holds no sentence")
    return found


def left_out(counts: Mapping[str, int]) -> str:
    """What is not taken from data, and why, as the end of the sentence that describes them; nothing if it is nothing.

    >>> left_out({"training pairs (a side is empty)": 3, "test pairs (a side is empty)": 0})
    '; left out: 3 of the training pairs (a side is empty)'
    """
    found = ", ".join(f"{count:,} of the {what}" for what, count in counts.items() if count)
    return f"; left out: {found}" if found else ""
