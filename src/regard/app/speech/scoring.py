"""How a transcript errs: the fewest insertions, deletions and substitutions that make of it what was said."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.recipes.base import Measure

COLUMNS = (
    Measure("test_symbol_error", 100, "wrong symbols", "%", "Insertions, deletions and substitutions by those said."),
    Measure("test_insertions", 100, "insertions", "%", "Symbols too many, by those said."),
    Measure("test_deletions", 100, "deletions", "%", "Symbols missed."),
    Measure("test_substitutions", 100, "substitutions", "%", "Symbols taken for others."),
)
"""Of the table of a comparison."""


class Edits(NamedTuple):
    """What a transcript has too much, lacks, and has in the place of something else."""

    insertions: int
    deletions: int
    substitutions: int


def edits(heard: Sequence[Any], said: Sequence[Any]) -> Edits:
    """The errors of what was heard against what was said: as few as can be (Levenshtein 1966), and among these as many
    substitutions as can be. Time and memory O(N M).

    >>> edits("1223", "123"), edits("13", "123"), edits("143", "123")
    (Edits(insertions=1, deletions=0, substitutions=0), Edits(insertions=0, deletions=1, substitutions=0), \
Edits(insertions=0, deletions=0, substitutions=1))
    """
    best = [Edits(0, n, 0) for n in range(len(said) + 1)]
    for count, one in enumerate(heard, 1):
        before, best = best, [Edits(count, 0, 0)]
        for n, other in enumerate(said):
            wrong = before[n]._replace(substitutions=before[n].substitutions + (one != other))
            more = before[n + 1]._replace(insertions=before[n + 1].insertions + 1)
            less = best[n]._replace(deletions=best[n].deletions + 1)
            best.append(min(wrong, more, less, key=lambda each: (sum(each), -each.substitutions)))
    return best[-1]


def errors(heard: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
    """Of each of B transcripts, (B,): its insertions, deletions and substitutions against the target (B, L), 0 for
    none, the `symbols` that are said, and whether any is wrong, `error`.

    >>> found = errors([torch.tensor([3]), torch.tensor([5])], torch.tensor([[3, 4], [5, 0]]))
    >>> found["deletions"], found["symbols"], found["error"]
    (tensor([1., 0.]), tensor([2., 1.]), tensor([1., 0.]))
    """
    said = [row[row > 0].tolist() for row in target]
    found = [edits(ours.tolist(), theirs) for ours, theirs in zip(heard, said, strict=True)]
    counts = {name: torch.tensor([float(getattr(each, name)) for each in found]) for name in Edits._fields}
    symbols, error = torch.tensor([float(len(row)) for row in said]), [float(sum(each) > 0) for each in found]
    return counts | {"symbols": symbols, "error": torch.tensor(error)}


def shares(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Insertions, deletions and substitutions as shares of the symbols that are said, their sum `symbol_error`, and the
    means of what else there is, from the sum and the number of each.

    >>> sums = {"insertions": (1.0, 2.0), "deletions": (0.0, 2.0), "substitutions": (2.0, 2.0), "symbols": (10.0, 2.0)}
    >>> shares(sums | {"error": (1.0, 2.0)})
    {'symbol_error': 0.3, 'insertions': 0.1, 'deletions': 0.0, 'substitutions': 0.2, 'error': 0.5}
    """
    wrong = {name: sums[name][0] / max(1, sums["symbols"][0]) for name in Edits._fields}
    means = {name: total / max(1, count) for name, (total, count) in sums.items() if name not in (*wrong, "symbols")}
    return {"symbol_error": sum(sums[name][0] for name in wrong) / max(1, sums["symbols"][0]), **wrong, **means}
