"""Texts and what each is labelled: from a table, from a folder with a file for each label, or questions that are
generated.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.files import contents, left_out, sentences
from regard.app.data.generators.questions import questions
from regard.app.data.splits import Splits, hold_out, padded
from regard.app.text.reading import clean, printable, raw_lines
from regard.app.text.tokens import tokens
from regard.app.text.vectors import Lexicon, lexicon

PARTS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}
"""What the files or folders of each part may be called."""
COUNTS = {"train": 2000, "valid": 300, "test": 300}  # generated questions of each part
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
COLUMNS = "a column text and a column label, named in the first line"
LEAST, LONGEST = 10, 2000  # texts that a tenth can be held out of, and words of a text

Rows = list[tuple[str, str]]
"""Texts and their labels."""


class Labelled:
    """Texts with the number of each one's label as a split, in the numbers of a lexicon.

    `texts` are `tokens` with a space between them.
    """

    def __init__(self, texts: list[str], labels: Int[Tensor, " N"], lexicon: Lexicon):
        self.texts, self.labels, self.lexicon = texts, labels, lexicon
        self.words = [torch.tensor(numbers) for numbers in lexicon.vocabulary.encode(texts)]
        self.lengths = torch.tensor([len(each) for each in self.words], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The texts at `indices`; nothing in them is random. Of at most K words:

        words (B, K)    the number of each word; 0 after them
        label (B,)      the number of the label; -1 if it is not known
        text (B, C)     the bytes of the words as they are written; 0 after them
        """
        chosen = indices.tolist()
        texts = [torch.frombuffer(bytearray(self.texts[n].encode()), dtype=torch.uint8) for n in chosen]
        return {
            "words": padded([self.words[n] for n in chosen]),
            "label": self.labels[indices],
            "text": pad_sequence(texts, batch_first=True),
        }

    def spelled_by(self, vocabulary: Lexicon) -> "Labelled":
        """The same texts in the numbers of another lexicon."""
        return Labelled(self.texts, self.labels, vocabulary)


def no_texts(known: Lexicon) -> Labelled:
    """None, in the numbers of a lexicon."""
    return Labelled([], torch.zeros(0, dtype=torch.long), known)


def labelled(data: str | Path = "generated", classes: Sequence[str] = ()) -> Splits:
    """Texts with labels: "generated" questions, those of a file, or of a folder.

    A file is a table, .csv or .tsv, with a column `text` and a column `label`; a tenth of its texts is for the test,
    and a tenth of the others for validation, with their share of each label. A folder has the parts as such tables,
    train.csv, valid.csv and test.csv, of which the last two may be missing; or files LABEL.txt with a text a line, in
    it or in its folders train, valid and test. Gzipped or not. Texts without a word, or with more than 2,000, are left
    out, and `describe` says how many. `classes` are the labels as a model knows them, those of the training texts if
    not given.

    Raises ValueError where there are no such files, one is damaged, empty or not in UTF-8, there are fewer than ten
    texts or two labels, or a part has a label that is not among the classes.

    >>> splits = labelled()
    >>> splits.describe
    'questions of a small grammar inside regard: 2,000 training, 300 validation and 300 test texts'
    """
    if data == "generated":
        parts = {part: questions(count, seed) for seed, (part, count) in enumerate(COUNTS.items())}
        return _splits(parts, "questions of a small grammar inside regard", {}, classes)
    parts, dropped = _usable({part: rows for part in PARTS if (rows := _read(Path(data), part))})
    if "train" not in parts:
        parts, dropped = _usable({"train": _whole(Path(data))})
    for part, seed in (("test", 0), ("valid", 1)):
        if part not in parts:
            parts["train"], parts[part] = _held_out(parts["train"], seed, printable(data))
    return _splits(parts, f"the texts of {printable(data)}", dropped, classes)


def labelled_to_test(data: str | Path, classes: Sequence[str]) -> Splits:
    """The test part of a folder, or where there is none all texts of a folder or file; the other parts are empty.

    >>> labelled_to_test("generated", labelled().classes).describe
    'questions of a small grammar inside regard: 300 test texts'
    """
    if data == "generated":
        rows, source, dropped = questions(COUNTS["test"], 2), "questions of a small grammar inside regard", {}
    else:
        parts, dropped = _usable({"test": _read(Path(data), "test") or _whole(Path(data))})
        rows, source = parts["test"], f"the texts of {printable(data)}"
    test = _numbered(rows, classes, f"the test part of {printable(data)}", lexicon([]))
    none = no_texts(test.lexicon)
    return Splits(none, none, test, f"{source}: {len(test):,} test texts{left_out(dropped)}", tuple(classes))


def _splits(parts: dict[str, Rows], source: str, dropped: dict[str, int], classes: Sequence[str]) -> Splits:
    classes = classes or sorted({label for _, label in parts["train"]})
    if len(classes) < 2:
        raise ValueError(f"{source} expected two labels at least, but all are labelled {classes[0]!r}")
    known = lexicon(text for text, _ in parts["train"])
    train, valid, test = (_numbered(parts[part], classes, f"the {part} part of {source}", known) for part in PARTS)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test texts"
    return Splits(train, valid, test, f"{source}: {counts}{left_out(dropped)}", tuple(classes))


def _numbered(rows: Rows, classes: Sequence[str], where: str, known: Lexicon) -> Labelled:
    numbers = {name: number for number, name in enumerate(classes)}
    if strange := sorted({label for _, label in rows} - set(numbers)):
        listed = ", ".join(map(repr, classes[:10]))
        raise ValueError(f"{where} has the label {strange[0]!r}, which is not one to learn: these are {listed}")
    labels = torch.tensor([numbers[label] for _, label in rows], dtype=torch.long)
    return Labelled([text for text, _ in rows], labels, known)


def _usable(parts: dict[str, Rows]) -> tuple[dict[str, Rows], dict[str, int]]:
    """The texts as words, without those that are left out, and how many these are."""
    dropped: dict[str, int] = {}
    found = {}
    for part, rows in parts.items():
        split = [(tokens(text), label) for text, label in rows]
        some = [(words, label) for words, label in split if words]
        found[part] = [(" ".join(words), label) for words, label in some if len(words) <= LONGEST]
        dropped[f"{part} texts (no word in them)"] = len(split) - len(some)
        dropped[f"{part} texts (over {LONGEST:,} words)"] = len(some) - len(found[part])
        if not found[part]:
            raise ValueError(f"the {part} part holds no text of 1 to {LONGEST:,} words")
    return found, dropped


def _held_out(rows: Rows, seed: int, name: str) -> tuple[Rows, Rows]:
    """The texts to keep, and a tenth of those of each label."""
    if len(rows) < LEAST:
        raise ValueError(f"{name} expected at least {LEAST} texts to hold a tenth out of, but has {len(rows)}")
    names = sorted({label for _, label in rows})
    kept, held = hold_out(torch.tensor([names.index(label) for _, label in rows]), seed)
    return [rows[n] for n in kept.tolist()], [rows[n] for n in held.tolist()]


def _read(place: Path, part: str) -> Rows | None:
    """The texts of a part of a folder, train, valid or test; None if it has no such part."""
    for name in PARTS[part] if place.is_dir() else ():
        tables = [file for ending in TABLES if (file := place / f"{name}{ending}").exists()]
        if len(tables) > 1:
            raise ValueError(f"{printable(place)} expected one table {name}, but has {len(tables)}")
        if tables:
            return _table(tables[0])
        if (place / name).is_dir():
            return _files(place / name)
    return None


def _whole(place: Path) -> Rows:
    """The texts of a place that has no parts."""
    if place.is_dir():
        return _files(place)
    if not place.name.endswith(TABLES):
        raise ValueError(f"{printable(place)} expected a table, {' or '.join(TABLES[:2])}, or a folder")
    return _table(place)


def _files(folder: Path) -> Rows:
    """The lines of files LABEL.txt."""
    files = {file.name.partition(".txt")[0]: file for file in sorted(folder.glob("*.txt*")) if file.is_file()}
    if not files:
        raise ValueError(f"{printable(folder)} expected tables train{TABLES[0]} or files LABEL.txt, but has neither")
    return [(text, clean(label)) for label, file in files.items() for text in sentences(file)]


def _table(file: Path) -> Rows:
    """The texts and labels of a table. Raises ValueError, with the number of the line, where it is damaged."""
    name, tabs = printable(file), ".tsv" in file.suffixes
    lines = (f"{line}\n" for line in raw_lines(io.BytesIO(contents(file)), name))
    reader = csv.reader(lines, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    try:
        head = [clean(cell).lower() for cell in next(reader, [])]
        if not {"text", "label"} <= set(head):
            raise ValueError(f"{name} expected {COLUMNS}, but that has {', '.join(map(repr, head))[:80]}")
        return list(_rows(reader, head.index("text"), head.index("label"), lambda: f"{name}, line {reader.line_num}"))
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}") from error


def _rows(reader: Iterator[list[str]], text: int, label: int, where: Callable[[], str]) -> Iterator[tuple[str, str]]:
    for cells in filter(None, reader):
        if len(cells) <= max(text, label):
            raise ValueError(f"{where()}: expected {max(text, label) + 1} columns at least, but got {len(cells)}")
        if not (name := clean(cells[label])):
            raise ValueError(f"{where()}: expected a label, but it is empty")
        yield clean(cells[text]), name
