"""Sparsemax and entmax on the CPU: ours, the plain road, the plain road by torch.compile, and the entmax package.

`regard bench sparse` prints the forward with the backward pass, in turn, beside torch.softmax of the same scores.
"""

from collections.abc import Callable, Iterable
from functools import partial

import entmax
import torch
from harness import Row, compare, main
from torch import Tensor

import regard as rg
from regard.over.sparse import plain_weights

SIZES = [(512, 1024), (2048, 128)]
LIMIT = "torch.softmax of the same scores, forward and backward: it reads and writes as much, and sorts nothing"
PACKAGE = {
    2.0: [("entmax.sparsemax", entmax.sparsemax)],
    1.5: [("entmax.entmax15", entmax.entmax15), ("entmax.entmax15, k=32", partial(entmax.entmax15, k=32))],
    1.3: [("entmax.entmax_bisect, 24 steps", partial(entmax.entmax_bisect, alpha=1.3, n_iter=24))],
}
Weights = Callable[[Tensor], Tensor]


def measure(rounds: int) -> Iterable[Row]:
    """A row for each size, alpha and peer."""
    for size in SIZES:
        for alpha, package in PACKAGE.items():
            torch.manual_seed(0)
            scores, direction = torch.randn(size, requires_grad=True), torch.randn(size)
            plain = partial(plain_weights, alpha=alpha)
            peers = [("the plain road", plain), ("torch.compile of the plain road", torch.compile(plain)), *package]
            ours = partial(rg.entmax_weights, alpha=alpha)
            for peer, theirs in peers:
                _check(ours, theirs, scores, direction)
                calls = [partial(_trained, each, scores, direction) for each in (ours, theirs, torch.nn.Softmax(-1))]
                case = f"{'x'.join(map(str, size))}, alpha {alpha}"
                yield compare(case, peer, calls[0], calls[1], calls[2], LIMIT, size[0], rounds)


def _check(ours: Weights, theirs: Weights, scores: Tensor, direction: Tensor) -> None:
    """The weights and the gradients of both are the same."""
    for mine, other in zip(_trained(ours, scores, direction), _trained(theirs, scores, direction), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def _trained(weights: Weights, scores: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    found = weights(scores)
    return found, torch.autograd.grad(found, scores, direction)[0]


if __name__ == "__main__":
    main("sparse", measure)
