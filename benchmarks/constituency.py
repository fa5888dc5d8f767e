"""Constituency trees: the sum over all binary trees of sentences with its gradient, the best tree and a draw, ours
beside torch-struct's CKY and the plain road.

`regard bench constituency` prints them for spans without and with labels. With each sum goes how far both sides are
from float64: the errors of the values, relative to them, and of the gradients.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from harness import Accurate, Row, compare, main
from torch import Tensor
from torch.testing import assert_close
from torch_struct import TreeCRF

import regard as rg

SIZE = 16, 40
"""The batch and the words."""
LABELS = None, 30
PLAIN = "the plain road"
EXPONENTIALS = "torch.softmax of the scores with its gradient: each score is read once, and exponentiated"
Answer = Callable[[Tensor], Tensor]

warnings.filterwarnings("ignore", ".*arg_constraints")  # of torch-struct


def measure(rounds: int) -> Iterable[Row]:
    """A row for each case and peer."""
    torch.manual_seed(0)
    rows, words = SIZE
    for labels in LABELS:
        case = f"constituency, batch {rows}, {words} words, {labels or 'no'} labels"
        scores = torch.randn(rows, words, words, *([labels] if labels else []))
        ours = partial(log_z, labels)
        exact = trained(ours, scores.double())
        for peer, theirs in {"torch-struct": structs_log_z, PLAIN: partial(plainly, ours)}.items():
            mine, other = partial(trained, ours, scores), partial(trained, theirs, scores)
            for each in (mine(), other()):
                assert_close(each, [truth.float() for truth in exact], rtol=1e-4, atol=1e-4)
            errors = error(mine(), exact), error(other(), exact)
            yield compared(f"{case}, log Z and gradient", peer, mine, other, scores, rounds, *errors)
        events: dict[str, Answer] = {"the best tree": partial(best, labels), "a draw": partial(draw, labels)}
        peers: dict[str, Answer] = {"the best tree": structs_best, "a draw": structs_draw}
        for name, each in events.items():
            for peer, theirs in {"torch-struct": peers[name], PLAIN: partial(plainly, each)}.items():
                mine, other = partial(each, scores), partial(theirs, scores)
                yield compared(f"{case}, {name}", peer, mine, other, scores, rounds)


def compared(
    case: str, peer: str, mine: Callable, other: Callable, scores: Tensor, rounds: int, *errors: tuple[float, float]
) -> Row:
    bound = partial(trained, lambda scores: scores.softmax(-1).square().flatten(1).sum(-1), scores)
    row = compare(case, peer, mine, other, bound, EXPONENTIALS, SIZE[0], rounds)
    return Accurate(**asdict(row), ours_error=errors[0] if errors else None, peer_error=errors[1] if errors else None)


def log_z(labels: int | None, scores: Tensor) -> Tensor:
    return rg.constituency(labels)(scores).log_z


def best(labels: int | None, scores: Tensor) -> Tensor:
    return rg.constituency(labels)(scores).mode


def draw(labels: int | None, scores: Tensor) -> Tensor:
    return rg.constituency(labels)(scores).sample()


def struct(scores: Tensor) -> TreeCRF:
    return TreeCRF(scores if scores.dim() == 4 else scores.unsqueeze(-1))


def structs_log_z(scores: Tensor) -> Tensor:
    return struct(scores).partition


def structs_best(scores: Tensor) -> Tensor:
    return struct(scores).argmax


def structs_draw(scores: Tensor) -> Tensor:
    return struct(scores).sample((1,))


def plainly(answer: Answer, scores: Tensor) -> Tensor:
    with rg.plain_road():
        return answer(scores)


def trained(log_z: Answer, scores: Tensor) -> list[Tensor]:
    """The sums, and their gradients."""
    leaf = scores.detach().requires_grad_()
    found = log_z(leaf)
    return [found.detach(), *torch.autograd.grad(found.sum(), leaf)]


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    values, gradients = ((one - truth).abs() for one, truth in zip(found, exact, strict=True))
    return (values / exact[0].abs()).max().item(), gradients.max().item()


if __name__ == "__main__":
    main("constituency", measure)
