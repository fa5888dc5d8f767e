"""What is said of pictures, and the pictures, as they lie in files: tables, lines of JSON, COCO's form, archives."""

import csv
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

from regard.app.data.files import COMPRESSED, contents
from regard.app.text.reading import printable, raw_lines
from regard.app.vision.reading import ENDINGS, File, Stored

PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}  # what a file may call them


class Said(NamedTuple):
    """A caption, of which picture it is, by the name that the file gives it, and for which part: "" if none is told."""

    picture: str
    caption: str
    part: str = ""


def said(file: Path) -> list[Said]:
    """The captions of a file, which may end in .gz or .xz besides:

        .csv .txt   lines of image,caption, below a header that may name a column split too, or without a header
        .jsonl      an object with image, caption and perhaps split on each line
        .json       COCO's: images with id and file_name, annotations with image_id and caption

    A split is train, valid (or val) or test. Raises ValueError, with the line where there is one, for a file that
    cannot be read, is not in UTF-8, or is of another form.
    """
    ending = Path(file.stem if file.suffix in COMPRESSED else file.name).suffix
    if ending not in FORMS:
        raise ValueError(f"captions are read from files that end in {', '.join(FORMS)}, not from {printable(file)}")
    return list(FORMS[ending](contents(file), printable(file)))


def _table(data: bytes, name: str) -> Iterator[Said]:
    rows = _rows(data, name)
    line, first = next(rows, (1, []))
    columns = [cell.strip().lower() for cell in first]
    if not {"image", "caption"} <= set(columns):
        columns, rows = ["image", "caption"], chain([(line, first)], rows)
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(
                f"{name}, line {line}: expected {','.join(columns)}, but got {len(cells)} values; "
                "a caption that has a comma stands in quotes"
            )
        row = dict(zip(columns, cells, strict=True))
        yield _said(row, f"{name}, line {line}")


def _rows(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not empty, and the line that each ends on."""
    reader = csv.reader((line + "\n" for line in raw_lines(io.BytesIO(data), name)), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}") from error


def _json_lines(data: bytes, name: str) -> Iterator[Said]:
    for number, line in enumerate(raw_lines(io.BytesIO(data), name), 1):
        if line.strip():
            yield _said(_parsed(line, f"{name}, line {number}"), f"{name}, line {number}")


def _parsed(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected JSON, but {error}") from error


def _said(row: Any, where: str) -> Said:
    """The caption of a row or an object."""
    given = row if isinstance(row, Mapping) else {}
    if not all(isinstance(given.get(name), str) for name in ("image", "caption")):
        raise ValueError(f"{where}: expected an object with the texts image and caption")
    if "split" in given and str(given["split"]) not in PARTS:
        raise ValueError(f"{where}: split must be train, valid or test, not {given['split']!r}")
    return Said(given["image"].strip(), given["caption"], PARTS.get(given.get("split", ""), ""))


def _coco(data: bytes, name: str) -> list[Said]:
    found = _parsed(data, name)
    try:
        files = {each["id"]: each["file_name"] for each in found["images"]}
        rows = [Said(files[each["image_id"]], each["caption"]) for each in found["annotations"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{name} expected COCO's captions: images with id and file_name, annotations with image_id and caption; "
            f"but {type(error).__name__} {error}"
        ) from error
    if not all(isinstance(text, str) for row in rows for text in row):
        raise ValueError(f"{name} expected file_name and caption to be texts")
    return rows


FORMS: dict[str, Callable[[bytes, str], Iterable[Said]]] = {
    ".csv": _table,
    ".txt": _table,
    ".jsonl": _json_lines,
    ".json": _coco,
}


def picture_files(place: Path) -> dict[str, File]:
    """The pictures in a folder and in those below it, or in an archive such as images.tar or images.tar.xz, by their
    names in it, in order.

    Of an archive nothing is written to the disk. What is hidden, no regular file, or no picture by its ending is passed
    over. Raises ValueError where the folder or the archive cannot be read.
    """
    if place.is_dir():
        return {name: place / name for name in sorted(_walk(place)) if (place / name).is_file()}
    return {each.name: each for each in sorted(stored(place), key=lambda each: each.name) if _is_picture(each.name)}


def _walk(folder: Path) -> Iterator[str]:
    """The names of the pictures in a folder and below; links to folders are not followed."""
    for root, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(root, name), folder) for name in names if _is_picture(name))


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _refuse(error: OSError) -> None:
    raise ValueError(f"folder {printable(error.filename)} cannot be read: {error.strerror}") from error


def stored(archive: Path) -> list[Stored]:
    """The regular files of a tar archive, as they lie in memory.

    Raises ValueError where it cannot be read or is not whole.
    """
    data = contents(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [member for member in tar if member.isreg() and not member.issparse()]
            found = [Stored(member.name, tar.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
            rest = data[tar.offset :]  # two blocks of zeros, or tarfile has met what it does not tell of
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{printable(archive)} is not a whole tar archive: {error}") from error
    if len(rest) < tarfile.BLOCKSIZE or any(rest):
        raise ValueError(f"{printable(archive)} is not a whole tar archive: it does not end as one")
    return found


def by_ending(names: Iterable[str]) -> dict[str, str]:
    """The name of a picture by all that it may be called: its whole name, and each ending of that at a slash, if no
    other name ends so.

    >>> by_ending(["a/1.png", "b/1.png", "b/2.png"])["2.png"], "1.png" in by_ending(["a/1.png", "b/1.png"])
    ('b/2.png', False)
    """
    endings = [(ending, name) for name in names for ending in _endings(name)]
    times = Counter(ending for ending, _ in endings)
    alone = {ending: name for ending, name in endings if times[ending] == 1}
    return alone | {plain(name): name for _, name in endings}


def _endings(name: str) -> list[str]:
    parts = plain(name).split("/")
    return ["/".join(parts[n:]) for n in range(len(parts))]


def plain(name: str) -> str:
    """The name of a file as others may write it: without ./ in front, in Unicode's composed form.

    >>> plain("./images//1.png")
    'images/1.png'
    """
    return normalize("NFC", str(PurePosixPath(name)))
