"""Linear chains: the sum over all labellings of a sequence, and its gradient, by dynamic programming."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import INFINITY

Transitions = Float[Tensor, "*B S S"] | Float[Tensor, "*B L S S"]
SCANNED = 4
"""The most states for which all positions are combined in pairs, in log2 T steps, by the plain road."""


def log_partition(
    nodes: Float[Tensor, "*B T S"], transitions: Transitions, present: Bool[Tensor, "*B T"]
) -> Float[Tensor, "*B"]:
    """log sum_z exp(sum_t nodes_{t, z_t} + sum_t transitions_{z_t, z_{t+1}}), over all labellings z of the positions
    that are present; -inf where none is possible (Rabiner 1989, equations 19 to 21).

    A transition counts where both of its positions are present. Where they differ from position to position, the
    transitions are (*B, T-1, S, S), here and below. Time O(T S^2), memory O(T S).

    >>> log_partition(torch.zeros(3, 2), torch.zeros(2, 2), torch.ones(3, dtype=torch.bool)).exp()
    tensor(8.)
    """
    given = nodes, transitions, present
    return (find_road((log_partition,), *given) or plain_log_partition)(*given)


def marginals(
    nodes: Float[Tensor, "*B T S"], transitions: Transitions, present: Bool[Tensor, "*B T"]
) -> Float[Tensor, "*B P"]:
    """The gradient of `log_partition` in nodes and transitions, flat, one after the other: how probable each label of
    each position is, and how often each transition is expected. Time O(T S^2), memory O(T S).

    >>> marginals(torch.zeros(3, 2), torch.zeros(2, 2), torch.ones(3, dtype=torch.bool))
    tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000,
            0.5000])
    """
    given = nodes, transitions, present
    return (find_road((marginals,), *given) or plain_marginals)(*given)


def label_means(
    nodes: Float[Tensor, "*B T S"], transitions: Transitions, present: Bool[Tensor, "*B T"]
) -> Float[Tensor, "*B T S"]:
    """Of the `marginals` those of the labels, with their shape. Time O(T S^2), memory O(T S).

    >>> label_means(torch.zeros(1, 2), torch.zeros(2, 2), torch.ones(1, dtype=torch.bool))
    tensor([[0.5000, 0.5000]])
    """
    given = nodes, transitions, present
    return (find_road((label_means,), *given) or plain_label_means)(*given)


def segment_means(
    scores: Float[Tensor, "*B K"], stay: Float[Tensor, "*B"], present: Bool[Tensor, "*B K"]
) -> Float[Tensor, "*B K"]:
    """The marginals of label 1, of the labels 0 and 1, where label 1 has the scores and neighbours with the same label
    score `stay`. Time and memory O(K).

    >>> segment_means(torch.tensor([0.0, 9.0]), torch.tensor(9.0), torch.ones(2, dtype=torch.bool))
    tensor([0.9998, 0.9999])
    """
    given = scores, stay, present
    return (find_road((segment_means,), *given) or plain_segment_means)(*given)


def two_labels(scores: Float[Tensor, "*B K"], stay: Float[Tensor, "*B"]) -> tuple[Tensor, Tensor]:
    """The nodes (*B, K, 2) and transitions (*B, 2, 2) of the same."""
    alike = torch.eye(2, dtype=torch.bool, device=stay.device)
    return torch.stack((torch.zeros_like(scores), scores), -1), stay[..., None, None].where(alike, 0)


def k_best(
    nodes: Float[Tensor, "*B T S"], transitions: Transitions, present: Bool[Tensor, "*B T"], k: int
) -> Int[Tensor, "k *B T"]:
    """The k labellings with the highest scores, the best first, by Viterbi's algorithm with k candidates a state; -1 at
    absent positions, and throughout where fewer are possible. Time O(T S^2 k), memory O(T S k) a row.

    >>> k_best(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), torch.zeros(2, 2), torch.ones(2, dtype=torch.bool), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    given = *flat(nodes, transitions, present), k
    found = (find_road((k_best,), *given) or plain_k_best)(*given)
    return found.movedim(1, 0).reshape(k, *present.shape)


def sample(
    nodes: Float[Tensor, "*B T S"],
    transitions: Transitions,
    present: Bool[Tensor, "*B T"],
    shape: torch.Size,
) -> Int[Tensor, "*SB T"]:
    """Labellings drawn by their probabilities, from the last position to the first, each given the one after it
    (forward filtering, backward sampling); -1 at absent positions, and throughout where none is possible.

    Time O(T S^2) a row and O(T S) a draw.

    >>> sample(torch.tensor([[0.0, -torch.inf]] * 3), torch.zeros(2, 2), torch.ones(3, dtype=torch.bool), torch.Size())
    tensor([0, 0, 0])
    """
    rows = flat(nodes, transitions, present)
    noise = torch.rand((len(rows[0]), math.prod(shape), nodes.shape[-2]), dtype=torch.float64, device=nodes.device)
    found = (find_road((sample,), *rows, noise) or plain_sample)(*rows, noise)
    return found.movedim(1, 0).reshape(*shape, *present.shape)


def flat(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with all batch dimensions as one."""
    if nodes.dim() == 3:
        return nodes, transitions, present
    batch = nodes.dim() - 2
    rows = math.prod(nodes.shape[:batch])
    nodes, transitions, present = (each.reshape(rows, *each.shape[batch:]) for each in (nodes, transitions, present))
    return nodes, transitions, present


def between(nodes: Tensor, transitions: Tensor) -> Tensor:
    """The transitions (*B, L, S, S) to every position but the first: L is T - 1, or 1 if they are the same for all."""
    return transitions if transitions.dim() > nodes.dim() else transitions.unsqueeze(-3)


def _into(nodes: Tensor, transitions: Tensor, before: int) -> Tensor:
    """The same to each of the T positions and `before` of them, those to the first and to these of no matter."""
    if transitions.dim() == nodes.dim():
        return transitions.unsqueeze(-3).expand(*nodes.shape[:-2], before + nodes.shape[-2], -1, -1)
    return F.pad(transitions, (0, 0, 0, 0, before + 1, 0))[..., : before + nodes.shape[-2], :, :]


def plain_log_partition(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The plain road, in float64: position after position, or, where there are few states, halving their number each
    time. The logarithms of sums over many positions are large, and what is asked is how they differ."""
    dtype, nodes, transitions = nodes.dtype, nodes.double().clamp(min=NEVER), transitions.double().clamp(min=NEVER)
    into = _into(nodes, transitions, 1)  # (*B, T + 1, S, S)
    nodes, present = F.pad(nodes, (0, 0, 1, 0)), F.pad(present, (1, 0))  # it begins with a position that is absent
    nowhere = F.pad(nodes.new_zeros(1), (0, nodes.shape[-1] - 1), value=NEVER)  # which has one state
    nodes = nodes.where(present.unsqueeze(-1), nowhere)
    linked = F.pad(present[..., 1:] & present[..., :-1], (1, 0))
    if nodes.shape[-1] <= SCANNED:
        steps = into.where(linked[..., None, None], 0) + nodes.unsqueeze(-2)
        reached = _combined(steps)[..., 0, :]
    else:
        reached, *others = nodes.unbind(-2)  # not by indices, or each step would have a gradient of the whole size
        for node, step, joined in zip(others, into.unbind(-3)[1:], linked.unbind(-1)[1:], strict=True):
            reached = (reached.unsqueeze(-1) + step.where(joined[..., None, None], 0)).logsumexp(-2) + node
    log_z = reached.logsumexp(-1)
    return log_z.masked_fill(log_z < NEVER / 2, -INFINITY).to(dtype)


def plain_marginals(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The plain road: the gradient by automatic differentiation."""
    total = lambda nodes, transitions: plain_log_partition(nodes, transitions, present).sum()  # noqa: E731
    found = torch.func.grad(total, (0, 1))(nodes, transitions)
    return torch.cat([each.flatten(nodes.dim() - 2) for each in found], -1)


def plain_label_means(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The plain road: the first of all marginals."""
    found = plain_marginals(nodes, transitions, present)
    return found[..., : math.prod(nodes.shape[-2:])].unflatten(-1, nodes.shape[-2:])


def plain_segment_means(scores: Tensor, stay: Tensor, present: Tensor) -> Tensor:
    """The plain road: the marginals of the chain."""
    found = plain_marginals(*two_labels(scores, stay), present)
    return found[..., 1 : 2 * scores.shape[-1] : 2]


def _combined(steps: Tensor) -> Tensor:
    """The product (*B, S, S) of the matrices (*B, T, S, S), whose entries are logarithms."""
    while steps.shape[-3] > 1:
        rest = steps[..., steps.shape[-3] & ~1 :, :, :]
        steps = torch.cat((_log_product(steps[..., :-1:2, :, :], steps[..., 1::2, :, :]), rest), -3)
    return steps.squeeze(-3)


def _log_product(left: Tensor, right: Tensor) -> Tensor:
    return (left.unsqueeze(-1) + right.unsqueeze(-3)).logsumexp(-2)


@torch.no_grad()
def plain_k_best(nodes: Tensor, transitions: Tensor, present: Tensor, k: int) -> Tensor:
    """The plain road of `k_best`, (N, k, T): what is kept of each state is its k best scores, and where they are from,
    as the number of a state times k plus a rank."""
    scores, links = _steps(nodes, transitions, present)
    best = F.pad(scores.new_zeros(scores.shape[0], 1), (0, nodes.shape[-1] * k - 1), value=-INFINITY)  # (N, S k)
    origins = []
    for t in range(nodes.shape[-2]):
        ahead = best.unsqueeze(-1) + links[:, t].repeat_interleave(k, 1)  # (N, S k, S)
        found, origin = ahead.topk(k, 1)  # (N, k, S)
        best = (found + scores[:, t].unsqueeze(-2)).mT.flatten(1)
        origins.append(origin.mT.flatten(1))
    total, place = best.topk(k, 1)  # (N, k)
    z = place.unsqueeze(-1)[..., :0]
    for origin in reversed(origins):
        z = torch.cat((place.unsqueeze(-1) // k, z), -1)
        place = origin.gather(1, place)
    return z.masked_fill((total == -INFINITY).unsqueeze(-1) | ~present.unsqueeze(1), -1)


@torch.no_grad()
def plain_sample(nodes: Tensor, transitions: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """The plain road of `sample`, by uniform noise (N, draws, T): the first label whose chance, with those before it,
    is above the noise."""
    scores, links = _steps(nodes, transitions, present)
    reached = [F.pad(scores.new_zeros(len(scores), 1), (0, nodes.shape[-1] - 1), value=-INFINITY)]  # (N, S)
    for t in range(nodes.shape[-2]):
        reached.append((reached[-1].unsqueeze(-1) + links[:, t]).logsumexp(-2) + scores[:, t])
    onward, z = torch.zeros_like(reached[0]).unsqueeze(1), torch.zeros_like(noise[..., :0], dtype=torch.long)
    for t in range(nodes.shape[-2] - 1, -1, -1):
        passed = (reached[t + 1].unsqueeze(1) + onward).softmax(-1).cumsum(-1)  # (N, draws, S)
        label = (passed <= noise[..., t : t + 1] * passed[..., -1:]).sum(-1, keepdim=True)
        onward = links[:, t].mT.take_along_dim(label, 1)
        z = torch.cat((label.expand(*noise.shape[:-1], 1), z), -1)
    impossible = reached[-1].amax(-1) == -INFINITY
    return z.masked_fill(impossible[:, None, None] | ~present.unsqueeze(1), -1)


def _steps(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The scores (N, T, S) and, to each position, the transitions (N, T, S, S), in float64: an absent position has one
    state, the first, and where one of two is absent no transition counts."""
    nowhere = F.pad(nodes.new_zeros(1), (0, nodes.shape[-1] - 1), value=-INFINITY)
    linked = F.pad(present[..., 1:] & present[..., :-1], (1, 0))
    scores = nodes.where(present.unsqueeze(-1), nowhere).double()
    return scores, _into(nodes, transitions, 0).double().where(linked[..., None, None], 0)
