"""Dependency trees: the sum over all trees of a sentence, and its gradient, projective and not."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import INFINITY, take

Choose = Callable[[int, Tensor], Tensor]


def log_partition(
    scores: Float[Tensor, "*B K K"], present: Bool[Tensor, "*B K"], projective: bool, single_root: bool
) -> Float[Tensor, "*B"]:
    """log sum_z exp(sum_i scores_{i, z_i}), over all trees z of the words that are present; -inf where there is none.

    z_i is the head of word i, i itself for a root. Projective trees by the inside algorithm over the spans of Eisner
    (1996), in time O(K^3). All trees by eliminating one word after another: what Koo et al. (2007) take as a
    determinant, but without a subtraction (Grassmann, Taksar and Heyman 1985), so that any scores do; O(K^3).

    >>> log_partition(torch.zeros(3, 3), torch.ones(3, dtype=torch.bool), projective=False, single_root=True).exp()
    tensor(9.)
    """
    given = scores, present, projective, single_root
    return (find_road((log_partition,), *given) or plain_log_partition)(*given)


def marginals(
    scores: Float[Tensor, "*B K K"], present: Bool[Tensor, "*B K"], projective: bool, single_root: bool
) -> Float[Tensor, "*B K K"]:
    """The gradient of `log_partition` in the scores: how probable each arc is, and on the diagonal each root; O(K^3).

    >>> marginals(torch.zeros(2, 2), torch.ones(2, dtype=torch.bool), projective=False, single_root=False)
    tensor([[0.6667, 0.3333],
            [0.3333, 0.6667]])
    """
    given = scores, present, projective, single_root
    return (find_road((marginals,), *given) or plain_marginals)(*given)


def k_best(scores: Tensor, present: Tensor, projective: bool, single_root: bool, k: int) -> Int[Tensor, "k *B K"]:
    """The k best trees, the best first, -1 throughout where there are fewer.

    The best by the algorithm of Eisner (1996) in time O(K^3), or by that of Chu and Liu (1965) and Edmonds (1967); each
    next one by splitting the set that the one before it was in (Lawler 1972), in K times that.

    >>> k_best(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.ones(2, dtype=torch.bool), True, False, k=3)
    tensor([[0, 1],
            [1, 1],
            [0, 0]])
    """
    given = *_rows(scores, present), projective, single_root, k
    found = (find_road((k_best,), *given) or plain_k_best)(*given)
    return found.movedim(1, 0).reshape(k, *present.shape)


def sample(
    scores: Tensor, present: Tensor, projective: bool, single_root: bool, sample_shape: torch.Size
) -> Int[Tensor, "*SB K"]:
    """Trees drawn in proportion to the exponential of their score, exactly.

    >>> sample(torch.zeros(1, 1), torch.ones(1, dtype=torch.bool), True, True, torch.Size([2]))
    tensor([[0],
            [0]])
    """
    rows, present_rows = _rows(scores, present)
    numbers = len(rows), math.prod(sample_shape), 2 * scores.shape[-1]
    uniform = torch.rand(numbers, dtype=torch.float64, device=scores.device)
    given = rows, present_rows, uniform, projective, single_root
    found = (find_road((sample,), *given) or plain_sample)(*given)
    return found.movedim(1, 0).reshape(*sample_shape, *present.shape)


def _rows(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    *batch, words = present.shape
    rows = math.prod(batch)
    return scores.reshape(rows, words, words), present.reshape(rows, words)


def plain_log_partition(scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The plain road, in log space and float64. What all arcs of a word have in common is taken out of them first."""
    if scores.shape[-1] == 0:
        return scores.sum((-1, -2))
    dtype, scores = scores.dtype, scores.double().clamp(min=NEVER)
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    common = scores.detach().where(both, NEVER).logsumexp(-1)
    common = common.masked_fill(common < NEVER / 2, 0)
    total = (inside if projective else eliminated)(scores - common.unsqueeze(-1), present, single_root)
    log_z = total + common.sum(-1)
    return log_z.masked_fill(total < NEVER / 2, -INFINITY).to(dtype)


def plain_marginals(scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The plain road: the gradient by automatic differentiation."""
    return torch.func.grad(lambda each: plain_log_partition(each, present, projective, single_root).sum())(scores)


def inside(scores: Tensor, present: Tensor, single_root: bool) -> Tensor:
    """log Z of projective trees: the present words are a row of contiguous trees, one if there is a single root."""
    order = present.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    scores = take(take(scores, order.unsqueeze(-1), -2), order.unsqueeze(-2), -1)
    to_left, to_right = _spans(scores)
    nothing = torch.zeros_like(scores.sum((-1, -2)))
    roots, totals = [], [nothing]
    for word, root in enumerate(scores.diagonal(dim1=-2, dim2=-1).unbind(-1)):
        before = torch.stack([nothing, *[nothing + NEVER] * word] if single_root else totals, -1)
        roots.append(_combined(before, to_left[..., word, : word + 1]) + root)
        totals.append(_combined(torch.stack(roots, -1), to_right[..., word, : word + 1]))
    return torch.stack(totals, -1).gather(-1, present.sum(-1, keepdim=True)).squeeze(-1)


def _spans(arcs: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over the subtrees that end at each word and begin so many words before it, of which
    that word is the head, (*B, K, K), and of which the first word is."""
    words = arcs.shape[-1]
    right_from = right_to = left_from = left_to = torch.zeros_like(arcs[..., :1])  # (*B, K, width + 1)
    arc_right = arc_left = arcs[..., :0]
    for width in range(1, words):
        count = words - width
        both = _combined(right_from[..., :count, :], left_to[..., width:, :])  # (*B, count)
        arc_right = _grown(arc_right, both + arcs.diagonal(-width, -2, -1), (0, width))
        arc_left = _grown(arc_left, both + arcs.diagonal(width, -2, -1), (width, 0))
        right = _combined(arc_right[..., :count, :], right_to[..., width:, :])
        left = _combined(left_from[..., :count, :], arc_left[..., width:, :])
        right_from, right_to = _grown(right_from, right, (0, width)), _grown(right_to, right, (width, 0))
        left_from, left_to = _grown(left_from, left, (0, width)), _grown(left_to, left, (width, 0))
    return left_to, right_to


def _combined(left: Tensor, right: Tensor) -> Tensor:
    """The sum over where a span is split: the longer its left part, the shorter its right one."""
    return (left + right.flip(-1)).logsumexp(-1)


def _grown(chart: Tensor, spans: Tensor, where: tuple[int, int]) -> Tensor:
    """The chart (*B, K, W), by first or by last word, with wider spans."""
    return torch.cat((chart, F.pad(spans, where, value=NEVER).unsqueeze(-1)), -1)


def eliminated(scores: Tensor, present: Tensor, single_root: bool) -> Tensor:
    """log Z of all trees: words leave one after another, and what led to a word then leads to where its arcs go.

    An absent word hangs from the root for nothing. A single root has a price, and what has to pay it is kept apart:
    Z is what remains when it is paid once, the term of first order in that price.
    """
    heads, paying = _with_root(scores, present, single_root)
    log_z, paid = torch.zeros_like(paying.sum(-1)), torch.zeros_like(present.sum(-1))
    for word in range(scores.shape[-1] - 1, -1, -1):
        row, price = heads[..., word, : word + 1], paying[..., word]
        total = row.logsumexp(-1)
        free = total > NEVER / 2
        log_z, paid = log_z + total.where(free, price), paid + ~free
        chances = (row - total.unsqueeze(-1)).where(free.unsqueeze(-1), _only_root(row))
        dependents = heads[..., :word, word + 1]
        heads = _log_sum(heads[..., :word, : word + 1], dependents.unsqueeze(-1) + chances.unsqueeze(-2))
        later = (price - total).masked_fill(~free, NEVER)
        paying = _log_sum(paying[..., :word], dependents + later.unsqueeze(-1))
    return log_z.masked_fill(paid > 1, NEVER)


def _with_root(scores: Tensor, present: Tensor, single_root: bool) -> tuple[Tensor, Tensor]:
    """The scores of the arcs to the root, free of charge, and to each head, (*B, K, 1 + K), and to the root at a
    price, (*B, K)."""
    root = scores.diagonal(dim1=-2, dim2=-1).where(present, NEVER)
    arcs = scores.where(present.unsqueeze(-1) & present.unsqueeze(-2), NEVER)
    free, paying = (root + NEVER, root) if single_root else (root, root + NEVER)
    free = free.clamp(min=NEVER).where(present, 0)
    return torch.cat((free.unsqueeze(-1), arcs), -1), paying.clamp(min=NEVER)


def _only_root(row: Tensor) -> Tensor:
    return F.pad(torch.zeros_like(row[..., :1]), (0, row.shape[-1] - 1), value=NEVER)


def _log_sum(log: Tensor, more: Tensor) -> Tensor:
    return torch.stack((log, more.clamp(min=NEVER))).logsumexp(0)


@torch.no_grad()
def plain_k_best(scores: Tensor, present: Tensor, projective: bool, single_root: bool, k: int) -> Tensor:
    """The plain road of `k_best`, (N, k, K): each time that the best tree of a set was found, the set without it is
    split by the first word whose head is another (Lawler 1972)."""
    kind = projective, single_root
    sets = scores.double().unsqueeze(1)  # (N, sets, K, K): a set is the trees without the arcs that score -inf
    (trees, totals), found = _best(sets, present.unsqueeze(1), *kind), []
    for _ in range(k):
        total, at = totals.max(1, keepdim=True)
        none = total == -INFINITY
        best = trees.take_along_dim(at.unsqueeze(-1), 1)  # (N, 1, K)
        found.append(best.masked_fill(none.unsqueeze(-1), -1))
        split = _split(sets.take_along_dim(at[..., None, None], 1), best)
        more, its_totals = _best(split, present.unsqueeze(1), *kind)
        totals = torch.cat((totals.scatter(1, at, -INFINITY), its_totals.masked_fill(none | ~present, -INFINITY)), 1)
        sets, trees = torch.cat((sets, split), 1), torch.cat((trees, more), 1)
    return torch.cat(found, 1)


def _split(scores: Tensor, tree: Tensor) -> Tensor:
    """The set (N, 1, K, K) without its tree (N, 1, K), in K parts (N, K, K, K): in part w the words before w have the
    tree's heads, and w another."""
    words = torch.arange(tree.shape[-1], device=tree.device)
    its_own = tree.unsqueeze(-1) == words  # (N, 1, K, K)
    part, word = words[:, None, None], words[:, None]
    barred = (~its_own & (word < part)) | (its_own & (word == part))
    return scores.masked_fill(barred, -INFINITY)


def _best(scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> tuple[Tensor, Tensor]:
    """The best trees (*B, K) and their scores (*B): those that are left at a temperature near zero."""
    cold = scores * 2.0**33
    heads = _word_by_word(cold, present, projective, single_root, lambda word, chances: chances.argmax(-1))
    arcs = scores.take_along_dim(heads.clamp(min=0).unsqueeze(-1), -1).squeeze(-1)
    total = arcs.where(present, 0).sum(-1)
    return heads, total.masked_fill(((heads < 0) & present).any(-1), -INFINITY)


@torch.no_grad()
def plain_sample(scores: Tensor, present: Tensor, uniform: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The plain road of `sample`, (N, draws, K), by uniform numbers (N, draws, K or more)."""

    def drawn(word: int, chances: Tensor) -> Tensor:
        passed = chances.cumsum(-1)
        return (passed <= uniform[..., word : word + 1] * passed[..., -1:]).sum(-1)

    rows = scores.double().unsqueeze(1).expand(-1, uniform.shape[1], -1, -1)
    return _word_by_word(rows, present.unsqueeze(1), projective, single_root, drawn)


def _word_by_word(scores: Tensor, present: Tensor, projective: bool, single_root: bool, choose: Choose) -> Tensor:
    """Heads (*B, K), that of each word chosen by its chances (*B, K) given the heads of the words before it; -1 for an
    absent word, and where there is no tree."""
    present = present.expand(scores.shape[:-1])
    possible = plain_log_partition(scores, present, projective, single_root) > -INFINITY
    words, heads = torch.arange(scores.shape[-1], device=scores.device), torch.full_like(present, -1, dtype=torch.long)
    for word in range(len(words)):
        chances = plain_marginals(scores, present, projective, single_root)[..., word, :]
        head = choose(word, chances).clamp(max=len(words) - 1).unsqueeze(-1)  # (*B, 1)
        heads = torch.where(words == word, head, heads)
        other = (words == word).unsqueeze(-1) & (words != head).unsqueeze(-2)  # (*B, K, K)
        scores = scores.masked_fill(other, -INFINITY)
    return heads.masked_fill(~present | ~possible.unsqueeze(-1), -1)
