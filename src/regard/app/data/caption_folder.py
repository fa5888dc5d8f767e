"""Captions and their pictures in a folder: which belong together, which part each is for, and what is left out.

A caption is cleaned, in small letters, and taken apart at spaces and at the marks that structure sentences, which are
dropped: "Woman: medium-light skin tone, blond hair!" is "woman medium-light skin tone blond hair". Hyphens and
apostrophes stay where a word has them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from regard.app.data.caption_files import Said, by_ending, picture_files, plain, said
from regard.app.data.files import COMPRESSED, left_out
from regard.app.text.reading import clean, printable
from regard.app.vision.reading import File

LONGEST = 100  # words of a caption; one that is much longer makes every step of its batch slow
FILES = ("captions.jsonl", "captions.csv", "captions.txt")
ARCHIVES = ("images.tar", "images.tar.gz", "images.tar.xz")
PARTS = {"train": "training", "valid": "validation", "test": "test"}

_WORD = re.compile(r"[^\s.,;:!?…\"“”„«»()\[\]{}¡¿。、，！？：；]+")


def spoken(caption: str) -> str:
    """The words of a caption, a space between them; see above. Raises ValueError for bytes that are no UTF-8.

    >>> spoken("A man's hat - tri-colored , is “blue” .")
    "a man's hat tri-colored is blue"
    """
    found = _WORD.findall(clean(caption).lower().replace("’", "'"))
    return " ".join(word for word in found if word.strip("-'–—"))


class Example(NamedTuple):
    """A picture and its captions."""

    file: File
    captions: list[str]


class Found(NamedTuple):
    """What captions and pictures there are for each part, what they are called, how the parts were told apart, what is
    left out, and the names of the pictures that are not to be learned from."""

    parts: dict[str, list[Example]]
    what: str
    remark: str
    left_out: str
    held_out: frozenset[str]

    def examples(self, part: str) -> list[Example]:
        """The examples of a part, of which there are some."""
        if not self.parts[part]:
            raise ValueError(f"{self.what} have no {PARTS[part]} pictures{self.left_out}")
        return self.parts[part]


def find(data: Path, pictures: str | Path | None) -> Found:
    """The captions of a folder or a file together with their pictures; see `regard.app.data.captioned`.

    Raises ValueError where there are none, a file cannot be read, or a picture is told to be in two parts.
    """
    rows, folder = _rows(data)
    place = Path(pictures) if pictures is not None else _place(folder)
    if not place.exists():
        raise ValueError(f"pictures {printable(place)} do not exist; expected a folder or an archive of pictures")
    files = picture_files(place)
    captions, told, counts = _taken(rows, by_ending(files))
    counts["pictures (without a caption)"] = len(files) - len(captions)
    if not captions:
        raise ValueError(f"{printable(data)} has no caption of a picture in {printable(place)}{left_out(counts)}")
    parts, remark = _parted(told, not place.is_dir())
    examples = {part: [Example(files[name], captions[name]) for name in parts[part]] for part in PARTS}
    held_out = frozenset(parts["valid"] + parts["test"])
    return Found(examples, f"the captions of {printable(data)}", remark, left_out(counts), held_out)


def unheld(file: Path, found: Found) -> list[str]:
    """The captions of a file that are of no picture that is held out, without those that are empty or too long."""
    names = by_ending(found.held_out)
    texts = (_words_of(row) for row in said(file) if plain(row.picture) not in names)
    return [text for text in texts if not _unfit(text, file.name)]


def _rows(data: Path) -> tuple[list[Said], Path]:
    """All captions, and the folder where their pictures may lie."""
    if not data.exists():
        raise ValueError(
            f"data {printable(data)} does not exist; expected 'digits', or a folder of pictures with captions.csv, "
            "lines of image,caption"
        )
    if data.is_file():
        return said(data), data.parent
    files = [file for name in FILES for ending in ("", *COMPRESSED) if (file := data / f"{name}{ending}").is_file()]
    if len(files) > 1:
        raise ValueError(
            f"{printable(data)} expected one file of captions, but has {files[0].name} and {files[1].name}"
        )
    return (said(files[0]) if files else _coco(data)), data


def _coco(folder: Path) -> list[Said]:
    """The captions of the parts that a folder in COCO's form has."""
    rows = []
    for part in ("train", "val", "test"):
        files = [*folder.glob(f"captions_{part}*.json*"), *folder.glob(f"annotations/captions_{part}*.json*")]
        if len(files) > 1:
            raise ValueError(f"{printable(folder)} expected one file captions_{part}*.json, but has {len(files)}")
        rows += [each._replace(part=part.replace("val", "valid")) for file in files for each in said(file)]
    if not rows:
        raise ValueError(f"{printable(folder)} has no captions: none of {', '.join(FILES)}, captions_train*.json")
    return rows


def _place(folder: Path) -> Path:
    return next((folder / name for name in ARCHIVES if (folder / name).is_file()), folder)


Taken = tuple[dict[str, list[str]], dict[str, str], dict[str, int]]


def _taken(rows: Iterable[Said], names: dict[str, str]) -> Taken:
    """The captions of each picture, the part that is told for it, and how many are left out for which reason."""
    captions, told, counts = defaultdict(list), {}, defaultdict(int)
    for row in rows:
        text, name = _words_of(row), names.get(plain(row.picture))
        if reason := _unfit(text, name):
            counts[f"captions ({reason})"] += 1
        else:
            captions[name].append(text)
            if told.setdefault(name, row.part) != row.part:
                raise ValueError(f"the picture {printable(name)} is in two parts, {told[name]} and {row.part}")
    return captions, told, counts


def _words_of(row: Said) -> str:
    try:
        return spoken(row.caption)
    except ValueError as error:
        raise ValueError(f"a caption of {printable(row.picture)}: {error}") from error


def _unfit(text: str, name: str | None) -> str:
    """Why a caption is left out, if it is."""
    if name is None:
        return "their picture is missing"
    if not text:
        return "without a word"
    return f"over {LONGEST} words" if text.count(" ") >= LONGEST else ""


def _parted(told: dict[str, str], by_name: bool) -> tuple[dict[str, list[str]], str]:
    """The names of the pictures of each part, in order, and how those that are not told were found, in words."""
    parts = {part: sorted(name for name in told if told[name] == part) for part in ("", *PARTS)}
    untold = parts.pop("")
    if by_name and len(untold) == len(told):
        ends = [0, 8 * len(untold) // 10, 9 * len(untold) // 10, len(untold)]
        return {part: untold[ends[n] : ends[n + 1]] for n, part in enumerate(PARTS)}, " (by order of name)"
    parts["train"] = sorted(parts["train"] + untold)
    remarks = []
    for part, source, every in (("test", "valid" if parts["valid"] else "train", 2), ("valid", "train", 10)):
        if not parts[part]:
            every = every if source == "valid" else 10
            parts[source], parts[part] = _apart(parts[source], every)
            remarks.append(f"{part} is a {'half' if every == 2 else 'tenth'} of {source}")
    return parts, f" ({', '.join(remarks)})" if remarks else ""


def _apart(names: list[str], every: int) -> tuple[list[str], list[str]]:
    """The names to keep and one in so many that is held out, drawn always alike."""
    held = set(torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[::every].tolist())
    return [name for n, name in enumerate(names) if n not in held], [names[n] for n in sorted(held)]
