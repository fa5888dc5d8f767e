"""Is a fast road ever slower than the plain one? Every road that is taken, from one place to a million.

    regard bench roads --out benchmarks/results/roads.json

A cell is a call that takes a fast road, as `rg.road` says, timed in turn with the same call under `rg.plain_road()`:
decoding (one query, no gradient), many queries, and training (forward and backward). Cells in which no road is taken
are left out, for there both are the same code. What loses, below 0.95 of the plain road's speed in the median of the
rounds, is printed at the end: a threshold in a kernel's `refuses` should have kept it from being taken. The limit is a
copy of all that is given.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import harness
import torch
from rich.console import Console
from torch import Tensor, nn

import regard as rg

LOSES = 0.95
"""Of the plain road's speed: what is below is a defect."""
SECONDS = 1.0
"""For the rounds of a cell, of which there are five at least: all cells together take ten minutes."""
PLACES = (1, 4, 16, 64, 256, 1024, 4096, 32_768, 262_144, 1_000_000)
QUERIES = {"decoding": 1, "64 queries": 64, "training": 64}
MOST = 1 << 22
"""Pairs of query and place, times what each costs, beyond which a cell is left out: it would take seconds."""
WIDTH = 32

# fmt: off
TRIPLES: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "scaled_dot, softmax, mean": (lambda: rg.scaled_dot, rg.softmax, rg.mean),
    "cosine, softmax, mean": (lambda: rg.Cosine(4.0), rg.softmax, rg.mean),
    "additive, softmax, mean": (lambda: rg.Additive(WIDTH, WIDTH, WIDTH), rg.softmax, rg.mean),
    "scaled_dot, sparsemax, mean": (lambda: rg.scaled_dot, rg.sparsemax, rg.mean),
    "scaled_dot, entmax 1.5, mean": (lambda: rg.scaled_dot, rg.entmax(1.5), rg.mean),
    "scaled_dot, entmax 1.3, mean": (lambda: rg.scaled_dot, rg.entmax(1.3), rg.mean),
    "scaled_dot, local, mean": (lambda: rg.scaled_dot, rg.local(8), rg.mean),
    "additive, local, mean": (lambda: rg.Additive(WIDTH, WIDTH, WIDTH), rg.local(8), rg.mean),
    "scaled_dot, monotonic, mean": (lambda: rg.scaled_dot, rg.monotonic(), rg.mean),
    "scaled_dot, softmax, sample": (lambda: rg.scaled_dot, rg.softmax, rg.sample),
    "scaled_dot, softmax, mode": (lambda: rg.scaled_dot, rg.softmax, rg.mode),
    "additive, softmax, sample": (lambda: rg.Additive(WIDTH, WIDTH, WIDTH), rg.softmax, rg.sample),
}
LENGTHS = (1, 4, 16, 64, 256)
STRUCTURES: dict[str, tuple[int, int, Callable[[int], Any]]] = {  # how many scores a place has, how long at most
    "segments": (0, 256, lambda width: rg.segments(1.0)),
    "chain of 2": (2, 256, lambda width: rg.chain(torch.zeros(2, 2))),
    "chain of 20": (20, 256, lambda width: rg.chain(torch.zeros(20, 20))),
    "semi_markov of 4, width 8": (4, 256, lambda width: rg.semi_markov(8, torch.zeros(4, 4))),
    "projective tree": (-1, 16, lambda width: rg.tree(projective=True)),
    "tree": (-1, 16, lambda width: rg.tree(projective=False)),
    "ctc": (12, 256, lambda width: rg.ctc(torch.randint(1, 12, (8, max(1, width // 4))))),
}
# fmt: on
QUESTIONS: dict[str, Callable[[Any], Tensor]] = {
    "log Z, training": lambda positions: positions.log_z,
    "mean": lambda positions: positions.mean,
    "mean, training": lambda positions: positions.mean,
    "mode": lambda positions: positions.mode,
    "sample": lambda positions: positions.sample(),
}

Call = Callable[[], Any]
Cell = Callable[[torch.dtype], tuple[Call, list[Tensor]]]
"""A call of some precision and what it is given, the same numbers whatever the precision."""


@dataclass(frozen=True)
class Exact(harness.Row):
    """A cell, and how far what it gives, or its gradients where it trains, is from float64 at most: over the largest
    value, by the fast road and by the plain one. None of what is drawn or chosen."""

    ours_error: float | None
    peer_error: float | None


def measure(rounds: int) -> Iterator[Exact]:
    """One row for each cell in which a road is taken."""
    for case, cell in cells():
        call, given = cell(torch.float32)
        taken = sorted({choice.road for choice in rg.road(call) if choice.road})
        if taken:
            found = row(f"{case}: {', '.join(taken)}", call, given, rounds)
            ours, peer = (None, None) if "sample" in case else errors(call, cell)
            yield Exact(**vars(found), ours_error=ours, peer_error=peer)


def row(case: str, call: Call, given: list[Tensor], rounds: int) -> harness.Row:
    """A cell, beside the plain road."""

    def copy() -> None:
        for each in given:
            each.clone()

    plain, limit = partial(plainly, call), "a copy of what is given"
    start = time.perf_counter()
    plain()
    affordable = int(SECONDS / (time.perf_counter() - start))
    return harness.compare(case, "the plain road", call, plain, copy, limit, 1, max(5, min(rounds, affordable)))


def plainly(call: Call) -> Any:
    """What the call gives by the plain road."""
    with rg.plain_road():
        return call()


def errors(call: Call, cell: Cell) -> tuple[float | None, float | None]:
    """Of the fast road and of the plain one."""
    exact = plainly(cell(torch.float64)[0])
    if not exact[0].is_floating_point():
        return None, None
    return error(call(), exact), error(plainly(call), exact)


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """How far at most, over the largest value of all, if any is not zero."""
    largest = max(float(each.abs().max()) for each in exact) or 1.0
    return max(float((one - other).abs().max()) for one, other in zip(found, exact, strict=True)) / largest


def cells() -> Iterator[tuple[str, Cell]]:
    """Every call."""
    for (name, triple), (use, queries), places in product(TRIPLES.items(), QUERIES.items(), PLACES):
        additive = WIDTH if name.startswith("additive") else 1
        trained = use == "training"
        if queries * places * additive <= MOST // (4 if trained else 1) and not (trained and triple[2] is rg.mode):
            yield f"{name}, {use}, K {places}", partial(attending, triple, queries, places, trained)
    for (name, (width, most, over)), places, (question, ask) in product(STRUCTURES.items(), LENGTHS, QUESTIONS.items()):
        if places <= most:
            asked = partial(asking, width, over, places, ask, "training" in question)
            yield f"{name}, {question}, 8 of {places}", asked


def attending(
    triple: tuple[Callable[[], Any], Any, Any], queries: int, places: int, trained: bool, dtype: torch.dtype
) -> tuple[Call, list[Tensor]]:
    """Attention of one row, as a decoder or as training asks for it."""
    torch.manual_seed(0)
    score, over, read = triple[0](), *triple[1:]
    given = [torch.randn(1, size, WIDTH).to(dtype).requires_grad_(trained) for size in (queries, places, places)]
    learned = list(score.to(dtype).parameters()) if isinstance(score, nn.Module) else []

    def call() -> Tensor:
        out = rg.attend(*given, score=score, over=over, read=read)
        return out.context if out.log_prob is None else torch.cat((out.context, out.log_prob.unsqueeze(-1)), -1)

    return backwards(call, [*given, *learned]) if trained else without_gradient(call), given


def asking(
    width: int, over: Callable[[int], Any], places: int, ask: Callable[[Any], Tensor], trained: bool, dtype: torch.dtype
) -> tuple[Call, list[Tensor]]:
    """A question to a structure over eight sequences."""
    torch.manual_seed(0)
    shape = (8, places) if width == 0 else (8, places, places if width < 0 else width)
    structure, scores = over(places), torch.randn(shape).to(dtype).requires_grad_(trained)
    given = scores.unsqueeze(-2) if width == 0 else scores

    def call() -> Tensor:
        return ask(structure(given, None))

    return backwards(call, [scores]) if trained else without_gradient(call), [scores]


def without_gradient(call: Callable[[], Tensor]) -> Call:
    """The call as a decoder makes it."""

    @torch.no_grad()
    def alone() -> tuple[Tensor]:
        return (call(),)

    return alone


def backwards(call: Callable[[], Tensor], leaves: Iterable[Tensor]) -> Call:
    """The call, and the gradients of what it gives, weighed by chance: those of a sum of probabilities are zero."""
    leaves = [each for each in leaves if each.requires_grad]
    weights = torch.randn(call().shape).to(leaves[0].dtype)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), leaves, weights, materialize_grads=True)

    return both


def losing(rows: Iterable[Any]) -> list[str]:
    """The cells below the line, the worst first."""
    worst = sorted((row.ratio, row.case) for row in rows if row.ratio < LOSES)
    return [f"{ratio:.2f}  {case}" for ratio, case in worst]


def main() -> None:
    """The command line; what loses comes last."""
    rows: list[harness.Row] = []

    def seen(rounds: int) -> Iterator[harness.Row]:
        for each in measure(rounds):
            rows.append(each)
            yield each

    harness.main("roads", seen)
    lost = losing(rows)
    Console().print(f"{len(lost)} of {len(rows)} cells lose", *lost, sep="\n")


if __name__ == "__main__":
    harness.interleave = partial(harness.interleave, round_ms=15)
    main()
