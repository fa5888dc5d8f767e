"""Constituency trees: sentences from bracket files, the format of the Penn Treebank, or of a small grammar."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.files import contents, left_out
from regard.app.data.generators.phrases import phrases
from regard.app.data.splits import Splits, padded
from regard.app.text.brackets import MARKS, Bracketing, read_brackets, steps
from regard.app.text.reading import printable, raw_lines

PARTS = {"train": "training", "dev": "validation", "test": "test"}
COUNTS = {"train": 2000, "dev": 200, "test": 200}  # generated sentences of each part
ENDINGS = (".ptb", ".mrg", ".ptb.gz", ".mrg.gz")
LONGEST = 250
"""Words of a sentence."""
LEAST = {"words": 2, "shapes": 2, "chains": 3}
"""How often words, shapes of words, and brackets around the same words are seen that are known."""
NOTHING = "-"
"""The label of a span that is no constituent, among the chains."""


class Known(NamedTuple):
    """What is known of words and labels, by number: of words, and of what they look like, from 2 on."""

    words: Sequence[str]
    shapes: Sequence[str]
    tags: Sequence[str]
    labels: Sequence[str]
    chains: Sequence[str]
    """Labels of a span that stand for one or several brackets, such as S+VP, the outermost first, and before all that
    of none."""


def learned(trees: Sequence[Bracketing]) -> Known:
    """What there is in trees to learn from."""
    words = Counter(normal(word) for tree in trees for word in tree.words)
    shapes = Counter(shape(word) for tree in trees for word in tree.words)
    chained = Counter(label for tree in trees for _, _, label in chains(tree.spans))
    labels = sorted({label for tree in trees for _, _, label in tree.spans})
    often = sorted({*labels, *(chain for chain, count in chained.items() if count >= LEAST["chains"])})
    return Known(
        sorted(word for word, count in words.items() if count >= LEAST["words"]),
        sorted(word for word, count in shapes.items() if count >= LEAST["shapes"]),
        sorted({tag for tree in trees for tag in tree.tags}),
        labels,
        [NOTHING, *often],
    )


@cache
def normal(word: str) -> str:
    """A word in small letters, in which a number is 0.

    >>> normal("BMP4"), normal("1,024"), normal("The")
    ('bmp0', '0', 'the')
    """
    return re.sub(r"\d+([.,]\d+)*", "0", word.lower())


@cache
def shape(word: str) -> str:
    """What a word looks like: its capitals, figures and hyphens, and its last three characters.

    >>> shape("Skeletogenesis"), shape("BMP4"), shape("well-known")
    ('Xsis', 'XX0mp0', '-own')
    """
    capitals = "XX" if sum(map(str.isupper, word)) > 1 else "X" if word[:1].isupper() else ""
    figures = "0" if any(map(str.isdigit, word)) else ""
    return f"{capitals}{figures}{'-' if '-' in word else ''}{normal(word)[-3:]}"


def chains(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans, of which those around the same words are one.

    >>> chains([(0, 1, "S"), (0, 1, "VP"), (1, 1, "NP")])
    [(0, 1, 'S+VP'), (1, 1, 'NP')]
    """
    found: dict[tuple[int, int], list[str]] = {}
    for first, last, label in spans:
        found.setdefault((first, last), []).append(label)
    return [(*span, "+".join(labels)) for span, labels in found.items()]


class Bracketed:
    """Sentences with their trees as a split, in the numbers of what is known."""

    def __init__(self, trees: Sequence[Bracketing], known: Known):
        self.trees, self.known = trees, known
        self.lengths = torch.tensor([len(tree.words) for tree in trees], dtype=torch.long)
        self.numbers = [{name: n for n, name in enumerate(each)} for each in known]
        self.columns: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.trees)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The sentences at `indices`; nothing in them is random. Of at most K words:

        words (B, K)       the number of each word: 1 where it is not known, 0 after them
        shapes (B, K)      that of what it looks like
        tags (B, K)        the part of speech; -1 where it is not known, and after them
        marks (B, K)       whether it is punctuation
        spans (B, N, 3)    first and last word and label of each constituent, a label that is not known being one
                           more than there are; -1 after them
        chains (B, M, 3)   the same of `Known.chains`, those around the same words being one
        steps (B, T)       what writes the tree, up to END; 0 after it
        text (B, C)        the bytes of the words, spaces between them
        """
        chosen = indices.tolist()
        rows = [self._column(n) for n in chosen]
        spans = [row["spans"].tolist() for row in rows]
        lengths = [len(row["words"]) for row in rows]
        texts = [torch.frombuffer(bytearray(" ".join(self.trees[n].words).encode()), dtype=torch.uint8) for n in chosen]
        return {
            "words": padded([row["words"] for row in rows]),
            "shapes": padded([row["shapes"] for row in rows]),
            "tags": padded([row["tags"] for row in rows], -1),
            "marks": padded([torch.tensor([tag in MARKS for tag in self.trees[n].tags]).long() for n in chosen]),
            "spans": pad_sequence([row["spans"] for row in rows], batch_first=True, padding_value=-1),
            "chains": pad_sequence([row["chains"] for row in rows], batch_first=True, padding_value=-1),
            "steps": padded([torch.tensor(steps(*each)) for each in zip(lengths, spans, strict=True)]),
            "text": pad_sequence(texts, batch_first=True),
        }

    def _column(self, n: int) -> dict[str, Tensor]:
        """The numbers of a sentence, which are kept."""
        if n not in self.columns:
            tree, (words, shapes, tags, labels, chained) = self.trees[n], self.numbers
            self.columns[n] = {
                "words": torch.tensor([2 + words.get(normal(word), -1) for word in tree.words]),
                "shapes": torch.tensor([2 + shapes.get(shape(word), -1) for word in tree.words]),
                "tags": torch.tensor([tags.get(tag, -1) for tag in tree.tags]),
                "spans": _table((*span, labels.get(label, len(labels))) for *span, label in tree.spans),
                "chains": _table((*span, _nearest(label, chained)) for *span, label in chains(tree.spans)),
            }
        return self.columns[n]

    def spelled_by(self, vocabulary: Known) -> "Bracketed":
        """The same trees in other numbers."""
        return Bracketed(self.trees, vocabulary)


def _table(rows: Iterable[tuple[int, ...]]) -> Tensor:
    return torch.tensor(list(rows), dtype=torch.long).view(-1, 3)


def _nearest(chain: str, known: dict[str, int]) -> int:
    """The number of a chain, or of as many of its outer labels as are known together; that of none if that is none."""
    while chain and chain not in known:
        chain = chain.rpartition("+")[0]
    return known[chain] if chain else 0


def bracketed(data: str | Path = "generated", longest: int = LONGEST, known: Known | None = None) -> Splits:
    """Sentences with their constituency trees: "generated" ones of a small grammar, or those of a folder.

    The folder holds bracket files, *train.ptb, *dev.ptb and *test.ptb, or *.mrg, gzipped or not. Longer sentences than
    `longest` are left out, and `describe` says how many. Words and labels are those of the training trees, or what is
    `known`.

    Raises ValueError where the folder or a file is missing, damaged or without a tree, or brackets do not close.

    >>> bracketed().describe
    'sentences of a small grammar inside regard: 2,000 training, 200 validation and 200 test sentences'
    """
    found, source, remark = _parts(data, list(PARTS), longest)
    known = known or learned(found["train"])
    train, valid, test = (Bracketed(found[part], known) for part in PARTS)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test sentences"
    return Splits(train, valid, test, f"{source}: {counts}{remark}", tuple(known.labels))


def brackets_to_test(data: str | Path, longest: int, known: Known) -> Splits:
    """The test part of `bracketed`; the others are empty. A folder need not have them."""
    found, source, remark = _parts(data, ["test"], longest)
    none, test = Bracketed([], known), Bracketed(found["test"], known)
    return Splits(none, none, test, f"{source}: {len(test):,} test sentences{remark}", tuple(known.labels))


def _parts(data: str | Path, parts: Sequence[str], longest: int) -> tuple[dict[str, list[Bracketing]], str, str]:
    if data == "generated":
        made = {part: phrases(COUNTS[part], seed=list(PARTS).index(part)) for part in parts}
        return made, "sentences of a small grammar inside regard", ""
    kept, dropped = {}, {}
    for part in parts:
        file = _find(Path(data), part)
        trees = list(read_brackets(raw_lines(io.BytesIO(contents(file)), printable(file)), printable(file)))
        kept[part] = [tree for tree in trees if len(tree.words) <= longest]
        if not kept[part]:
            raise ValueError(f"{printable(file)} holds no tree of at most {longest} words")
        dropped[f"{PARTS[part]} sentences (over {longest} words)"] = len(trees) - len(kept[part])
    return kept, f"the bracket files of {printable(data)}", left_out(dropped)


def _find(folder: Path, part: str) -> Path:
    """The one file of a part. Raises ValueError if there is none, or more than one."""
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} does not exist; expected 'generated' or a folder of bracket files")
    files = sorted(file for ending in ENDINGS for file in folder.glob(f"*{part}{ending}"))
    if len(files) != 1:
        raise ValueError(f"{folder} expected one file *{part}.ptb or *{part}.mrg, gzipped or not, but has {len(files)}")
    return files[0]
