"""Sentences with a label for every word: from files of columns, from CoNLL-U, or made up."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from regard.app.data.files import contents, left_out
from regard.app.data.generators.names import names
from regard.app.data.labelled import PARTS
from regard.app.data.splits import Splits, hold_out
from regard.app.data.trees import Written, name
from regard.app.text.reading import clean, printable, raw_lines
from regard.app.text.spans import in_bio, of_spans

COUNTS = {"train": 1500, "valid": 200, "test": 300}  # generated sentences of each part
ENDINGS = (".txt", ".tsv", ".conll", ".bio", ".iob", ".iob2", ".conllu")
COMPRESSED = ("", ".gz", ".xz")
LEAST, LONGEST, LETTERS = 10, 2000, 1000  # sentences to hold out of, words of a sentence, characters of a word
DOCUMENT = "-DOCSTART-"
"""The word that marks where a document begins, in some files: no sentence."""
DIGIT = re.compile(r"\d")


class Labels(NamedTuple):
    """The words of a sentence, what stands in the columns between them and the labels, and the labels."""

    words: tuple[str, ...]
    features: tuple[str, ...]
    labels: tuple[str, ...]


class Tagged(Written):
    """A split of labelled sentences. A batch has beside what is `Written`, where names are alike for all digits:

        labels (B, K)         which of the classes each word has; -1 if that is not known
        features (B, K)       64 bits that tell what stands in the further columns

    >>> Tagged([Labels(("In", "Oslo"), ("", ""), ("O", "B-LOC"))], ["B-LOC", "O"]).batch(torch.tensor([0]))["labels"]
    tensor([[1, 0]])
    """

    def __init__(self, sentences: Sequence[Labels], classes: Sequence[str]):
        numbers = {label: number for number, label in enumerate(classes)}
        columns = {
            "labels": ([numbers.get(label, -1) for label in each.labels] for each in sentences),
            "features": (map(name, each.features) for each in sentences),
        }
        super().__init__([each.words for each in sentences], columns, _named)
        self.sentences = sentences


def untagged(sentences: Sequence[Sequence[str]]) -> Tagged:
    """Sentences of which nothing is known but their words."""
    return Tagged([Labels(tuple(words), ("",) * len(words), ("",) * len(words)) for words in sentences], [])


def tagged(data: str | Path = "generated", column: int = 0, classes: Sequence[str] = ()) -> Splits:
    """Sentences with a label for every word: "generated" ones, those of a file, or of a folder.

    A file has a word a line, and an empty line after each sentence: columns parted by tabs or spaces, of which the
    first is the word and the last the label, or, in a file .conllu, the parts of speech of CoNLL-U. `column` is another
    one for the label, counted from 1. A folder has files whose names end in train, in valid or dev, and in test, before
    .txt, .tsv, .conll, .bio, .iob or .conllu, compressed or not; a part that is missing is a tenth of the training
    sentences, held out. Labels of spans are read by conlleval's rules, and are B-KIND, I-KIND and O from then on.

    `classes` are the labels that a model knows, those of the training sentences if not given. Raises ValueError where
    there is no such file, one is damaged or has no sentence, or a part has a label that is none of the classes.

    >>> splits = tagged()
    >>> splits.describe
    'sentences with names inside regard: 1,500 training, 200 validation and 300 test sentences'
    >>> splits.classes
    ('B-LOC', 'B-ORG', 'B-PER', 'I-LOC', 'I-ORG', 'I-PER', 'O')
    """
    if data == "generated":
        parts = {part: _made(count, seed) for seed, (part, count) in enumerate(COUNTS.items())}
        return _splits(parts, "sentences with names inside regard", classes)
    files = _files(Path(data))
    if "train" not in files:
        raise ValueError(f"{printable(data)} expected a file that ends in train, such as train.txt, but has none")
    parts = {part: read(file, column) for part, file in files.items()}
    for part, seed in (("test", 0), ("valid", 1)):
        if part not in parts:
            parts["train"], parts[part] = _held_out(parts["train"], seed, printable(data))
    return _splits(parts, f"the sentences of {printable(data)}", classes)


def tagged_to_test(data: str | Path, column: int, classes: Sequence[str]) -> Splits:
    """The test part alone, or, of a file or a folder without parts, all sentences.

    >>> tagged_to_test("generated", 0, tagged().classes).describe
    'sentences with names inside regard: 300 test sentences'
    """
    source = f"the sentences of {printable(data)}"
    if data == "generated":
        source, found = "sentences with names inside regard", _made(COUNTS["test"], 2)
    else:
        files = _files(Path(data))
        found = read(files.get("test", files[list(files)[-1]]), column)
    test, dropped = _numbered(found, classes, f"the test part of {printable(data)}")
    count = f"{len(test):,} test sentences{left_out({'test sentences' + TOO_LONG: dropped})}"
    return Splits(untagged([]), untagged([]), test, f"{source}: {count}", tuple(classes))


TOO_LONG = f" (over {LONGEST:,} words, or a word of over {LETTERS:,} characters)"


def read(file: Path, column: int = 0) -> list[Labels]:
    """The sentences of a file. Raises ValueError where it is damaged, has no sentence, or lines of fewer or more
    columns than the first.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a.txt").write_text("In IN O\\nOslo NNP I-LOC\\n\\n")
    ...     read(Path(folder) / "a.txt")
    [Labels(words=('In', 'Oslo'), features=('IN', 'NNP'), labels=('O', 'B-LOC'))]
    """
    lines = raw_lines(io.BytesIO(contents(file)), printable(file))
    sentences = _sentences(lines, printable(file), column, ".conllu" in file.suffixes)
    found = [each for each in sentences if each.words[0] != DOCUMENT]
    if not found:
        raise ValueError(f"{printable(file)} holds no sentence")
    if not of_spans([label for each in found for label in each.labels]):
        return found
    return [each._replace(labels=tuple(in_bio(each.labels))) for each in found]


def _sentences(lines: Iterable[str], name: str, column: int, conllu: bool) -> Iterator[Labels]:
    """The sentences of lines, of which the first says how many columns there are."""
    words: list[tuple[str, str, str]] = []
    count = 10 if conllu else 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            if words:
                yield Labels(*zip(*words, strict=True))  # pyright: ignore[reportArgumentType]
            words = []
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if conllu and (line.startswith("#") or "-" in columns[0] or "." in columns[0]):
            continue
        count = count or len(columns)
        if len(columns) != count:
            raise ValueError(f"{name}, line {number}: expected {count} columns, but got {len(columns)}")
        try:
            words.append(_word([clean(each) for each in columns], column, conllu))
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
    if words:
        yield Labels(*zip(*words, strict=True))  # pyright: ignore[reportArgumentType]


def _word(columns: Sequence[str], column: int, conllu: bool) -> tuple[str, str, str]:
    """The word of a line, its further columns and its label."""
    first, last = (1, column or 4) if conllu else (0, column or len(columns))
    if len(columns) < 2 or not first + 1 < last <= len(columns):
        wanted = f"a label in column {last}" if column else "a word and its label"
        raise ValueError(f"expected {wanted}, but got {len(columns)} column{'s' if len(columns) > 1 else ''}")
    if not columns[first] or not columns[last - 1]:
        raise ValueError("expected a word and its label, but one of them is empty")
    return columns[first], " ".join(columns[first + 1 : last - 1]), columns[last - 1]


def _files(data: Path) -> dict[str, Path]:
    """The file of each part that there is, or of a single one as that to train on."""
    if data.is_file():
        return {"train": data}
    if not data.is_dir():
        raise ValueError(f"{printable(data)} does not exist; expected 'generated', a file of columns, or a folder")
    found = {}
    for part, called in PARTS.items():
        endings = (f"{each}{ending}{more}" for each in called for ending in ENDINGS for more in COMPRESSED)
        files = sorted({file for ending in endings for file in data.glob(f"*{ending}") if file.is_file()})
        if len(files) > 1:
            listed = ", ".join(file.name for file in files[:5])
            raise ValueError(f"{printable(data)} expected one file to end in {called[0]}, but has {listed}")
        if files:
            found[part] = files[0]
    if not found:
        raise ValueError(f"{printable(data)} expected files such as train.txt and test.txt, but has none")
    return found


def _held_out(sentences: list[Labels], seed: int, name: str) -> tuple[list[Labels], list[Labels]]:
    """The sentences to keep, and a tenth to hold out."""
    if len(sentences) < LEAST:
        raise ValueError(f"{name} expected {LEAST} sentences to hold a tenth out of, but has {len(sentences)}")
    kept, held = hold_out(torch.zeros(len(sentences), dtype=torch.long), seed)
    return [sentences[n] for n in kept.tolist()], [sentences[n] for n in held.tolist()]


def _made(count: int, seed: int) -> list[Labels]:
    rows = names(count, seed)
    return [Labels(*map(tuple, (words, [""] * len(words), labels))) for words, labels in rows]


def _splits(parts: dict[str, list[Labels]], source: str, classes: Sequence[str]) -> Splits:
    classes = classes or _classes({label for each in parts["train"] for label in each.labels})
    found = {part: _numbered(parts[part], classes, f"the {part} part of {source}") for part in PARTS}
    train, valid, test = (found[part][0] for part in PARTS)
    away = left_out({f"{part} sentences{TOO_LONG}": found[part][1] for part in PARTS})
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test sentences"
    return Splits(train, valid, test, f"{source}: {counts}{away}", tuple(classes))


def _classes(labels: set[str]) -> list[str]:
    """Those to learn: of each kind of span both labels, that which begins one and that which goes on."""
    if of_spans(list(labels)):
        labels = {"O"} | {f"{prefix}-{label[2:]}" for label in labels - {"O"} for prefix in "BI"}
    return sorted(labels)


def _numbered(sentences: list[Labels], classes: Sequence[str], where: str) -> tuple[Tagged, int]:
    """The sentences in the numbers of the classes, and how many are left out."""
    if strange := sorted({label for each in sentences for label in each.labels} - set(classes)):
        listed = ", ".join(map(repr, classes[:10]))
        raise ValueError(f"{where} has the label {strange[0]!r}, which is not one to learn: these are {listed}")
    kept = [each for each in sentences if len(each.words) <= LONGEST and max(map(len, each.words)) <= LETTERS]
    if not kept:
        raise ValueError(f"{where} holds no sentence of at most {LONGEST:,} words of {LETTERS:,} characters")
    return Tagged(kept, classes), len(sentences) - len(kept)


def _named(form: str) -> int:
    return name(DIGIT.sub("0", form))
