"""Dependency trees: sentences from files in CoNLL-U, the format of Universal Dependencies.

Nivre et al. 2020, "Universal Dependencies v2"; https://universaldependencies.org/format.html. The words are the
syntactic ones: the ranges of words that are written as one, such as 3-4, and empty nodes, such as 5.1, are skipped.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from regard.app.data.generators.grammar import grammar
from regard.app.data.splits import Splits
from regard.app.data.trees import RELATIONS, TAGS, Sentence, Trees

PARTS = ("train", "dev", "test")
COLUMNS = 10


class Word(NamedTuple):
    """What is read of one line: the word, its tag, its head (0 is the root), the relation to it."""

    form: str
    tag: str
    head: int
    relation: str


def treebank(data: str | Path = "generated") -> Splits:
    """Sentences with their dependency trees: "generated" ones of a small grammar, or those of a folder of CoNLL-U.

    The folder holds one file each that ends in train.conllu, dev.conllu and test.conllu, gzipped or not.

    Raises ValueError where the folder or a file is missing, a file is damaged or empty, or a sentence has no tree with
    a single root.

    >>> splits = treebank()
    >>> splits.describe
    'sentences of a small grammar inside regard: 3,000 training, 300 validation and 300 test sentences'
    """
    if data == "generated":
        parts, source = (
            [grammar(count, seed) for seed, count in enumerate((3000, 300, 300))],
            "sentences of a small grammar inside regard",
        )
    else:
        parts, source = [read(find(Path(data), part)) for part in PARTS], f"the CoNLL-U files of {data}"
    train, valid, test = (Trees(sentences) for sentences in parts)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test sentences"
    return Splits(train, valid, test, f"{source}: {counts}", RELATIONS)


def find(folder: Path, part: str) -> Path:
    """The one file of a part, train, dev or test. Raises ValueError if there is none, or more than one."""
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} does not exist; expected 'generated' or a folder of CoNLL-U files")
    files = sorted(file for ending in ("", ".gz") for file in folder.glob(f"*{part}.conllu{ending}"))
    if len(files) != 1:
        raise ValueError(f"{folder} expected one file *{part}.conllu or *{part}.conllu.gz, but has {len(files)}")
    return files[0]


def read(file: Path) -> list[Sentence]:
    """The sentences of a file. Raises ValueError where it is damaged, holds none, or one that has no tree.

    >>> import tempfile
    >>> columns = ["1", "Go", "go", "VERB", "VB", "_", "0", "root", "_", "_"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a.conllu").write_text("\\t".join(columns) + "\\n\\n")
    ...     read(Path(folder) / "a.conllu")
    [Sentence(words=('Go',), tags=('VERB',), heads=(0,), relations=('root',))]
    """
    sentences = list(_sentences(file))
    if not sentences:
        raise ValueError(f"{file} holds no sentence")
    return sentences


def _sentences(file: Path) -> Iterator[Sentence]:
    words: list[Word] = []
    for number, line in enumerate([*_text(file).split("\n"), ""], 1):
        try:
            if line and not line.startswith("#"):
                words += _word(line.split("\t"), len(words) + 1)
            elif not line and words:
                yield _sentence(words)
                words = []
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None


def _text(file: Path) -> str:
    """What is written in a file."""
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode().replace("\r\n", "\n")
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{file} is not a whole gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error


def _word(columns: Sequence[str], place: int) -> list[Word]:
    """The word of a line, none for a range or an empty node; it should be the one with the number `place`."""
    if len(columns) != COLUMNS:
        raise ValueError(f"expected {COLUMNS} columns, but got {len(columns)}")
    name, form, _, tag, _, _, head, relation, *_ = columns
    if "-" in name or "." in name:
        return []
    if not form:
        raise ValueError(f"expected a form for word {place}, but got none")
    relation = relation.partition(":")[0]
    if name != str(place):
        raise ValueError(f"expected word {place}, but got {name!r}")
    if not head.isdecimal():
        raise ValueError(f"expected the number of a word as head, but got {head!r}")
    for kind, value, known in (("tag", tag, TAGS), ("relation", relation, RELATIONS)):
        if value not in known:
            raise ValueError(f"expected a universal {kind}, but got {value!r}")
    return [Word(form, tag, int(head), relation)]


def _sentence(words: Sequence[Word]) -> Sentence:
    """The words as a sentence. Raises ValueError unless their heads form a tree with a single root."""
    forms, tags, heads, relations = zip(*words, strict=True)
    if max(heads) > len(heads):
        raise ValueError(f"expected heads among the {len(heads)} words before, but got {max(heads)}")
    if heads.count(0) != 1:
        raise ValueError(f"expected a sentence with a single root to end here, but it has {heads.count(0)}")
    reached = set(range(len(heads) + 1))
    above = [0, *heads]
    for _ in heads:
        reached = {above[word] for word in reached}
    if reached != {0}:
        raise ValueError("expected a sentence whose heads form a tree to end here, but they form a cycle")
    return Sentence(forms, tags, heads, relations)
