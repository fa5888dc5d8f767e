"""Structured attention: distributions over runs of places, and over trees (Kim et al. 2017); `chains` has labellings.

Every one is an over, (scores, mask) -> positions. A position that the mask leaves nothing of is absent: it leaves the
structure with its rows, its columns, and the transitions that touch it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.over.mappings import masked
from regard.positions import Segments, Tree

Number = float | Float[Tensor, "..."]
Mask = Bool[Tensor, "..."] | None


class segments(nn.Module):
    """A set of places that like to come in runs: z in {0, 1}^K with the score sum_k z_k s_k + stay times the number of
    k with z_k = z_{k+1} (Kim et al. 2017, section 3.1). Time O(K) a query.

    `stay` is a number or an `nn.Parameter`, one for all or broadcasting to (*B, Q). At zero it is `sigmoid`. A masked
    place is absent: places on its two sides are no neighbours.

    Raises TypeError for a mask that is not bool, and ValueError for one that is neither of the scores' shape nor
    (Q, K), or may be the places of each row, (B, K), as well as (Q, K): those are `mask[:, None]`.

    >>> segments(stay=2.0)(torch.tensor([[3.0, -1.0, 3.0, -3.0]])).mode
    tensor([[1, 1, 1, 0]])
    """

    stay: Number

    def __init__(self, stay: Number = 1.0):
        super().__init__()
        hold(self, "stay", stay)

    def forward(self, scores: Float[Tensor, "*B Q K"], mask: Mask = None) -> Segments:
        stay = torch.as_tensor(self.stay, dtype=scores.dtype, device=scores.device).expand(scores.shape[:-1])
        if mask is None:
            return Segments(scores, stay, torch.ones_like(scores, dtype=torch.bool))
        check_places(mask, scores)
        present = mask.expand(scores.shape)
        return Segments(scores, stay, present)


@dataclass(frozen=True)
class tree:
    """A head for every word, a dependency tree: the score of a tree z is the sum of scores_{i, z_i}, where entry (i, j)
    of the scores (*B, K, K) is that of word j being the head of word i, and the diagonal that of i being a root (Kim et
    al. 2017, section 3.2; Koo et al. 2007, section 2).

    Trees are `projective`, without arcs that cross, or of any shape, and have a `single_root` or at least one. The mask
    is that of the words, (*B, K), or of the arcs, (*B, K, K) or (K, K), as `padding(lengths, K)`; a word is absent if
    it leaves nothing of its row or of its column. As an over, the words are the queries and the keys.
    `positions.log_prob(heads)` trains a parser, `positions.mode` is the best tree. Time O(K^3).

    Raises ValueError unless the scores are square, and for a mask of another shape or one that may be of words as well
    as of arcs, TypeError for a mask that is not bool.

    >>> scores = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    >>> tree()(scores).mode
    tensor([0, 0, 1])
    """

    projective: bool = True
    single_root: bool = True

    def __call__(self, scores: Float[Tensor, "*B Q K"], mask: Mask = None) -> Tree:
        if scores.shape[-1] != scores.shape[-2]:
            raise ValueError(f"tree expected scores of as many words as heads, but got {tuple(scores.shape)}.")
        if mask is None:
            return Tree(scores, scores.new_ones(scores.shape[:-1], dtype=torch.bool), self.projective, self.single_root)
        if of_positions(mask, scores, "words", "arcs"):
            mask = mask.unsqueeze(-1)
        allowed = mask.expand(scores.shape)
        return Tree(masked(scores, mask), allowed.any(-1) & allowed.any(-2), self.projective, self.single_root)


def hold(module: nn.Module, name: str, value: float | Tensor | None) -> None:
    """Keeps a number, a parameter, or a tensor, which then moves with the module."""
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        module.register_buffer(name, value)
    else:
        setattr(module, name, value)


def labelled(scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The scores (*B, T, S) without the labels that the mask forbids, and which positions (*B, T) are present."""
    if mask is None:
        return scores, torch.ones(scores.shape[:-1], dtype=torch.bool, device=scores.device)
    if of_positions(mask, scores, "positions", "labels"):
        mask = mask.unsqueeze(-1)
    return masked(scores, mask), mask.expand(scores.shape).any(-1)


def of_positions(mask: Tensor, scores: Tensor, positions: str, labels: str) -> bool:
    """Whether a mask is that of the positions, (*B, T), and not of the labels of each, (*B, T, S) or (T, S); the words
    for both are what an error says. Raises TypeError unless it is bool, and ValueError unless it is one of them."""
    check_bool(mask)
    alone, fits = mask.shape == scores.shape[:-1], _fits(mask, scores.shape)
    if alone and fits and mask.shape[0] > 1:
        raise ValueError(
            f"mask expected no two meanings, but {tuple(mask.shape)} may be the {positions} of each row as well as the "
            f"{labels} of all rows: mask[..., None] is the former, mask[None] the latter."
        )
    if not alone and not fits:
        raise ValueError(
            f"mask expected the shape of the {positions}, {tuple(scores.shape[:-1])}, or of the {labels}, "
            f"{tuple(scores.shape)}, but got {tuple(mask.shape)}."
        )
    return alone


def check_places(mask: Tensor, scores: Tensor) -> None:
    """Raises TypeError unless a mask is bool, and ValueError unless it is one of the places of each query."""
    check_bool(mask)
    of_rows = mask.shape == (*scores.shape[:-2], scores.shape[-1])
    if not _fits(mask, scores.shape):
        remedy = "; the places of each row are mask[..., None, :]" if of_rows else ""
        raise ValueError(
            f"mask expected the shape of the scores, {tuple(scores.shape)}, or (Q, K), but got "
            f"{tuple(mask.shape)}{remedy}."
        )
    if of_rows and mask.dim() < scores.dim() and mask.shape[0] > 1:
        raise ValueError(
            f"mask expected no two meanings, but {tuple(mask.shape)} may be the places of each row, (B, K), as well as "
            "those of each query, (Q, K): mask[:, None] is the former, mask[None] the latter."
        )


def check_bool(mask: Tensor, name: str = "mask", true: str = "a key may be looked at") -> None:
    """Raises TypeError unless the mask, or what is called `name`, is bool."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} expected dtype bool, True where {true}, but got {kind}.")


def _fits(mask: Tensor, scores: Sequence[int]) -> bool:
    """Whether a mask has the rank of the scores, each size theirs or one, or is such of their last two dimensions."""
    wanted = scores if mask.dim() == len(scores) else scores[-2:]
    return mask.dim() == len(wanted) and all(have in (1, size) for have, size in zip(mask.shape, wanted, strict=True))
