"""Binary trees over the words of a sentence: the sum over all of them, and its gradient, the best ones, and draws.

The score of a tree is the sum of those of its spans, each by its first and its last word: 2 K - 1 spans of K words,
which are the words themselves, all words together, and each other span with the two that it consists of.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms.ctc import closing
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import INFINITY, take

Parts = tuple[Tensor, ...]
"""Where spans are split, and which of the best trees of their parts these are."""


def of_spans(scores: Float[Tensor, "*B K K S"]) -> Float[Tensor, "*B K K"]:
    """The logarithm of the sum of exp(scores) over the labels of each span; what is below the diagonal is none.

    >>> of_spans(torch.zeros(2, 2, 4)).exp().triu()
    tensor([[4., 4.],
            [0., 4.]])
    """
    return (find_road((of_spans,), scores) or plain_of_spans)(scores)


def log_partition(scores: Float[Tensor, "*B K K"], present: Bool[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
    """log sum_z exp(sum of the scores of the spans of z), over all binary trees z of the words that are present; -inf
    where there is none. By the inside algorithm (Baker 1979), in time O(K^3).

    >>> log_partition(torch.zeros(4, 4), torch.ones(4, dtype=torch.bool)).exp()
    tensor(5.)
    """
    return (find_road((log_partition,), scores, present) or plain_log_partition)(scores, present)


def marginals(scores: Float[Tensor, "*B K K"], present: Bool[Tensor, "*B K"]) -> Float[Tensor, "*B K K"]:
    """The gradient of `log_partition` in the scores: how probable each span is; O(K^3).

    >>> marginals(torch.zeros(3, 3), torch.ones(3, dtype=torch.bool))
    tensor([[1.0000, 0.5000, 1.0000],
            [0.0000, 1.0000, 0.5000],
            [0.0000, 0.0000, 1.0000]])
    """
    return (find_road((marginals,), scores, present) or plain_marginals)(scores, present)


def k_best(scores: Float[Tensor, "*B K K S"], present: Bool[Tensor, "*B K"], k: int) -> Int[Tensor, "k *B K K"]:
    """The labels of the spans of the k trees with the highest scores, the best first, -1 for what is no span of it, and
    throughout where there are fewer trees. Time O(K^3 k log k) (Huang and Chiang 2005, algorithm 0).

    >>> k_best(torch.tensor([[[0.0, 2.0], [1.0, 0.0]], [[0.0, 0.0], [3.0, 0.0]]]), torch.ones(2, dtype=torch.bool), 1)
    tensor([[[ 1,  0],
             [-1,  0]]])
    """
    rows, present_rows = flat(scores, present)
    many = min(k, scores.shape[-1]) > 1
    values, indices = rows.topk(min(k, scores.shape[-1]), -1) if many else rows.max(-1, keepdim=True)
    given = values, present_rows, k
    ranks = (find_road((k_best,), *given) or plain_k_best)(*given)  # (N, k, K, K)
    labels = take(indices.unsqueeze(1), ranks.clamp(min=0).unsqueeze(-1), -1).squeeze(-1)
    return labels.where(ranks >= 0, -1).movedim(1, 0).reshape(k, *present.shape, present.shape[-1])


def sample(
    scores: Float[Tensor, "*B K K"], present: Bool[Tensor, "*B K"], shape: torch.Size
) -> Bool[Tensor, "*SB K K"]:
    """Which spans are those of trees that are drawn in proportion to the exponential of their scores, from the whole
    sentence down to its words. Time O(K^3) a row and O(K^2) a draw.

    >>> sample(torch.zeros(2, 2), torch.ones(2, dtype=torch.bool), torch.Size())
    tensor([[ True,  True],
            [False,  True]])
    """
    rows, present_rows = flat(scores.unsqueeze(-1), present)
    noise = torch.rand(len(rows), shape.numel(), present.shape[-1], dtype=torch.float64, device=scores.device)
    given = rows.squeeze(-1), present_rows, noise
    found = (find_road((sample,), *given) or plain_sample)(*given)
    return found.movedim(1, 0).reshape(*shape, *present.shape, present.shape[-1])


def flat(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The same with all batch dimensions as one."""
    rows = present.shape[:-1].numel()
    return scores.reshape(rows, *scores.shape[-3:]), present.reshape(rows, present.shape[-1])


def plain_of_spans(scores: Tensor) -> Tensor:
    """The plain road of `of_spans`."""
    sums = scores.clamp(min=NEVER).logsumexp(-1)
    return sums.masked_fill(sums < NEVER / 2, -INFINITY)


def plain_log_partition(scores: Tensor, present: Tensor) -> Tensor:
    """The plain road, in log space and float64."""
    if scores.shape[-1] == 0:
        return scores.sum((-1, -2))
    left, _ = _inside(_closed(scores, present))
    whole = F.pad(left[..., 0, :], (1, 0))  # that of no word is one
    log_z = whole.gather(-1, present.sum(-1, keepdim=True)).logsumexp(-1)  # so that its gradient has one, if zero
    return log_z.masked_fill(log_z < NEVER / 2, -INFINITY).to(scores.dtype)


def plain_marginals(scores: Tensor, present: Tensor) -> Tensor:
    """The plain road: the gradient by automatic differentiation."""
    return torch.func.grad(lambda scores: plain_log_partition(scores, present).sum())(scores)


@torch.no_grad()
def plain_k_best(ranked: Tensor, present: Tensor, k: int) -> Tensor:
    """The plain road of `k_best`, (N, k, K, K): which of the labels of each span, (N, K, K, R) with the best first."""
    left, plans = _k_inside(_closed(ranked, present), k)
    whole = torch.cat((_nothing(left, k), left[:, 0]), 1) if present.shape[-1] else _nothing(left, k)
    total = take(whole, present.sum(-1)[:, None, None], 1).squeeze(1)  # (N, k)
    order = torch.arange(k, device=left.device).where(total > NEVER / 2, -1)

    def planned(width: int, ranks: Tensor) -> tuple[Tensor, ...]:
        return tuple(take(each, ranks.clamp(min=0).mT, -1).mT for each in plans[width])  # (N, k, count)

    ranks = _descended(order, present, lambda width, ranks: planned(width, ranks)[:3])
    labels = ranks.clone()  # those of words are in the order of their scores
    for width in range(1, present.shape[-1]):
        labels.diagonal(width, -2, -1).copy_(planned(width, ranks.diagonal(width, -2, -1))[3])
    return _opened(labels.where(ranks >= 0, -1), present)


@torch.no_grad()
def plain_sample(scores: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """The plain road of `sample`, (N, draws, K, K), by uniform noise (N, draws, K), a number for every split, in the
    order of the spans, from the widest to the narrowest and from left to right."""
    left, right = _inside(_closed(scores, present)) if present.shape[-1] else (scores, scores)
    whole = F.pad(left[..., 0, :], (1, 0)) if present.shape[-1] else scores.new_zeros(len(scores), 1)
    possible = whole.gather(-1, present.sum(-1, keepdim=True)) > NEVER / 2
    order = torch.zeros(noise.shape[:2], dtype=torch.long, device=scores.device).where(possible, -1)
    used = torch.zeros_like(order)

    def choose(width: int, ranks: Tensor) -> Parts:
        nonlocal used
        passed = _splits(left, right, width).softmax(-1).cumsum(-1).unsqueeze(1)  # (N, 1, count, width)
        numbers = used.unsqueeze(-1) + (ranks >= 0).cumsum(-1)  # (N, draws, count)
        used = numbers[..., -1]
        uniform = noise.gather(-1, (numbers - 1).clamp(min=0)).unsqueeze(-1)
        split = (passed <= uniform * passed[..., -1:]).sum(-1).clamp(max=width - 1)
        return split, torch.zeros_like(split), torch.zeros_like(split)

    return _opened(_descended(order, present, choose), present) >= 0


def _inside(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of the sums over the trees of spans, (*B, K, W) by the first word and how many words follow it,
    and by the last word and how many are before it."""
    left = right = scores.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    for width in range(1, scores.shape[-1]):
        spans = _splits(left, right, width).logsumexp(-1) + scores.diagonal(width, -2, -1)
        left, right = _grown(left, spans, (0, width)), _grown(right, spans, (width, 0))
    return left, right


def _splits(left: Tensor, right: Tensor, width: int) -> Tensor:
    """The sums over both parts of each span, (*B, K - width, width), by how many words follow the first in the one."""
    return left[..., : left.shape[-2] - width, :width] + right[..., width:, :width].flip(-1)


def _grown(chart: Tensor, spans: Tensor, where: tuple[int, int]) -> Tensor:
    return torch.cat((chart, F.pad(spans, where, value=NEVER).unsqueeze(-1)), -1)


def _k_inside(scores: Tensor, k: int) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The scores of the k best trees of spans, (N, K, W, k) as by `_inside`, and for each width how they were made,
    (N, K - width, k): where they are split, which of the k their parts are, and the label."""
    leaves = scores.diagonal(dim1=1, dim2=2).mT  # (N, K, R)
    left = right = _padded(leaves, k).unsqueeze(-2)
    plans: list[tuple[Tensor, ...]] = [()]
    for width in range(1, scores.shape[1]):
        one = left[:, : left.shape[1] - width, :width].unsqueeze(-1)
        other = right[:, width:, :width].flip(-2).unsqueeze(-2)
        pairs, at = _top((one + other).flatten(-3), k)
        labelled = pairs.unsqueeze(-1) + scores.diagonal(width, 1, 2).mT.unsqueeze(-2)  # (N, count, k, R)
        spans, which = _top(labelled.flatten(-2), k)
        at = at.gather(-1, which // scores.shape[-1])
        plans.append((at // k**2, at // k % k, at % k, which % scores.shape[-1]))
        left = torch.cat((left, F.pad(spans, (0, 0, 0, width), value=NEVER).unsqueeze(-2)), -2)
        right = torch.cat((right, F.pad(spans, (0, 0, width, 0), value=NEVER).unsqueeze(-2)), -2)
    return left, plans


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best = scores.topk(min(k, scores.shape[-1]), -1)
    return _padded(best.values, k), F.pad(best.indices, (0, k - best.indices.shape[-1]))


def _padded(scores: Tensor, k: int) -> Tensor:
    return F.pad(scores, (0, k - scores.shape[-1]), value=NEVER)


def _nothing(chart: Tensor, k: int) -> Tensor:
    """The scores (N, 1, k) of the trees of no words, of which there is one."""
    found = chart.new_full((len(chart), 1, k), NEVER)
    found[..., 0] = 0
    return found


def _descended(order: Tensor, present: Tensor, choose: Callable[[int, Tensor], Parts]) -> Tensor:
    """The spans of trees (N, k, K, K) of the first words, and -1: for each which of its best trees it is, beginning
    with `order` (N, k) for the whole. `choose` says of the spans of a width (N, k, count) how they are split."""
    (rows, words), k = present.shape, order.shape[1]
    cells = order.new_full((rows, k, words * words + 1), -1)  # the last is nowhere
    last = present.sum(-1)[:, None, None].expand(-1, k, 1) - 1
    cells = cells.scatter(-1, last.where(last >= 0, words * words), order.unsqueeze(-1))
    for width in range(words - 1, 0, -1):
        first = torch.arange(words - width, device=order.device)
        ranks = cells[..., first * words + first + width]
        split, one, other = choose(width, ranks)
        inner = torch.cat((first * words + first + split, (first + split + 1) * words + first + width), -1)
        inner = inner.where((ranks >= 0).repeat(1, 1, 2), words * words)
        cells = cells.scatter(-1, inner, torch.cat((one, other), -1))
    return cells[..., :-1].unflatten(-1, (words, words))


def _closed(scores: Tensor, present: Tensor) -> Tensor:
    """The scores, (*B, K, K) or with labels, of the words that are present, and then of the rest; in float64."""
    order, beside = closing(present), (None,) * (scores.dim() - present.dim() - 1)
    scores = scores.double().clamp(min=NEVER)
    rows, columns = order[(..., None, *beside)], order[(..., None, slice(None), *beside)]
    return take(take(scores, rows, present.dim() - 1), columns, present.dim())


def _opened(spans: Tensor, present: Tensor) -> Tensor:
    """The spans (N, k, K, K) of the words where they were, -1 beside them."""
    where = (present.cumsum(-1) - 1).clamp(min=0).unsqueeze(1)
    spans = take(take(spans, where.unsqueeze(-1), -2), where.unsqueeze(-2), -1)
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    return spans.where(both.unsqueeze(1), -1)
