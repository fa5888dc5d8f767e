"""Word vectors: read from the files in which they are passed on, and the part of a network that they become.

GloVe (Pennington et al. 2014) comes as text, a word and its numbers a line; word2vec (Mikolov et al. 2013) as the same
below a line with two counts, or binary; and NumPy's .npz holds both as arrays, `words` and `vectors`.
"""

import gzip
import zipfile
import zlib
from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from regard.app.text.reading import printable, raw_lines
from regard.app.text.vocabulary import SPECIAL, UNKNOWN, Words, words

Pair = tuple[str, Any]


class Vectors(NamedTuple):
    """Words, the commonest first, and a vector of each."""

    words: list[str]
    vectors: Float[Tensor, "N D"]


def read_vectors(file: str | Path, most: int = 100_000) -> Vectors:
    """The first `most` words of a file and their vectors: .npz, word2vec's binary form, .bin, or text, whatever it is
    called; the last two may be gzipped, .gz.

    No more of a file is read than that. Raises ValueError where it cannot be read, is damaged, holds nothing, is not in
    UTF-8, or has vectors that differ in width or are not finite; with the number of the line, of text.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     print("the 0.5 -1", "of 2 0.25", sep="\\n", file=file, flush=True)
    ...     read_vectors(file.name)
    Vectors(words=['the', 'of'], vectors=tensor([[ 0.5000, -1.0000],
            [ 2.0000,  0.2500]]))
    """
    file, name = Path(file), printable(file)
    try:
        if file.suffix == ".npz":
            found = _arrays(file, most)
        else:
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
                read = _binary if file.name.removesuffix(".gz").endswith(".bin") else _text
                with closing(read(stream, name)) as pairs:
                    found = _joined(islice(pairs, most))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not len(found.words):
        raise ValueError(f"{name} holds no word vectors")
    if wrong := (~found.vectors.isfinite().all(-1)).nonzero().flatten().tolist():
        raise ValueError(f"{name} expected finite numbers, but the vector of {found.words[wrong[0]]!r} has others")
    return found


def _arrays(file: Path, most: int) -> Vectors:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names, vectors = (arrays[name][:most] for name in ("words", "vectors"))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{printable(file)} expected an archive of two arrays, words of text and vectors") from error
    if names.ndim != 1 or vectors.ndim != 2 or len(names) != len(vectors) or vectors.dtype.kind != "f":
        shapes = f"words {names.shape} and vectors {vectors.shape} of {vectors.dtype}"
        raise ValueError(f"{printable(file)} expected as many words as rows of numbers, but got {shapes}")
    return Vectors([str(word) for word in names], torch.from_numpy(vectors.astype(np.float32)))


def _text(stream: Any, name: str) -> Generator[Pair]:
    """Each word with its numbers; one that has spaces in it, too."""
    with closing(raw_lines(stream, name)) as lines:
        first = next(lines, "")
        counts = first.split()
        header = len(counts) == 2 and all(count.isdecimal() for count in counts)
        width = int(counts[1]) if header else len(first.rstrip().split(" ")) - 1
        for number, line in enumerate(lines if header else chain([first], lines), 1 + header):
            word, *values = line.rstrip().rsplit(" ", width)
            try:
                yield word, _numbers(values, width)
            except ValueError:
                wanted = f"expected a word and {width} numbers"
                raise ValueError(f"{name}, line {number}: {wanted}, but got {line[:40]!r}") from None


def _numbers(values: list[str], width: int) -> Any:
    if len(values) != width or width < 1:
        raise ValueError
    return np.array(values, dtype=np.float32)


def _binary(stream: Any, name: str) -> Generator[Pair]:
    """Each word, which a space ends, with its numbers."""
    counts = stream.readline(100).split()
    if len(counts) != 2 or not all(count.isdigit() for count in counts):
        raise ValueError(f"{name} expected the number of words and of numbers in its first line, as word2vec writes it")
    count, width = map(int, counts)
    for n in range(count):
        word = bytearray()
        while (letter := stream.read(1)) not in (b" ", b"") and len(word) < 10_000:
            word += letter
        values = stream.read(4 * width)
        if letter != b" " or len(values) < 4 * width:
            raise ValueError(f"{name} expected {count:,} words with {width} numbers each, but ends after {n:,}")
        yield word.decode(errors="replace").lstrip("\n"), np.frombuffer(values, "<f4")


def _joined(pairs: Iterable[Pair]) -> Vectors:
    found = list(pairs)
    rows = np.stack([row for _, row in found]) if found else np.zeros((0, 0), np.float32)
    return Vectors([word for word, _ in found], torch.from_numpy(rows))


class Lexicon(NamedTuple):
    """The words that a network knows: those of the texts it learns from, and more that have a vector."""

    vocabulary: Words
    seen: int
    """How many of its numbers, from 0 on, are of the texts."""
    vectors: Float[Tensor, "N D"]
    """Of all its numbers; zero where none is known. Without vectors from a file, of no width."""


def lexicon(texts: Iterable[str], given: Vectors | None = None, least: int = 1) -> Lexicon:
    """The words that texts, whose words spaces part, have `least` times or more, and the given vectors, scaled to a
    standard deviation of one. A word is looked up in small letters, and has the vector of its commonest spelling.

    >>> found = lexicon(["a red car"], Vectors(["Red", "blue"], torch.tensor([[1.0], [3.0]])))
    >>> found.vocabulary.words, found.seen
    (['a', 'car', 'red', 'blue'], 7)
    """
    known = words(texts, least).words
    if given is None:
        return Lexicon(Words(known), len(SPECIAL) + len(known), torch.zeros(len(SPECIAL) + len(known), 0))
    places: dict[str, int] = {}
    for n, word in enumerate(given.words):
        places.setdefault(word.lower(), n)
    listed = list(dict.fromkeys([*known, *places]))
    rows = torch.tensor([places.get(word, -1) for word in listed], dtype=torch.long)
    scale = given.vectors.std() if given.vectors.numel() > 1 else 1.0
    vectors = torch.cat((given.vectors / scale, torch.zeros(1, given.vectors.shape[1])))[rows]
    padding = torch.zeros(len(SPECIAL), vectors.shape[1])
    return Lexicon(Words(listed), len(SPECIAL) + len(known), torch.cat((padding, vectors)))


class WordVectors(nn.Module):
    """The vectors of words: those given, as they are; learned ones, which begin as the given; or both side by side
    (Kim 2014, "Convolutional Neural Networks for Sentence Classification", section 3: static, non-static,
    multichannel). A word that was not learned from has the given one in the place of a learned one.

    Without given vectors they are learned, of the given `size`.
    """

    given: Tensor

    def __init__(self, lexicon: Lexicon, learn: Literal["no", "yes", "beside"], size: int):
        super().__init__()
        self.register_buffer("given", lexicon.vectors)
        self.seen, width = lexicon.seen, lexicon.vectors.shape[1]
        start = lexicon.vectors[: self.seen].clone() if width else 0.1 * torch.randn(self.seen, size)
        self.learned = nn.Embedding.from_pretrained(start, freeze=False) if learn != "no" or not width else None
        self.beside = learn == "beside" and width > 0
        self.size = (width or size) * (1 + self.beside)

    def forward(self, words: Int[Tensor, "*B K"]) -> Float[Tensor, "*B K D"]:
        given = embedding(words, self.given)
        if self.learned is None:
            return given
        known = words < self.seen
        learned = self.learned(words.where(known, UNKNOWN))
        if given.shape[-1]:
            learned = learned.where(known.unsqueeze(-1), given)
        return torch.cat((given, learned), -1) if self.beside else learned
