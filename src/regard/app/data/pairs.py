"""Sentences and their translations: from two files for each part, or dates that are generated.

Line n of `train.LANGUAGE` in one language is the translation of line n in the other, and so for `val` and `test`.
Multi30k (Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions") lies in such files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.files import left_out, sentences
from regard.app.data.generators.dates import dates
from regard.app.data.splits import Splits
from regard.app.text.vocabulary import END, Characters, Vocabulary, subwords

PARTS = {"train": "training", "val": "validation", "test": "test"}
COUNTS = (4000, 400, 400)  # generated pairs of each part
LONGEST = 2000  # characters of a sentence, some 350 words; one such sentence makes a whole batch slow
FOLDERS = ("", "tok", "raw")  # where a part may lie; the first that has it counts
ENDINGS = ("", ".gz")

GENERATED = "dates in words and in figures, made by regard"

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
    part; dates are spelled by their characters. Pairs with an empty side, or a sentence of more than 2,000 characters,
    are left out, and `describe` says how many.

    Raises ValueError where the folder, a language or a file is missing, a file is damaged, empty or not in UTF-8, two
    files differ in length, no pair is left, or the extra `text` is not installed.

    >>> splits = translations()
    >>> splits.describe
    'dates in words and in figures, made by regard: 4,000 training, 400 validation and 400 test pairs'
    """
    if data == "generated":
        parts = [dates(count, seed) for seed, count in enumerate(COUNTS)]
        spelling: Vocabulary = Characters(sorted({letter for texts in parts[0] for text in texts for letter in text}))
        return _splits(parts, spelling, GENERATED)
    found = [_read(Path(data), part, source, target) for part in PARTS]
    spelling = subwords((text for texts in (found[0].sources, found[0].targets) for text in texts), count)
    what = f"the files of {found[0].folder}, {source} to {target}"
    remarks = left_out({what: count for part in found for what, count in part.left_out.items()})
    return _splits([part[:2] for part in found], spelling, what, remarks, found[0].tokenised)


def _splits(
    parts: Sequence[Texts], vocabulary: Vocabulary, what: str, remarks: str = "", tokenised: bool = False
) -> Splits:
    train, valid, test = (Pairs(sources, targets, vocabulary, tokenised) for sources, targets in parts)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test pairs"
    return Splits(train, valid, test, f"{what}: {counts}{remarks}")


def pairs_to_test(data: str | Path, source: str, target: str, vocabulary: Vocabulary) -> Splits:
    """The test part of `translations`, in the numbers of a vocabulary that was learned before; the others are empty.

    The folder need not have the other parts. Raises ValueError as `translations` does.

    >>> pairs_to_test("generated", "de", "en", Characters("0123456789-")).describe
    'dates in words and in figures, made by regard: 400 test pairs'
    """
    if data == "generated":
        found = Part(*dates(COUNTS[2], seed=2), Path(), False, {})
        what = GENERATED
    else:
        found = _read(Path(data), "test", source, target)
        what = f"the files of {found.folder}, {source} to {target}"
    none, test = (Pairs(*texts, vocabulary, found.tokenised) for texts in (([], []), found[:2]))
    return Splits(none, none, test, f"{what}: {len(test):,} test pairs{left_out(found.left_out)}")


class Part(NamedTuple):
    """What two files of a part hold, where they lie, and how much is left out for which reason."""

    sources: list[str]
    targets: list[str]
    folder: Path
    tokenised: bool
    left_out: dict[str, int]


def _read(folder: Path, part: str, source: str, target: str) -> Part:
    """The pairs of a part that have two sides, neither too long."""
    files = [find(folder, part, language) for language in (source, target)]
    pairs = list(zip(*_aligned(*files), strict=True))
    full = [pair for pair in pairs if all(pair)]
    kept = [pair for pair in full if max(map(len, pair)) <= LONGEST]
    if not kept:
        raise ValueError(f"{files[0]} and {files[1].name} hold no pair of sentences of at most {LONGEST:,} characters")
    reasons = {"a side is empty": len(pairs) - len(full), f"over {LONGEST:,} characters": len(full) - len(kept)}
    counts = {f"{PARTS[part]} pairs ({reason})": count for reason, count in reasons.items()}
    sources, targets = map(list, zip(*kept, strict=True))
    return Part(sources, targets, files[0].parent, ".tok." in files[0].name, counts)


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
    """The languages that a folder has sentences in."""
    files = (file for place in FOLDERS for part in PARTS for file in (folder / place).glob(f"{part}*.*"))
    names = {file.name.removesuffix(".gz") for file in files}
    return sorted({name.rpartition(".")[2] for name in names})


def _aligned(source: Path, target: Path) -> Texts:
    """The sentences of two files. Raises ValueError where one has more."""
    one, other = sentences(source), sentences(target)
    if len(one) != len(other):
        raise ValueError(
            f"{source.name} and {target.name} expected as many lines, but have {len(one):,} and {len(other):,}: "
            f"which line translates which in {source.parent} is not known"
        )
    return one, other
