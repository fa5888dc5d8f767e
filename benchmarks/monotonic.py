"""Expected monotonic alignments: the exact recurrence in one fused loop, against the same recurrence in PyTorch and the
closed form of popular code, which clips its denominators and loses mass.

`regard bench monotonic` prints them, forward and backward, in turn. What the closed form loses stands by its name.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from harness import Row, compare, main
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.positions.algorithms.recurrence import by_steps, recurrence

SIZES = [(16, 200, 400), (16, 50, 100)]
CLIP = 1e-10
LIMIT = "reading scores and slopes and writing weights and gradients, once, by torch.clone"


def measure(rounds: int) -> Iterable[Row]:
    """A row for each size and peer."""
    for size in SIZES:
        torch.manual_seed(0)
        scores, slopes = torch.randn(size, requires_grad=True), torch.randn(size)
        exact = _trained(_plain)(scores.detach().double().requires_grad_(), slopes.double())
        peers = {
            "the recurrence in PyTorch, a query at a time": _plain,
            "the same, each query's step by torch.compile": _compiled(size),
        }
        for function in (_ours, *peers.values()):
            found = _trained(function)(scores, slopes)
            assert_close([each.double() for each in found], exact, rtol=1e-3, atol=1e-4)
        lost = 1 - closed_form(scores.detach())[:, -1].sum() / exact[0][:, -1].sum()
        peers[f"the closed form, clipped at {CLIP:g}, which has lost {lost:.0%} of the mass at the last query"] = (
            closed_form
        )
        calls = {name: partial(_trained(each), scores, slopes) for name, each in {"ours": _ours, **peers}.items()}
        bound = partial(lambda tensors: [each.clone() for each in tensors], (scores.detach(), slopes))
        for peer in peers:
            case = f"{'x'.join(map(str, size))}, forward and backward"
            yield compare(case, peer, calls["ours"], calls[peer], bound, LIMIT, size[0] * size[1], rounds)


def closed_form(scores: Tensor) -> Tensor:
    """alpha_i = p cumprod(1 - p) cumsum(alpha_{i-1} / cumprod(1 - p)), with both cumprods clipped (Raffel et al. 2017,
    appendix C.1)."""
    p = scores.sigmoid()
    passed = (1 - p).clamp(CLIP, 1).log().cumsum(-1).exp().roll(1, -1)
    passed = torch.cat((torch.ones_like(passed[..., :1]), passed[..., 1:]), -1)
    rows = [_first_place(scores)]
    for query in range(scores.shape[-2]):
        share = (rows[-1] / passed[..., query, :].clamp(CLIP, 1)).cumsum(-1)
        rows.append(p[..., query, :] * passed[..., query, :] * share)
    return torch.stack(rows[1:], -2)


def _ours(scores: Tensor) -> Tensor:
    return rg.Alignment(scores).mean


def _plain(scores: Tensor) -> Tensor:
    return by_steps(scores.sigmoid(), (-scores).sigmoid(), _first_place(scores))


def _compiled(size: tuple[int, int, int]) -> Callable[[Tensor], Tensor]:
    """One query's step is compiled: the whole, some thousands of operations, takes too long to compile."""
    step = torch.compile(lambda stop, decay, row: stop * recurrence(decay, row))

    def expected(scores: Tensor) -> Tensor:
        stop, decay = scores.sigmoid(), torch.nn.functional.pad((-scores[..., :-1]).sigmoid(), (1, 0))
        rows = [_first_place(scores)]
        for query in range(size[1]):
            rows.append(step(stop[:, query], decay[:, query], rows[-1]))
        return torch.stack(rows[1:], -2)

    return expected


def _first_place(scores: Tensor) -> Tensor:
    return torch.zeros_like(scores[..., 0, :]).index_fill(-1, torch.tensor(0), 1)


def _trained(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], list[Tensor]]:
    def weights_and_gradient(scores: Tensor, slopes: Tensor) -> list[Tensor]:
        weights = function(scores)
        return [weights.detach(), *torch.autograd.grad(weights, scores, slopes)]

    return weights_and_gradient


if __name__ == "__main__":
    main("monotonic", measure)
