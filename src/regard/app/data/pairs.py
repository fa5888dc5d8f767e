"""Sentences and their translations: from two files for each part, or dates that are generated.

Line n of `train.LANGUAGE` in one language is the translation of line n in the other, and so for `val` and `test`.
Multi30k (Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions") lies in such files.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.generators.dates import dates
from regard.app.data.splits import Splits
from regard.app.text.vocabulary import END, Characters, Vocabulary, subwords

PARTS = ("train", "val", "test")
COUNTS = (4000, 400, 400)  # generated pairs of each part
FOLDERS = ("", "tok", "raw")  # where a part may lie; the first that has it counts
ENDINGS = ("", ".gz")

Texts = tuple[list[str], list[str]]


class Pairs:
    """Sentences and their translations as a split: N pairs, in the numbers of a vocabulary.

    `tokenised` says that spaces stand between all words and marks already, as they do in files named `*.tok.*`.
    """

    def __init__(self, sources: list[str], targets: list[str], vocabulary: Vocabulary, tokenised: bool = False):
        self.sources, self.targets = sources, targets
        self.vocabulary, self.tokenised = vocabulary, tokenised
        self.source, self.target = (_numbered(texts, vocabulary) for texts in (sources, targets))
        self.lengths = torch.tensor(
            [len(one) + len(other) for one, other in zip(self.source, self.target, strict=True)]
        )

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pairs at `indices`; nothing in them is random.

        Of sentences of at most K and T subwords, END included:

            source (B, K), target (B, T)    the number of each subword, END last; 0 after it
            text (B, C)                     the bytes of the translation as it is written; 0 after them
        """
        chosen = indices.tolist()
        texts = [torch.frombuffer(bytearray(self.targets[n].encode() or b"\0"), dtype=torch.uint8) for n in chosen]
        return {
            "source": pad_sequence([self.source[n] for n in chosen], batch_first=True),
            "target": pad_sequence([self.target[n] for n in chosen], batch_first=True),
            "text": pad_sequence(texts, batch_first=True),
        }

    def spelled_by(self, vocabulary: Vocabulary) -> "Pairs":
        """The same sentences in the numbers of another vocabulary."""
        return Pairs(self.sources, self.targets, vocabulary, self.tokenised)


def _numbered(texts: Sequence[str], vocabulary: Vocabulary) -> list[Int[Tensor, " K"]]:
    return [torch.tensor([*numbers, END]) for numbers in vocabulary.encode(texts)]


def translations(data: str | Path = "generated", source: str = "de", target: str = "en", count: int = 4000) -> Splits:
    """Sentences with their translations: "generated" dates, or those of a folder.

    The folder, or its folder tok or else raw, holds two files for each part, `train*.LANGUAGE`, `val*.LANGUAGE` and
    `test*.LANGUAGE`, gzipped or not. The `count` subwords, the same for both languages, are learned on the training
    part; dates are spelled by their characters.

    Raises ValueError where the folder, a language or a file is missing, a file is damaged, empty or not in UTF-8, two
    files differ in length, or the extra `text` is not installed.

    >>> splits = translations()
    >>> splits.describe
    'dates in words and in figures, made by regard: 4,000 training, 400 validation and 400 test pairs'
    """
    if data == "generated":
        parts = [dates(count, seed) for seed, count in enumerate(COUNTS)]
        spelling: Vocabulary = Characters(sorted({letter for texts in parts[0] for text in texts for letter in text}))
        return _splits(parts, spelling, "dates in words and in figures, made by regard")
    files = [[find(Path(data), part, language) for language in (source, target)] for part in PARTS]
    parts = [_aligned(*both) for both in files]
    spelling = subwords((text for texts in parts[0] for text in texts), count)
    place = f"the files of {files[0][0].parent}, {source} to {target}"
    return _splits(parts, spelling, place, tokenised=".tok." in files[0][0].name)


def _splits(parts: Sequence[Texts], vocabulary: Vocabulary, what: str, tokenised: bool = False) -> Splits:
    train, valid, test = (Pairs(sources, targets, vocabulary, tokenised) for sources, targets in parts)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test pairs"
    return Splits(train, valid, test, f"{what}: {counts}")


def find(folder: Path, part: str, language: str) -> Path:
    """The one file of a part, train, val or test, in a language. Raises ValueError if there is none, or several."""
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} does not exist; expected 'generated' or a folder of sentence pairs")
    for place in (folder / each for each in FOLDERS):
        files = [file for ending in ENDINGS for file in sorted(place.glob(f"{part}*.{language}{ending}"))]
        if len(files) == 1:
            return files[0]
        if files:
            raise ValueError(f"{place} expected one file {part}*.{language} or .gz, but has {len(files)}")
    found = languages(folder)
    if found and language not in found:
        raise ValueError(f"the language {language!r} is not in {folder}: there are {', '.join(found)}")
    raise ValueError(f"{folder} has no file {part}*.{language} or {part}*.{language}.gz, nor have its tok and raw")


def languages(folder: Path) -> list[str]:
    """The languages that a folder has training sentences of."""
    names = {file.name.removesuffix(".gz") for place in FOLDERS for file in (folder / place).glob("train*.*")}
    return sorted({name.rpartition(".")[2] for name in names})


def _aligned(source: Path, target: Path) -> Texts:
    """The sentences of two files. Raises ValueError where one has more."""
    one, other = read(source), read(target)
    if len(one) != len(other):
        raise ValueError(
            f"{source.name} and {target.name} expected as many lines, but have {len(one):,} and {len(other):,}: "
            f"which line translates which in {source.parent} is not known"
        )
    return one, other


def read(file: Path) -> list[str]:
    """The lines of a file. Raises ValueError where it is damaged, not in UTF-8, or holds no sentence.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "train.de").write_text("ein Haus\\nein Baum\\n")
    ...     read(Path(folder) / "train.de")
    ['ein Haus', 'ein Baum']
    """
    data = file.read_bytes()
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{file} is not a whole gzip file: {error}") from error
    found = lines(data, str(file))
    if not any(found):
        raise ValueError(f"{file} holds no sentence")
    return found


def lines(data: bytes, name: str) -> list[str]:
    """The lines of bytes, without spaces at their ends; `name` is what an error calls them.

    Raises ValueError where they are not in UTF-8.

    >>> lines(b"ein Haus\\n\\nGr\\xfc\\xdfe", "letter.de")
    Traceback (most recent call last):
    ValueError: letter.de, line 3: expected text in UTF-8, but got the byte 0xfc
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise ValueError(f"{name}, line {line}: expected text in UTF-8, but got the byte 0x{byte:02x}") from error
    return [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []
