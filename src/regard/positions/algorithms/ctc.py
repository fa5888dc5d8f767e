"""Connectionist temporal classification: the sum over all paths of frames that say a sequence of labels, and its
gradient.

A path goes through states, (*B, N): a blank, the first label, a blank, the second, ..., a blank, and -1 after the end.
From frame to frame it stays, goes on by one, or by two from a label to another one. It begins in the first blank or
label, and ends in the last.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms import linear_chain
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import INFINITY, take


def extended(targets: Int[Tensor, "*B L"], blank: int) -> Int[Tensor, "*B N"]:
    """The states of targets, in which -1 stands after the last (Graves et al. 2006, section 4.1, the sequence l').

    >>> extended(torch.tensor([[3, 3], [2, -1]]), 0)
    tensor([[ 0,  3,  0,  3,  0],
            [ 0,  2,  0, -1, -1]])
    """
    blanks = torch.full_like(targets, blank).where(targets >= 0, -1)
    return F.pad(torch.stack((targets, blanks), -1).flatten(-2), (1, 0), value=blank)


def closed(row: Tensor, present: Tensor) -> Tensor:
    """What is present of each row, in its order, and then the rest."""
    return take(row, closing(present), -1)


def closing(present: Tensor) -> Tensor:
    """Where each place of the closed row is from."""
    return (~present).int().argsort(dim=-1, stable=True)


def log_partition(
    scores: Float[Tensor, "*B T S"], states: Int[Tensor, "*B N"], present: Bool[Tensor, "*B T"]
) -> Float[Tensor, "*B"]:
    """The logarithm of the sum of exp(sum_t scores_{t, z_t}) over all paths z through the states, -inf where there is
    none (Graves et al. 2006, equations 5 to 8). An absent frame is left out. Time O(T N).

    >>> log_partition(torch.zeros(3, 2), torch.tensor([0, 1, 0]), torch.ones(3, dtype=torch.bool)).exp()
    tensor(6.)
    """
    given = scores, states, present
    return (find_road((log_partition,), *given) or plain_log_partition)(*given)


def marginals(
    scores: Float[Tensor, "*B T S"], states: Int[Tensor, "*B N"], present: Bool[Tensor, "*B T"]
) -> Float[Tensor, "*B T S"]:
    """The gradient of `log_partition`: how probable each label of each frame is. Time O(T N) and O(T S) for zeros.

    >>> marginals(torch.zeros(2, 2), torch.tensor([0, 1, 0]), torch.ones(2, dtype=torch.bool))
    tensor([[0.3333, 0.6667],
            [0.3333, 0.6667]])
    """
    given = scores, states, present
    return (find_road((marginals,), *given) or plain_marginals)(*given)


def k_best(
    scores: Float[Tensor, "*B T S"], states: Int[Tensor, "*B N"], present: Bool[Tensor, "*B T"], k: int
) -> Int[Tensor, "k *B T"]:
    """The labels of the k paths with the highest scores, the best first; -1 at absent frames, and throughout where
    fewer are possible. Time O(T N k).

    >>> scores, states = torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1, 0])
    >>> k_best(scores, states, torch.ones(2, dtype=torch.bool), 2)
    tensor([[1, 1],
            [1, 0]])
    """
    given = *flat(scores, states, present), k
    found = (find_road((k_best,), *given) or plain_k_best)(*given)
    return found.movedim(1, 0).reshape(k, *present.shape)


def sample(
    scores: Float[Tensor, "*B T S"], states: Int[Tensor, "*B N"], present: Bool[Tensor, "*B T"], shape: torch.Size
) -> Int[Tensor, "*SB T"]:
    """The labels of paths drawn by their probabilities, from the last frame to the first, each given the one after it;
    -1 at absent frames, and throughout where no path is possible. Time O(T N) a row and O(T) a draw.

    >>> sample(torch.zeros(2, 3), torch.tensor([0, 1, 0, 2, 0]), torch.ones(2, dtype=torch.bool), torch.Size())
    tensor([1, 2])
    """
    given = flat(scores, states, present)
    noise = torch.rand((len(given[0]), shape.numel(), scores.shape[-2]), dtype=torch.float64, device=scores.device)
    found = (find_road((sample,), *given, noise) or plain_sample)(*given, noise)
    return found.movedim(1, 0).reshape(*shape, *present.shape)


def flat(scores: Tensor, states: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with all batch dimensions as one."""
    if scores.dim() == 3:
        return scores, states, present
    rows = scores.shape[:-2].numel()
    return (
        scores.reshape(rows, *scores.shape[-2:]),
        states.reshape(rows, states.shape[-1]),
        present.reshape(rows, present.shape[-1]),
    )


def plain_log_partition(scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    """The plain road, in float64, frame after frame: `reached` (*B, N) are the sums over all paths up to each state."""
    nodes, skips = of_states(scores.double().clamp(min=NEVER), states), may_skip(states)
    nodes = F.pad(nodes, (0, 0, 1, 0))  # (*B, 1 + T, N), it begins before the frames, in the first state
    first, *frames = nodes.unbind(-2)  # not by indices, or each frame would have a gradient of the whole size
    reached = first.masked_fill(torch.arange(states.shape[-1], device=nodes.device) > 0, NEVER)
    for frame, there in zip(frames, present.unbind(-1), strict=True):
        one, two = _behind(reached, 1), _behind(reached, 2).where(skips, NEVER)
        ahead = torch.stack((reached, one, two)).logsumexp(0) + frame
        reached = ahead.where(there.unsqueeze(-1), reached)
    log_z = reached.where(may_end(states), NEVER).logsumexp(-1)
    return log_z.masked_fill(log_z < NEVER / 2, -INFINITY).to(scores.dtype)


def plain_marginals(scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    """The plain road: the gradient by automatic differentiation."""
    return torch.func.grad(lambda scores: plain_log_partition(scores, states, present).sum())(scores)


def plain_k_best(scores: Tensor, states: Tensor, present: Tensor, k: int) -> Tensor:
    """The plain road of `k_best`, (N, k, T): that of a chain of the states."""
    found = linear_chain.plain_k_best(*_chain(scores, states, present), k)
    return _labels(found, states, present)


def plain_sample(scores: Tensor, states: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """The plain road of `sample`, by uniform noise (N, draws, T), the first numbers for the frames that are present."""
    found = linear_chain.plain_sample(*_chain(scores, states, present), noise)
    return _labels(found, states, present)


def of_states(scores: Tensor, states: Tensor) -> Tensor:
    """The scores (*B, T, N) of the states; where there is none, those of a label that does not matter."""
    return take(scores, states.clamp(min=0).unsqueeze(-2), -1)


def may_skip(states: Tensor) -> Tensor:
    """Which states may follow on the one but one before: labels other than the label before."""
    return F.pad(states[..., 2:] != states[..., :-2], (2, 0))[..., : states.shape[-1]]


def may_end(states: Tensor) -> Tensor:
    """Which states a path may end in: the last label and the last blank."""
    left = (states >= 0).sum(-1, keepdim=True) - torch.arange(states.shape[-1], device=states.device)
    return (left == 1) | (left == 2)


def _behind(row: Tensor, distance: int) -> Tensor:
    """What lies so many states behind each, and NEVER before the first."""
    return F.pad(row, (distance, 0), value=NEVER)[..., : row.shape[-1]]


def _chain(scores: Tensor, states: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same as nodes (N, T, states), transitions and present of a chain, whose absent positions stand last."""
    t, state = (torch.arange(size, device=scores.device) for size in (scores.shape[1], states.shape[1]))
    nodes = of_states(scores, states).take_along_dim(closing(present).unsqueeze(-1), 1)
    nodes = nodes.masked_fill((t == 0).unsqueeze(-1) & (state > 1), -INFINITY)
    last = t == present.sum(-1, keepdim=True) - 1
    nodes = nodes.masked_fill(last.unsqueeze(-1) & ~may_end(states).unsqueeze(1), -INFINITY)
    step = state - state.unsqueeze(-1)
    allowed = (step == 0) | (step == 1) | (step == 2) & may_skip(states).unsqueeze(1)
    return nodes, nodes.new_zeros(allowed.shape).masked_fill(~allowed, -INFINITY), closed(present, present)


def _labels(found: Tensor, states: Tensor, present: Tensor) -> Tensor:
    """The labels (N, k, T) of paths through states, whose absent positions stand last, with these where they were."""
    labels = take(states.unsqueeze(1), found.clamp(min=0), -1).where(found >= 0, -1)
    return take(labels, closing(present).argsort(-1).unsqueeze(1), -1)
