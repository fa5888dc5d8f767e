"""Semi-Markov chains: the sum over all segmentations of a sequence into labelled runs, and its gradient."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms import linear_chain
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import INFINITY

Durations = Float[Tensor, "*B W S"] | Float[Tensor, "*B L W S"]


def log_partition(
    nodes: Float[Tensor, "*B T S"],
    transitions: Float[Tensor, "*B S S"],
    durations: Durations,
    present: Bool[Tensor, "*B T"],
) -> Float[Tensor, "*B"]:
    """The logarithm of the sum of exp(score) over all ways to cut the positions that are present into runs of one label
    each, of at most W positions and no two of the same label in succession (Sarawagi and Cohen 2004, section 3.2).

    The score of a run of w positions of label s is the sum of its nodes and durations_{w, s}, and of two runs in
    succession transitions_{s, s'}; an absent position ends a run. Where a length scores differently by the position at
    which its run begins, the durations are (*B, T, W, S), here and below. Time O(T S (S + W)).

    >>> none = torch.zeros(2, 2), torch.zeros(3, 2)
    >>> log_partition(torch.zeros(3, 2), *none, torch.ones(3, dtype=torch.bool)).exp()
    tensor(8.)
    """
    given = nodes, transitions, durations, present
    return (find_road((log_partition,), *given) or plain_log_partition)(*given)


def marginals(
    nodes: Float[Tensor, "*B T S"],
    transitions: Float[Tensor, "*B S S"],
    durations: Durations,
    present: Bool[Tensor, "*B T"],
) -> Float[Tensor, "*B P"]:
    """The gradient of `log_partition` in nodes, transitions and durations, flat, one after the other: how probable each
    label of each position is, and how often each transition and each length of a label's runs are expected.

    >>> none = torch.zeros(1, 1), torch.zeros(2, 1)
    >>> marginals(torch.zeros(2, 1), *none, torch.ones(2, dtype=torch.bool))
    tensor([1., 1., 0., 0., 1.])
    """
    given = nodes, transitions, durations, present
    return (find_road((marginals,), *given) or plain_marginals)(*given)


def k_best(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, k: int) -> Int[Tensor, "k *B T"]:
    """The labels of the k segmentations with the highest scores, the best first; -1 at absent positions, and throughout
    where fewer are possible. Time O(T S (S + W) k), memory O(T S k) a row.

    >>> none = torch.zeros(2, 2), torch.zeros(1, 2)
    >>> k_best(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), *none, torch.ones(2, dtype=torch.bool), 2)
    tensor([[0, 1],
            [1, 0]])
    """
    given = *flat(nodes, transitions, durations, present), k
    found = (find_road((k_best,), *given) or plain_k_best)(*given)
    return found.movedim(1, 0).reshape(k, *present.shape)


def sample(
    nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, shape: torch.Size
) -> Int[Tensor, "*SB T"]:
    """The labels of segmentations drawn by their probabilities, from the last run to the first; -1 at absent positions,
    and throughout where none is possible. Time O(T S (S + W)) a row and O(T (S + W)) a draw.

    >>> sample(torch.zeros(2, 1), torch.zeros(1, 1), torch.zeros(2, 1), torch.ones(2, dtype=torch.bool), torch.Size())
    tensor([0, 0])
    """
    given = flat(nodes, transitions, durations, present)
    numbers = len(given[0]), shape.numel(), nodes.shape[-2], 2
    noise = torch.rand(numbers, dtype=torch.float64, device=nodes.device)
    found = (find_road((sample,), *given, noise) or plain_sample)(*given, noise)
    return found.movedim(1, 0).reshape(*shape, *present.shape)


def flat(
    nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with all batch dimensions as one."""
    if nodes.dim() == 3:
        return nodes, transitions, durations, present
    batch = nodes.dim() - 2
    rows = nodes.shape[:batch].numel()
    given = nodes, transitions, durations, present
    return tuple(each.reshape(rows, *each.shape[batch:]) for each in given)  # pyright: ignore[reportReturnType]


def plain_log_partition(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Tensor:
    """The plain road, in float64, position after position: `runs` (*B, W, S) are the sums over all up to a run that has
    come so far."""
    dtype, nodes = nodes.dtype, nodes.double().where(present.unsqueeze(-1), 0).clamp(min=NEVER)
    alike = torch.eye(nodes.shape[-1], dtype=torch.bool, device=nodes.device)
    transitions = transitions.double().masked_fill(alike, NEVER).clamp(min=NEVER)
    ending = F.pad(_ending(nodes, durations.double().clamp(min=NEVER)), (0, 0, 0, 0, 1, 0))  # (*B, T + 1, W, S)
    nodes, present = F.pad(nodes, (0, 0, 1, 0)), F.pad(present, (1, 0))  # it begins with a position that is absent
    linked = F.pad(present[..., 1:] & present[..., :-1], (1, 0))
    last = present & ~F.pad(present[..., 1:], (0, 1))
    total = nodes.new_zeros(nodes.shape[:-2])
    runs = torch.full_like(ending[..., 0, :, :], NEVER)
    closed = runs[..., 0, :]
    # Not by indices, or each position would have a gradient of the whole size.
    positions = zip(nodes.unbind(-2), ending.unbind(-3), linked.unbind(-1), last.unbind(-1), strict=True)
    for node, ends, joined, final in positions:
        opened = (closed.unsqueeze(-1) + transitions).logsumexp(-2).where(joined.unsqueeze(-1), total.unsqueeze(-1))
        longer = runs[..., :-1, :].where(joined[..., None, None], NEVER)
        runs = torch.cat((opened.unsqueeze(-2), longer), -2) + node.unsqueeze(-2)
        closed = (runs + ends).logsumexp(-2)
        total = closed.logsumexp(-1).where(final, total)
    return total.masked_fill(total < NEVER / 2, -INFINITY).to(dtype)


def plain_marginals(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Tensor:
    """The plain road: the gradient by automatic differentiation."""
    total = lambda *scores: plain_log_partition(*scores, present=present).sum()  # noqa: E731
    grads = torch.func.grad(total, (0, 1, 2))(nodes, transitions, durations)
    return torch.cat([each.flatten(nodes.dim() - 2) for each in grads], -1)


def _ending(nodes: Tensor, durations: Tensor) -> Tensor:
    """The scores (*B, T, W, S) of the lengths of runs that end at each position."""
    if durations.dim() == nodes.dim():
        return durations.unsqueeze(-3).expand(*nodes.shape[:-1], *durations.shape[-2:])
    widths = torch.arange(durations.shape[-2], device=nodes.device)
    begins = torch.arange(nodes.shape[-2], device=nodes.device).unsqueeze(-1) - widths  # (T, W)
    return durations[..., begins.clamp(min=0), widths, :]


def plain_k_best(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, k: int) -> Tensor:
    """The plain road of `k_best`, (N, k, T): that of a chain whose states are a label and how far its run has come."""
    found = linear_chain.plain_k_best(*_chain(nodes, transitions, durations, present), k)
    return found.remainder(nodes.shape[-1]).where(found >= 0, -1)


def plain_sample(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """The plain road of `sample`, by uniform noise (N, draws, T, 2), of which it needs but one number a position."""
    found = linear_chain.plain_sample(*_chain(nodes, transitions, durations, present), noise[..., 0])
    return found.remainder(nodes.shape[-1]).where(found >= 0, -1)


def _chain(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same as nodes (N, T, W S), transitions (N, W S, W S) and present of a chain whose state w S + s is position w
    of a run of label s; time and memory are O(T (W S)^2)."""
    width, states = durations.shape[-2:]
    size, durations = width * states, durations.double()
    absent = ~F.pad(present, (1, 1))
    begins, ends = present & absent[..., :-2], present & absent[..., 2:]
    late = torch.arange(width, device=nodes.device).unsqueeze(-1) > 0
    scores = nodes.unsqueeze(-2).expand(*nodes.shape[:-1], width, states).double()
    scores = scores.masked_fill(begins[..., None, None] & late, -INFINITY)
    scores = scores + _ending(nodes, durations).where(ends[..., None, None], 0)
    if durations.dim() > 3:
        durations, transitions = _ending(nodes, durations)[:, :-1], transitions.unsqueeze(1)  # (N, T - 1, W, S)
    alike = torch.eye(states, dtype=torch.bool, device=nodes.device)
    between = transitions.double().masked_fill(alike, -INFINITY)
    ending = (durations.unsqueeze(-1) + between.unsqueeze(-3)).flatten(-3, -2)  # (N, ..., W S, S)
    further = torch.eye(size, dtype=torch.bool, device=nodes.device)[:, : size - states]
    going_on = ending.new_zeros(size, size - states).masked_fill(~further, -INFINITY)
    return scores.flatten(-2), torch.cat((ending, going_on.expand(*ending.shape[:-2], -1, -1)), -1), present
