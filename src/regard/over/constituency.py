"""Constituency trees: a distribution over the spans of words that together are a binary tree."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.over.mappings import masked
from regard.over.structured import of_positions
from regard.positions import Constituency


@dataclass(frozen=True)
class constituency:
    """Binary trees over words, a constituency tree: the score of a tree z is the sum of scores_{i, j} over its spans
    from word i to word j, those of one word included, and with `labels` that of scores_{i, j, z_ij} (Stern, Andreas and
    Klein 2017, section 2; as attention, Liu et al. 2018, section 3).

    The scores are (*B, K, K), or with so many labels (*B, K, K, S); those below the diagonal are without effect, and
    -inf forbids a span. Trees of other shapes are binary ones in which a label says that a span is none. The mask is
    that of the words, (*B, K), or of the spans, (*B, K, K) or (K, K), as `padding(lengths, K)`; a word is absent if it
    leaves no span that begins or none that ends with it. As an over, the words are the queries and the keys: a word
    reads the ends of all spans that begin with it.

    `positions.log_prob(spans)` trains a parser, `positions.mode` is the best tree, `positions.mean` how probable each
    span is; an event is the table of the labels, -1 where there is no span. Time O(K^3 + K^2 S).

    Raises ValueError unless the scores are square, with the labels if there are any, and for a mask of another shape or
    one that may be of words as well as of spans, TypeError for a mask that is not bool.

    >>> scores = torch.zeros(3, 3)
    >>> scores[1, 2] = 1.0
    >>> constituency()(scores).mode
    tensor([[ 0, -1,  0],
            [-1,  0,  0],
            [-1, -1,  0]])
    """

    labels: int | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels < 1:
            raise ValueError(f"constituency expected labels of at least 1, or None, but got {self.labels}.")

    def __call__(self, scores: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None) -> Constituency:
        labelled = self.labels is not None
        if not labelled:
            scores = scores.unsqueeze(-1)
        if scores.dim() < 3 or scores.shape[-3] != scores.shape[-2] or scores.shape[-1] != (self.labels or 1):
            wanted = f"(*B, K, K, {self.labels})" if labelled else "(*B, K, K)"
            got = tuple(scores.shape if labelled else scores.shape[:-1])
            raise ValueError(f"constituency expected scores of the shape {wanted}, but got {got}.")
        spans = scores[..., 0]
        if mask is None:
            return Constituency(scores, spans.new_ones(spans.shape[:-1], dtype=torch.bool), labelled)
        if of_positions(mask, spans, "words", "spans"):
            mask = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        allowed = mask.expand(spans.shape).triu()
        return Constituency(masked(scores, allowed.unsqueeze(-1)), allowed.any(-1) & allowed.any(-2), labelled)
