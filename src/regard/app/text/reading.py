"""The one way in for text: bytes become lines, and text that looks the same becomes the same."""

import io
import re
import unicodedata
from collections.abc import Generator, Iterator
from typing import BinaryIO

Stream = io.BufferedIOBase | BinaryIO

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters that are no white space
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # without width, or of direction
    "\ufdd0-\ufdef\ufffe\uffff]"  # no characters at all
)
_FOREIGN = re.compile("[\ud800-\udfff]")  # what Python makes of bytes that are no UTF-8, in arguments and file names


def clean(text: str) -> str:
    """The text as it looks: in Unicode's composed form (NFC), white space of any kind as one space, none at the ends.

    Characters that are never seen are dropped: controls, byte order marks, soft hyphens, spaces without width, marks of
    direction. Joiners stay, as letters look different without them. Raises ValueError for bytes that are no UTF-8,
    which Python leaves in arguments and in the names of files.

    >>> clean("\ufeffein\\u00a0 Ha\\u200bus\\t"), clean("cafe\\u0301") == "caf\\u00e9"
    ('ein Haus', True)
    """
    if foreign := _FOREIGN.search(text):
        raise ValueError(f"expected text in UTF-8, but got the byte 0x{ord(foreign[0]) & 0xFF:02x}")
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


def raw_lines(stream: Stream, name: str = "standard input") -> Generator[str]:
    """The lines of a stream as they stand, one at a time, for formats in which tabs count; `name` is what errors call
    the stream.

    A line ends in LF, CRLF or CR, and nowhere else. Byte order marks at the beginning of a line are dropped, as files
    that were joined have several. Raises ValueError, with the number of the line, where it is not in UTF-8; the lines
    before have been given.

    >>> list(raw_lines(io.BytesIO(b"\\xef\\xbb\\xbf1\\tGo\\r\\n2\\ton\\r")))
    ['1\\tGo', '2\\ton']
    """
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape")  # pyright: ignore[reportArgumentType]
    try:
        for number, line in enumerate(text, 1):
            if foreign := _FOREIGN.search(line):
                byte = ord(foreign[0]) & 0xFF
                raise ValueError(f"{name}, line {number}: expected text in UTF-8, but got the byte 0x{byte:02x}")
            yield line.removesuffix("\n").lstrip("\ufeff")
    finally:
        text.detach()  # or the stream would be closed with it


def stream_lines(stream: Stream, name: str = "standard input") -> Iterator[str]:
    """The lines of a stream of plain text, each `clean`, one at a time: no more is read than is asked for, but for a
    buffer. Raises ValueError as `raw_lines` does.

    >>> list(stream_lines(io.BytesIO("ein\\u00a0 Haus\\n\\nzwei\\u2028Häuser".encode())))
    ['ein Haus', '', 'zwei Häuser']
    """
    return map(clean, raw_lines(stream, name))


def lines(data: bytes, name: str) -> list[str]:
    """The lines of bytes, each `clean`. Raises ValueError as `raw_lines` does.

    >>> lines(b"ein Haus\\n\\nGr\\xfc\\xdfe", "letter.de")
    Traceback (most recent call last):
    ValueError: letter.de, line 3: expected text in UTF-8, but got the byte 0xfc
    """
    return list(stream_lines(io.BytesIO(data), name))


def printable(text: object) -> str:
    """Text for people to read, such as the name of a file: what cannot be printed is spelled out.

    >>> printable("caf\\udce9\\x1b[31m")
    'caf\\\\udce9\\\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
