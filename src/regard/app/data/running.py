"""Running text: books and files of text, of which each word is to be told from those before it.

Brown's corpus is parted as in Bengio et al. 2003, "A neural probabilistic language model", section 4: the first 800,000
words to learn from, the next 200,000 to choose by, of which the first 50,000 are used, the rest to be judged by; words
that occur three times or less are one. Of other texts the first eight tenths, the next and the last one.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from regard.app.data.files import contents
from regard.app.data.splits import Splits
from regard.app.text.reading import clean, lines, printable
from regard.app.text.tokens import tokens
from regard.app.text.vocabulary import Words, words

ALICE = Path(__file__).with_name("sample") / "alice.txt.gz"
"""Lewis Carroll, Alice's adventures in Wonderland, 1865."""
BROWN = "brown.zip"
LEARNED, CHOSEN_BY = 800_000, 200_000
"""Words of Brown's corpus to learn from, and to choose by."""
ENOUGH = 50_000
"""Words to choose by, at most: all of them are told after each epoch."""
LEAST = 1000
"""Words of a text that can be learned from."""


class Streams:
    """A text as `rows` streams beside each other, as a split that is read in order, `steps` words at a time.

    An example is a piece of one stream, and a batch of `rows` of them is a piece of each; so what is known after a
    batch is known of the same streams in the next.

    >>> streams = Streams(torch.arange(100, 113), rows=2, steps=3)
    >>> len(streams), streams.batch(torch.tensor([2, 3]))
    (4, {'words': tensor([[103, 104, 105],
            [109, 110, 111]]), 'target': tensor([[104, 105, 106],
            [110, 111, 112]]), 'first': tensor([False, False])})
    """

    in_order = True

    def __init__(self, numbers: Int[Tensor, " N"], rows: int, steps: int):
        self.numbers, self.rows, self.steps = numbers, rows, steps
        self.pieces = (len(numbers) - 1) // (rows * steps)

    def __len__(self) -> int:
        return self.rows * self.pieces

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pieces at `indices`: `words` (B, T), the `target` of each (B, T), the word after it, and whether a piece
        is the `first` of its stream, (B,)."""
        row, piece = indices % self.rows, indices // self.rows
        at = ((row * self.pieces + piece) * self.steps).unsqueeze(1) + torch.arange(self.steps)
        return {"words": self.numbers[at], "target": self.numbers[at + 1], "first": piece == 0}


class Passages:
    """A text in pieces of `steps` words, each with the `before` words before it, as a split.

    >>> passages = Passages(torch.arange(100, 106), steps=3, before=2)
    >>> passages.batch(torch.arange(2))
    {'words': tensor([[  0,   0, 100, 101, 102],
            [101, 102, 103, 104, 105]]), 'target': tensor([[  0,   0, 101, 102, 103],
            [  0,   0, 104, 105,   0]]), 'first': tensor([True, True])}
    """

    def __init__(self, numbers: Int[Tensor, " N"], steps: int, before: int, vocabulary: Words | None = None):
        self.numbers, self.steps, self.before, self.vocabulary = numbers, steps, before, vocabulary
        self.padded = torch.nn.functional.pad(numbers, (before, steps))

    def __len__(self) -> int:
        return max(0, -(-(len(self.numbers) - 1) // self.steps))

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pieces at `indices`: `words` (B, before + T), and the `target` (B, before + T), the word after each; zero
        where none is asked for. Words before the text and after it are zero. All are the `first` of what is read."""
        at = (indices * self.steps).unsqueeze(1) + torch.arange(self.before + self.steps)
        target = self.padded[at + 1].index_fill(1, torch.arange(self.before), 0)
        return {"words": self.padded[at], "target": target, "first": torch.ones(len(indices), dtype=torch.bool)}


def running(path: str | Path, rows: int, steps: int, before: int, vocabulary: Words | None = None) -> Splits:
    """A text to learn from in `rows` streams, `steps` words at a time, and to choose and be judged by in passages of
    `before` words, or `steps` if that is more, with as many as `before` in front: "embedded", Alice in Wonderland; a
    folder or a file `brown.zip`; or any file of text. Words are those that occur more than three times in Brown's
    corpus, or twice or more in what is learned from of other texts, unless they are given.

    Raises ValueError where the file cannot be read, or holds too few words.
    """
    path = ALICE if str(path) == "embedded" else Path(path)
    brown = path / BROWN if path.is_dir() else path
    if brown.name == BROWN:
        found, known = _brown(brown), 4
        ends = LEARNED, LEARNED + CHOSEN_BY
    else:
        found, known = _text(path), 2
        ends = len(found) * 8 // 10, len(found) * 9 // 10
    if len(found) < max(LEAST, rows * steps * 5 // 4 + 2):
        least = max(LEAST, rows * steps * 5 // 4 + 2)
        raise ValueError(f"{printable(path)} expected {least:,} words or more, but has {len(found):,}")
    vocabulary = vocabulary or words([" ".join(found if known == 4 else found[: ends[0]])], known)
    numbers = torch.tensor(vocabulary.encode([" ".join(found)])[0])
    train, valid, test = numbers[: ends[0]], numbers[ends[0] : ends[1]][:ENOUGH], numbers[ends[1] :]
    name = "Alice in Wonderland" if path == ALICE else printable(path)
    about = (
        f"{name}: {len(train):,} words to learn from, {len(test):,} to be judged by, {len(vocabulary):,} of them differ"
    )
    to_choose, to_judge = (Passages(part, max(steps, before), before, vocabulary) for part in (valid, test))
    return Splits(Streams(train, rows, steps), to_choose, to_judge, about)


def _brown(file: Path) -> list[str]:
    """The words of Brown's corpus, in the order of its files."""
    try:
        with zipfile.ZipFile(io.BytesIO(contents(file))) as archive:
            names = sorted(name for name in archive.namelist() if _is_text(name.rpartition("/")[2]))
            parts = [lines(archive.read(name), name) for name in names]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{printable(file)} is no zip archive: {error}") from error
    return [token.rpartition("/")[0] for part in parts for line in part for token in line.split()]


def _is_text(name: str) -> bool:
    """Whether a file of the archive is one of the texts, such as ca01."""
    return len(name) == 4 and name[0] == "c" and name[1].isalpha() and name[2:].isdigit()


def _text(file: Path) -> list[str]:
    """The words of a file of text, in small letters."""
    return [token for line in lines(contents(file), printable(file)) for token in tokens(clean(line))]


def beginning(text: str, vocabulary: Words) -> Sequence[str]:
    """The words of the beginning of a text, in small letters unless the vocabulary has capital ones. Raises ValueError
    where it has none."""
    cased = any(word != word.lower() for word in vocabulary.words)
    found = clean(text).split() if cased else tokens(clean(text))
    if not found:
        raise ValueError(f"expected a text with a word in it, but got {text!r}")
    return found
