"""Alignments: connectionist temporal classification, ours beside PyTorch's loss and the plain road.

`regard bench alignment_kernels` prints the loss with its gradient of scores that are peaked or not, then a draw beside
the best path, which PyTorch has neither of. With each goes how far both sides are from float64.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial

import torch
import torch.nn.functional as F
from harness import Accurate, Row, compare, main
from torch import Tensor
from torch.testing import assert_close

import regard as rg

SIZE = 16, 200, 32, 40
"""The batch, frames, labels of the scores, and labels of a target."""
SCALES = {"uniform": 0.0, "normal": 1.0, "peaked": 8.0}
EXPONENTIALS = "torch.softmax of the scores with its gradient: each score is read once, and exponentiated"
Loss = Callable[[Tensor, Tensor], Tensor]


def measure(rounds: int) -> Iterable[Row]:
    """A row for each case and peer."""
    torch.manual_seed(0)
    rows, frames, labels, length = SIZE
    case, targets = "ctc, batch {}, {} frames, {} labels, targets of {}".format(*SIZE), made(labels, rows, length)
    for name, scale in SCALES.items():
        scores = (scale * torch.randn(rows, frames, labels)).log_softmax(-1)
        yield from losses(f"{case}, {name} scores, loss and gradient", scores, targets, rounds)
    positions = rg.ctc(targets)(torch.randn(rows, frames, labels).log_softmax(-1))
    bound = lambda: positions.scores.softmax(-1)  # noqa: E731
    best, plain = lambda: positions.mode, partial(plainly, lambda: positions.mode)
    assert torch.equal(best(), plain())
    yield compared(f"{case}, a draw", "the best path", positions.sample, best, bound, rounds)
    yield compared(f"{case}, the best path", "the plain road", best, plain, bound, rounds)


def made(labels: int, rows: int, length: int) -> Tensor:
    """Targets, some of whose labels follow on themselves; the blank is 0."""
    return torch.randint(1, labels, (rows, length))


def losses(case: str, scores: Tensor, targets: Tensor, rounds: int) -> Iterable[Row]:
    exact = answers(ours, scores.double(), targets)
    for peer, theirs in {"torch": torchs, **({"the plain road": plains} if "normal" in case else {})}.items():
        one, other = (partial(answers, loss, scores, targets) for loss in (ours, theirs))
        assert_close(one(), [each.float() for each in exact])
        assert_close(other(), [each.float() for each in exact], rtol=1e-3, atol=1e-2)  # torch loses digits
        errors = [error(each(), exact) for each in (one, other)]
        bound = partial(answers, lambda scores, _: scores.softmax(-1).square().sum((-1, -2)), scores, targets)
        yield compared(case, peer, one, other, bound, rounds, *errors)


def ours(scores: Tensor, targets: Tensor) -> Tensor:
    return -rg.ctc(targets)(scores).log_z


def torchs(scores: Tensor, targets: Tensor) -> Tensor:
    frames, labels = (torch.full((len(each),), each.shape[1]) for each in (scores, targets))
    return F.ctc_loss(scores.transpose(0, 1), targets, frames, labels, reduction="none")


def plains(scores: Tensor, targets: Tensor) -> Tensor:
    return plainly(lambda: ours(scores, targets))


def plainly(function: Callable[[], Tensor]) -> Tensor:
    with rg.plain_road():
        return function()


def answers(loss: Loss, scores: Tensor, targets: Tensor) -> list[Tensor]:
    """The losses, and their gradients in what the log-probabilities are made of: those of PyTorch are right in no other
    sense, as they take for granted that they are made by a softmax."""
    leaf = scores.detach().requires_grad_()
    found = loss(leaf.log_softmax(-1), targets)
    return [found.detach(), *torch.autograd.grad(found.sum(), leaf)]


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    values, gradients = ((one - truth).abs() for one, truth in zip(found, exact, strict=True))
    return (values / exact[0].abs()).max().item(), gradients.max().item()


def compared(
    case: str, peer: str, mine: Callable, other: Callable, bound: Callable, rounds: int, *errors: tuple[float, float]
) -> Row:
    row = compare(case, peer, mine, other, bound, EXPONENTIALS, SIZE[0], rounds)
    return Accurate(**asdict(row), ours_error=errors[0] if errors else None, peer_error=errors[1] if errors else None)


if __name__ == "__main__":
    main("alignment_kernels", measure)
