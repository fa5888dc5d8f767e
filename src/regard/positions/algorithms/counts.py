"""How many of K independent places are chosen: the Poisson binomial distribution, by a balanced tree of sums.

A leaf of the tree is one place, its parent the sum of two leaves, and so on to the root, the sum of all. A node holds
the probabilities that 0, 1, ..., most of its places are chosen. A parent's are the products of its children's
polynomials, cut off after `most`: log2 K batched steps, O(K most) time and memory in all.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.positions.base import gumbel_like, take

HALVINGS = 16
"""How often `balance` halves its bracket, log(2 K count) wide: what is left is far below the spread of any count."""


def count_tree(absent: Float[Tensor, "*B K"], present: Float[Tensor, "*B K"], most: int) -> list[Tensor]:
    """The levels of the tree, leaves first, each (*B, nodes, counts), of places absent and present with these chances.

    The leaves are filled up with places that are never chosen, to a power of two.
    """
    places = present.shape[-1]
    lacking = (1 << (places - 1).bit_length()) - places
    levels = [torch.stack((F.pad(absent, (0, lacking), value=1.0), F.pad(present, (0, lacking))), -1)]
    while levels[-1].shape[-2] > 1:
        levels.append(_joint(levels[-1], most).sum(-1))
    return levels


def leaf_expectations(levels: list[Tensor], wanted: Float[Tensor, "*B counts"]) -> Float[Tensor, "*B leaves 2"]:
    """The mean of a function of the total count, given that a leaf's own place is not, or is, chosen.

    `wanted` holds the function's value for each count of the root; it is zero for larger ones. One pass down the tree:
    f_left(c) = sum_b f_parent(c + b) p_right(b).
    """
    expected = wanted.unsqueeze(-2)
    for level in reversed(levels[:-1]):
        counts = level.shape[-1]
        sums = F.pad(expected, (0, 2 * counts - 1 - expected.shape[-1])).unfold(-1, counts, 1)  # (*B, parents, c, b)
        siblings = level.unflatten(-2, (-1, 2)).flip(-2)
        expected = (sums.unsqueeze(-3) * siblings.unsqueeze(-2)).sum(-1).flatten(-3, -2)  # (*B, nodes, counts)
    return expected


def sample_leaves(levels: list[Tensor], total: Int[Tensor, "*SB"], most: int) -> Int[Tensor, "*SB leaves"]:
    """Draws which leaves are chosen, given how many are: from the root down, each node splits its count in two."""
    count = total.unsqueeze(-1)
    for level in reversed(levels[:-1]):
        last = level.shape[-1] - 1
        split = take(_joint(level, most), count[..., None, None], -2).squeeze(-2)  # (*S, *B, parents, last - left)
        left = last - (split.log() + gumbel_like(split)).argmax(-1)
        left = left.clamp(min=count - last).minimum(count)  # only NaN would split otherwise
        count = torch.stack((left, count - left), -1).flatten(-2)  # (*S, *B, nodes)
    return count


def balance(
    scores: Float[Tensor, "*B K"], count: Int[Tensor, "*B"], most: int, chance: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*B 1"]:
    """What to add to the scores so that the chances of the places, chance(score), sum to the count (at most `most`).

    By bisection, and without a gradient. `chance` rises from zero to one, is at most exp(score), and at a score of
    log(2 count) is at least 1 - 1 / (2 count): with s the score of rank `count`, the chances then sum to no more than
    the count at a shift of -s - log K, and at -s + log(2 count) to no less than the count minus a half.
    """
    with torch.no_grad():
        places, count = scores.shape[-1], count.unsqueeze(-1)
        best = scores.topk(min(most, places)).values
        weakest = best.gather(-1, (count - 1).clamp(min=0)).masked_fill(count == 0, 0)
        low = -weakest - math.log(places)
        high = -weakest + (2 * count).clamp(min=1).to(scores.dtype).log()
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            few = chance(scores + middle).sum(-1, keepdim=True) < count
            low, high = torch.where(few, middle, low), torch.where(few, high, middle)
        return (low + high) / 2


def _joint(level: Tensor, most: int) -> Tensor:
    """The probability (*B, parents, sum, last - left) of each sum of two children and of the left one's count."""
    left, right = level.unflatten(-2, (-1, 2)).unbind(-2)
    counts = level.shape[-1]
    sums = min(2 * (counts - 1), most) + 1
    shifted = F.pad(right, (counts - 1, sums - counts)).unfold(-1, counts, 1)  # right[sum - left], left descending
    return shifted * left.flip(-1).unsqueeze(-2)
