"""Sequences of bits from files: JSON lines of what is shown and what is to be answered."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from regard.app.data.files import contents
from regard.app.data.generators.tasks import answered, ended
from regard.app.data.splits import Splits, count, hold_out
from regard.app.text.reading import lines, printable


class Pair(NamedTuple):
    """A sequence that is shown, and its answer: lists of vectors of 0 and 1."""

    input: list[list[int]]
    output: list[list[int]]


class Sequences:
    """Pairs as a split: what is shown, a step that marks its end, and steps in which the answer is asked for."""

    def __init__(self, pairs: Sequence[Pair], bits: int):
        self.pairs, self.bits = pairs, bits
        self.lengths = torch.tensor([len(each.input) + len(each.output) for each in pairs], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Of the B pairs at `indices`, T steps of the longest: `input` (B, T, W + 2), `target` (B, T, W) and `asked`
        (B, T), as in an `Episode`, and `index` (B,); nothing in them is random."""
        episodes = [self._episode(self.pairs[n]) for n in indices.tolist()]
        longest = max(each.asked.shape[1] for each in episodes)
        both = [[_filled(part[0], longest) for part in each] for each in episodes]
        names = ("input", "target", "asked")
        return {name: torch.stack(parts) for name, parts in zip(names, zip(*both, strict=True), strict=True)} | {
            "index": indices
        }

    def _episode(self, pair: Pair) -> Any:
        shown, target = (torch.tensor(part, dtype=torch.float).view(1, -1, self.bits) for part in pair)
        return answered(ended(shown), target)


def _filled(part: Tensor, length: int) -> Tensor:
    """The steps, and more of zeros."""
    return torch.cat((part, part.new_zeros(length - len(part), *part.shape[1:])))


def sequences(file: Path, bits: int | None = None) -> Splits:
    """The pairs of a file of JSON lines, {"input": [[0, 1, ...], ...], "output": [[...], ...]}: every tenth to choose
    by, every tenth to judge by.

    Raises ValueError, with the number of the line, where it is no such pair, or its vectors are not all as wide as the
    first, or as `bits`; and for fewer than ten pairs.
    """
    pairs: list[Pair] = []
    for number, line in enumerate(lines(contents(file), printable(file)), 1):
        if line:
            pairs.append(pair_of(line, f"{printable(file)}, line {number}", bits))
            bits = bits or len(pairs[0].output[0])
    if len(pairs) < 10:
        raise ValueError(f"{printable(file)} expected at least 10 sequences, but got {len(pairs)}")
    rest, test = hold_out(torch.zeros(len(pairs), dtype=torch.long))
    kept, valid = hold_out(torch.zeros(len(rest), dtype=torch.long), seed=1)
    train, valid, test = (
        Sequences([pairs[n] for n in each.tolist()], bits or 1) for each in (rest[kept], rest[valid], test)
    )
    about = count(train, valid, test).replace("images", "sequences")
    return Splits(
        train, valid, test, f"{about} of vectors of {bits} bits from {printable(file.name)}", shape=(bits or 1,)
    )


def pair_of(line: str, where: str, bits: int | None = None) -> Pair:
    """The pair that a line of JSON is. Raises ValueError where it is none.

    >>> pair_of('{"input": [[0, 1]], "output": [[1, 0]]}', "a line")
    Pair(input=[[0, 1]], output=[[1, 0]])
    """
    try:
        found = json.loads(line)
        pair = Pair(found["input"], found["output"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{where}: expected {{"input": [[0, 1, ...], ...], "output": [...]}}') from error
    width = bits
    for name, part in pair._asdict().items():
        width = check_vectors(part, f"{where}: {name}", width)
    return pair


def check_vectors(part: Any, where: str, bits: int | None = None) -> int:
    """How wide vectors are. Raises ValueError unless they are some lists of 0 and 1, all of that width."""
    if not isinstance(part, list) or not part or not all(isinstance(each, list) and each for each in part):
        raise ValueError(f"{where} expected some vectors, lists of 0 and 1")
    width = bits or len(part[0])
    if wrong := next((len(each) for each in part if len(each) != width), 0):
        raise ValueError(f"{where} expected vectors of {width} bits, but got one of {wrong}")
    if any(bit not in (0, 1) for each in part for bit in each):
        raise ValueError(f"{where} expected bits of 0 and 1, but got others")
    return width
