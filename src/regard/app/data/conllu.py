"""Dependency trees: sentences from files in CoNLL-U, the format of Universal Dependencies.

Nivre et al. 2020, "Universal Dependencies v2"; https://universaldependencies.org/format.html. The words are the
syntactic ones: the ranges of words that are written as one, such as 3-4, and empty nodes, such as 5.1, are skipped.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from regard.app.data.files import contents, left_out
from regard.app.data.generators.grammar import grammar
from regard.app.data.splits import Splits
from regard.app.data.trees import RELATIONS, TAGS, Sentence, Trees
from regard.app.text.reading import clean, printable, raw_lines

PARTS = {"train": "training", "dev": "validation", "test": "test"}
COUNTS = {"train": 3000, "dev": 300, "test": 300}  # generated sentences of each part
COLUMNS = 10
LONGEST, LETTERS = 250, 1000  # words of a sentence, and characters of a word

Found = TypeVar("Found")


class Word(NamedTuple):
    """What is read of one line: the word, its tag, its head (0 is the root), the relation to it."""

    form: str
    tag: str
    head: int
    relation: str


def treebank(data: str | Path = "generated") -> Splits:
    """Sentences with their dependency trees: "generated" ones of a small grammar, or those of a folder of CoNLL-U.

    The folder holds one file each that ends in train.conllu, dev.conllu and test.conllu, gzipped or not. Sentences of
    more than 250 words, or with a word of more than 1,000 characters, are left out, and `describe` says how many.

    Raises ValueError where the folder or a file is missing, a file is damaged or empty, or a sentence has no tree with
    a single root.

    >>> splits = treebank()
    >>> splits.describe
    'sentences of a small grammar inside regard: 3,000 training, 300 validation and 300 test sentences'
    """
    (train, valid, test), source, remark = _parts(data, PARTS)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test sentences"
    return Splits(train, valid, test, f"{source}: {counts}{remark}", RELATIONS)


def trees_to_test(data: str | Path) -> Splits:
    """The test part of `treebank`; the others are empty. A folder need not have them.

    >>> trees_to_test("generated").describe
    'sentences of a small grammar inside regard: 300 test sentences'
    """
    (test,), source, remark = _parts(data, ("test",))
    return Splits(Trees([]), Trees([]), test, f"{source}: {len(test):,} test sentences{remark}", RELATIONS)


def _parts(data: str | Path, parts: Iterable[str]) -> tuple[list[Trees], str, str]:
    """The sentences of some parts, where they come from, and what is left out of them."""
    if data == "generated":
        found = [Trees(grammar(COUNTS[part], seed=list(PARTS).index(part))) for part in parts]
        return found, "sentences of a small grammar inside regard", ""
    kept, counts = {}, {}
    for part in parts:
        file = find(Path(data), part)
        sentences = read(file)
        kept[part] = [each for each in sentences if len(each.words) <= LONGEST and max(map(len, each.words)) <= LETTERS]
        if not kept[part]:
            raise ValueError(
                f"{printable(file)} holds no sentence of at most {LONGEST} words of {LETTERS:,} characters"
            )
        reason = f"over {LONGEST} words, or a word of over {LETTERS:,} characters"
        counts[f"{PARTS[part]} sentences ({reason})"] = len(sentences) - len(kept[part])
    return (
        [Trees(sentences) for sentences in kept.values()],
        f"the CoNLL-U files of {printable(data)}",
        left_out(counts),
    )


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
    sentences = list(_sentences(raw_lines(io.BytesIO(contents(file)), printable(file)), printable(file)))
    if not sentences:
        raise ValueError(f"{printable(file)} holds no sentence")
    return sentences


def _sentences(lines: Iterable[str], name: str) -> Iterator[Sentence]:
    for start, block in _blocks(lines):
        if words := _words(block, start, name, _word):
            yield _sentence(words, f"{name}, line {start + len(block)}")


def _words(
    block: Sequence[str], start: int, name: str, read: Callable[[Sequence[str], int], Sequence[Found]]
) -> list[Found]:
    """What `read` finds in the columns of the lines that are no comments, given how many words there are with it."""
    words: list[Found] = []
    for number, line in enumerate(block, start):
        try:
            words += () if line.startswith("#") else read(line.split("\t"), len(words) + 1)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
    return words


def _blocks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines that stand together, and the number of the first of them."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number + 1 - len(block), block


class Block(NamedTuple):
    """A sentence as it stands in a file: its lines, comments and ranges of words included, and its words."""

    lines: tuple[str, ...]
    words: tuple[str, ...]


def stream_sentences(lines: Iterable[str], name: str = "standard input") -> Iterator[Block | ValueError]:
    """The sentences of lines in CoNLL-U that are to be parsed, each as soon as the empty line after it is read.

    `lines` are `raw_lines`, as tabs count. Of a word its number and form are read; what stands in the other columns,
    and whether they are there, is the same. `annotated` writes a sentence with its tree. In the place of a sentence
    with a word out of order or without a form stands a ValueError with the number of the line.

    >>> [block] = stream_sentences(["# text = Go on", "1\\tGo", "2\\ton", ""])
    >>> block.words
    ('Go', 'on')
    """
    for start, block in _blocks(lines):
        try:
            if words := _words(block, start, name, _form):
                yield Block(tuple(block), tuple(words))
        except ValueError as error:
            yield error


def only_sentence(text: str) -> Block:
    """The one sentence of a text in CoNLL-U. Raises ValueError where it is none, or there are several.

    >>> only_sentence("1\\tGo\\n2\\ton").words
    ('Go', 'on')
    """
    found = list(stream_sentences(raw_lines(io.BytesIO(text.encode()), "the text"), "the text"))
    if len(found) != 1:
        raise ValueError(f"expected one sentence in CoNLL-U, but got {len(found)}")
    if isinstance(found[0], ValueError):
        raise found[0]
    return found[0]


def annotated(block: Block, heads: Sequence[int], relations: Sequence[str]) -> Iterator[str]:
    """The lines of a sentence in CoNLL-U with the head of each word (0 is the root) and the relation to it.

    >>> list(annotated(Block(("1\\tGo",), ("Go",)), [0], ["root"]))
    ['1\\tGo\\t_\\t_\\t_\\t_\\t0\\troot\\t_\\t_']
    """
    trees = iter(zip(heads, relations, strict=True))
    for line in block.lines:
        columns = line.split("\t")
        if not line.startswith("#") and not _between(columns[0]):
            columns = (columns + COLUMNS * ["_"])[:COLUMNS]
            head, relation = next(trees)
            columns[6:8] = str(head), relation
        yield "\t".join(columns)


def _between(name: str) -> bool:
    """Whether a line is no word of the tree: a range such as 3-4, or an empty node such as 5.1."""
    return "-" in name or "." in name


def _form(columns: Sequence[str], place: int) -> list[str]:
    """The form of a line, none for a range or an empty node; it should be that of the word with the number `place`."""
    name, form = columns[0].strip(), clean(columns[1]) if len(columns) > 1 else ""
    if _between(name):
        return []
    if name != str(place):
        raise ValueError(f"expected word {place}, but got {name!r}")
    if not form:
        raise ValueError(f"expected a form for word {place}, but got none")
    return [form]


def _word(columns: Sequence[str], place: int) -> list[Word]:
    """The word of a line, none for a range or an empty node; it should be the one with the number `place`."""
    if len(columns) != COLUMNS:
        raise ValueError(f"expected {COLUMNS} columns, but got {len(columns)}")
    if not (found := _form(columns, place)):
        return []
    tag, head, relation = (columns[n].strip() for n in (3, 6, 7))
    relation = relation.partition(":")[0]
    if not head.isdecimal():
        raise ValueError(f"expected the number of a word as head, but got {head!r}")
    for kind, value, known in (("tag", tag, TAGS), ("relation", relation, RELATIONS)):
        if value not in known:
            raise ValueError(f"expected a universal {kind}, but got {value!r}")
    return [Word(found[0], tag, int(head), relation)]


def _sentence(words: Sequence[Word], place: str) -> Sentence:
    """The words as a sentence that ends at a place. Raises ValueError unless their heads form a tree with one root."""
    forms, tags, heads, relations = zip(*words, strict=True)
    if max(heads) > len(heads):
        raise ValueError(f"{place}: expected heads among the {len(heads)} words before, but got {max(heads)}")
    if heads.count(0) != 1:
        raise ValueError(f"{place}: expected a sentence with a single root to end here, but it has {heads.count(0)}")
    above = [0, *heads]
    for _ in range(len(heads).bit_length()):
        above = [above[word] for word in above]  # twice as far up
    if any(above):
        raise ValueError(f"{place}: expected a sentence whose heads form a tree to end here, but they form a cycle")
    return Sentence(forms, tags, heads, relations)
