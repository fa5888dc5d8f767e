"""Texts with labels in which people marked the words that were the reason: from a folder as ERASER has them, from a
table or folder of `labelled`, in which what is [[marked]] stands in brackets, or reviews that are generated.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from regard.app.data.files import contents, left_out
from regard.app.data.generators.reviews import reviews
from regard.app.data.labelled import PARTS, Labelled, labelled, labelled_to_test
from regard.app.data.splits import Splits, hold_out, padded
from regard.app.text.reading import printable, raw_lines
from regard.app.text.tokens import tokens
from regard.app.text.vectors import Lexicon, lexicon

COUNTS = {"train": 1000, "valid": 200, "test": 200}  # generated reviews of each part
SOURCE = "reviews of a small grammar inside regard"
ENDINGS = ("", ".gz", ".xz")
MARKED = re.compile(r"(?:(?<=\s)|^)\[ \[ (.+?) \] \](?=\s|$)")


class Text(NamedTuple):
    """A text as words with a space between them, its label, and which of its words are marked."""

    words: str
    label: str
    marked: list[bool]


class Rationales(Labelled):
    """Labelled texts, and which of the words of each are `marked`: none of a text of which that is not known."""

    def __init__(self, texts: list[str], labels: Int[Tensor, " N"], lexicon: Lexicon, marked: Sequence[list[bool]]):
        super().__init__(texts, labels, lexicon)
        self.marked = [torch.tensor(row, dtype=torch.bool) for row in marked]

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """As of `Labelled`, and beside it marked (B, K): which words are."""
        marked = padded([self.marked[n].long() for n in indices.tolist()]).bool()
        return super().batch(indices, generator) | {"marked": marked}

    def spelled_by(self, vocabulary: Lexicon) -> "Rationales":
        """The same texts in the numbers of another lexicon."""
        return Rationales(self.texts, self.labels, vocabulary, [row.tolist() for row in self.marked])


def no_rationales(known: Lexicon) -> Rationales:
    """None, in the numbers of a lexicon."""
    return Rationales([], torch.zeros(0, dtype=torch.long), known, [])


def unlabelled(texts: Sequence[str], known: Lexicon) -> Rationales:
    """Texts of `tokens` without a label, in the numbers of a lexicon; what stands in brackets is marked."""
    found = [unmarked(text) for text in texts]
    none = torch.full((len(found),), -1)
    return Rationales([words for words, _ in found], none, known, [marked for _, marked in found])


def rationales(data: str | Path = "generated", classes: Sequence[str] = ()) -> Splits:
    """Texts with labels and marked words: "generated" reviews, a folder as ERASER has them (DeYoung et al. 2020), or
    what `labelled` reads, where what people marked stands in [[double brackets]], if anything is marked at all.

    A folder of ERASER has the texts, split into words by spaces, in a folder or archive `docs`, and train.jsonl,
    val.jsonl and test.jsonl, compressed by gzip or xz or not. A training text that is in another part, too, is left
    out of training; where another part is missing, it is a tenth of the training texts.

    Raises ValueError where there are no such files, one is damaged, or a label of a part is not one of the `classes`.

    >>> rationales().describe
    'reviews of a small grammar inside regard: 1,000 training, 200 validation and 200 test texts'
    """
    if data == "generated":
        parts = {part: _written(reviews(count, seed)) for seed, (part, count) in enumerate(COUNTS.items())}
        return _splits(parts, SOURCE, classes)
    if not _is_eraser(Path(data)):
        return _without_marks(labelled(data, classes))
    parts, dropped = _apart(_eraser(Path(data)), printable(data))
    return _splits(parts, f"the texts of {printable(data)}", classes, dropped)


def rationales_to_test(data: str | Path, classes: Sequence[str]) -> Splits:
    """The test part alone, or, of a table or folder without parts, all texts.

    >>> rationales_to_test("generated", rationales().classes).describe
    'reviews of a small grammar inside regard: 200 test texts'
    """
    if data != "generated" and not _is_eraser(Path(data)):
        return _without_marks(labelled_to_test(data, classes))
    if data == "generated":
        rows, source = _written(reviews(COUNTS["test"], 2)), SOURCE
    else:
        parts, source = _eraser(Path(data)), f"the texts of {printable(data)}"
        rows = list(parts.get("test", parts[list(parts)[-1]]).values())
    test = _numbered(rows, classes, f"the test part of {printable(data)}", lexicon([]))
    none = no_rationales(test.lexicon)
    return Splits(none, none, test, f"{source}: {len(test):,} test texts", tuple(classes))


def unmarked(text: str) -> tuple[str, list[bool]]:
    """A text of `tokens` without its brackets, and which words stood in them.

    >>> unmarked("a [ [ truly moving ] ] film")
    ('a truly moving film', [False, True, True, False])
    """
    pieces = [piece.split() for piece in MARKED.split(text)]
    marked = [bool(n % 2) for n, piece in enumerate(pieces) for _ in piece]
    return " ".join(word for piece in pieces for word in piece), marked


def _written(rows: Sequence[tuple[str, str]]) -> list[Text]:
    """Texts as they are written, with brackets."""
    found = ((unmarked(" ".join(tokens(text))), label) for text, label in rows)
    return [Text(words, label, marked) for (words, marked), label in found]


def _without_marks(splits: Splits) -> Splits:
    """The same texts without brackets."""
    found: Any = splits[:3]
    parts = [([unmarked(text) for text in part.texts], part.labels) for part in found]
    known = lexicon(words for words, _ in parts[0][0])
    train, valid, test = (
        Rationales([words for words, _ in texts], labels, known, [marked for _, marked in texts])
        for texts, labels in parts
    )
    return splits._replace(train=train, valid=valid, test=test)


def _splits(parts: dict[str, list[Text]], source: str, classes: Sequence[str], dropped: int = 0) -> Splits:
    classes = classes or sorted({text.label for text in parts["train"]})
    if len(classes) < 2:
        raise ValueError(f"{source} expected two labels at least, but all are labelled {classes[0]!r}")
    known = lexicon(text.words for text in parts["train"])
    train, valid, test = (_numbered(parts[part], classes, f"the {part} part of {source}", known) for part in PARTS)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test texts"
    away = left_out({"training texts (in another part, too)": dropped})
    return Splits(train, valid, test, f"{source}: {counts}{away}", tuple(classes))


def _numbered(texts: Sequence[Text], classes: Sequence[str], where: str, known: Lexicon) -> Rationales:
    numbers = {name: number for number, name in enumerate(classes)}
    if strange := sorted({text.label for text in texts} - set(numbers)):
        listed = ", ".join(map(repr, classes[:10]))
        raise ValueError(f"{where} has the label {strange[0]!r}, which is not one to learn: these are {listed}")
    labels = torch.tensor([numbers[text.label] for text in texts], dtype=torch.long)
    return Rationales([text.words for text in texts], labels, known, [text.marked for text in texts])


def _is_eraser(folder: Path) -> bool:
    return _listed(folder, "train") is not None or _listed(folder, "test") is not None


def _listed(folder: Path, part: str) -> Path | None:
    """The file that lists the texts of a part."""
    files = (folder / f"{name}.jsonl{ending}" for name in PARTS[part] for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _eraser(folder: Path) -> dict[str, dict[str, Text]]:
    """The texts of each part that there is, by the names of their documents."""
    documents = _documents(folder)
    return {part: dict(_annotated(file, documents)) for part in PARTS if (file := _listed(folder, part))}


def _apart(parts: dict[str, dict[str, Text]], name: str) -> tuple[dict[str, list[Text]], int]:
    """The parts without training texts that are in another, too, and how many these were; those that are missing are
    held out of the training texts."""
    if "train" not in parts:
        raise ValueError(f"{name} expected a file train.jsonl, but has none")
    others = {name for part, texts in parts.items() if part != "train" for name in texts}
    found = {part: list(texts.values()) for part, texts in parts.items()}
    train = [text for name, text in parts["train"].items() if name not in others]
    dropped = len(parts["train"]) - len(train)
    for part, seed in (("test", 0), ("valid", 1)):
        if part not in found:
            names = sorted({text.label for text in train})
            kept, held = hold_out(torch.tensor([names.index(text.label) for text in train]), seed)
            found[part], train = [train[n] for n in held.tolist()], [train[n] for n in kept.tolist()]
    return found | {"train": train}, dropped


def _annotated(file: Path, documents: Callable[[str], str]) -> Iterator[tuple[str, Text]]:
    """The texts that a file lists, one a line, by the names of their documents."""
    name = printable(file)
    for number, line in enumerate(raw_lines(io.BytesIO(contents(file)), name), 1):
        try:
            row = json.loads(line)
            spans = [span for group in row["evidences"] for span in group]
            document = spans[0]["docid"] if spans else row["annotation_id"]
            ends = [(span["start_token"], span["end_token"]) for span in spans]
            label = str(row["classification"])
        except (ValueError, KeyError, TypeError) as error:
            wanted = "a line of JSON with annotation_id, classification and evidences"
            raise ValueError(f"{name}, line {number}: expected {wanted} ({type(error).__name__}: {error})") from error
        words = documents(document).lower().split()
        marked = [False] * len(words)
        for start, end in ends:
            if not 0 <= start <= end <= len(words):
                raise ValueError(f"{name}, line {number}: expected a span of {len(words)} words, but got {start}:{end}")
            marked[start:end] = [True] * (end - start)
        if not words:
            raise ValueError(f"{name}, line {number}: expected a text with a word in it, but {document!r} has none")
        yield document, Text(" ".join(words), label, marked)


def _documents(folder: Path) -> Callable[[str], str]:
    """What gives the text of a document by its name."""
    archive = next((file for ending in ENDINGS if (file := folder / f"docs.tar{ending}").is_file()), None)
    if archive is not None:
        found = _archived(archive)
    elif (folder / "docs").is_dir():
        found = {file.name: file.read_bytes() for file in sorted((folder / "docs").iterdir()) if file.is_file()}
    else:
        raise ValueError(f"{printable(folder)} expected a folder docs or an archive docs.tar, but has neither")

    def document(name: str) -> str:
        if name not in found:
            raise ValueError(f"{printable(folder)} expected a document {name!r}, but has none of that name")
        return " ".join(raw_lines(io.BytesIO(found[name]), name))

    return document


def _archived(file: Path) -> dict[str, bytes]:
    """The files of an archive, by their names without a folder; nothing is written to disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(contents(file)), mode="r:") as archive:
            members = [member for member in archive if member.isfile()]
            return {Path(member.name).name: archive.extractfile(member).read() for member in members}  # pyright: ignore
    except tarfile.TarError as error:
        raise ValueError(f"{printable(file)} is not a whole archive: {error}") from error
