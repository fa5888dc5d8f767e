"""Structured attention: distributions over labellings of a sequence, and over trees (Kim et al. 2017).

Every one is an over, (scores, mask) -> positions. A position that the mask leaves nothing of is absent: it leaves the
structure with its rows, its columns, and the transitions that touch it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.over.mappings import masked
from regard.positions import Chain, Segments, SemiMarkov, Tree

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


class chain(nn.Module):
    """A label for every position, a linear-chain conditional random field (Lafferty et al. 2001, equation 1): the score
    of a labelling z is the sum of scores_{t, z_t}, of transitions_{z_t, z_{t+1}}, and of start and stop at its ends.

    `transitions` (S, S) from row to column, `start` (S,) and `stop` (S,) are tensors or parameters, with batch
    dimensions in front if they differ. -inf forbids one. The scores are (*B, T, S), the positions in the place of the
    queries and the labels in that of the keys: `positions.log_prob(labels)` trains a tagger, `positions.mode` decodes.
    The mask is that of the positions, (*B, T), or of the labels of each, (*B, T, S) or (T, S); a position of which it
    leaves no label is absent.

    Time O(T S^2). Raises ValueError unless transitions, start and stop have the size of the labels, and for a mask of
    another shape or one that may be of positions as well as of labels, TypeError for a mask that is not bool.

    >>> positions = chain(torch.tensor([[0.0, -9.0], [-9.0, 0.0]]))(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.5]]))
    >>> positions.mode
    tensor([0, 0, 0])
    """

    transitions: Tensor
    start: Tensor | None
    stop: Tensor | None

    def __init__(self, transitions: Tensor, start: Tensor | None = None, stop: Tensor | None = None):
        super().__init__()
        for name, value in (("transitions", transitions), ("start", start), ("stop", stop)):
            hold(self, name, value)

    def forward(self, scores: Float[Tensor, "*B T S"], mask: Mask = None) -> Chain:
        check_labels(self, scores)
        scores, present = labelled(scores, mask)
        scores = with_ends(scores, present, self.start, self.stop)
        return Chain(scores, self.transitions.expand(*scores.shape[:-2], -1, -1), present)


class semi_markov(nn.Module):
    """A chain whose runs of one label have at most `max_width` positions, and a score by their length (Sarawagi and
    Cohen 2004): a segmentation into labelled spans.

    `transitions` (S, S) between spans of different labels, its diagonal without effect, `durations` (max_width, S) the
    score of a span of 1 ... max_width positions, zero by default, `start` and `stop` (S,) as for `chain`. The scores
    are (*B, T, S), those of a span the sum over its positions; the mask is as for `chain`. Time O(T S (S + max_width)).

    Raises ValueError if max_width is below one, or transitions, durations, start or stop have other sizes, and for
    masks as `chain` does.

    >>> spans = semi_markov(max_width=2, transitions=torch.zeros(2, 2))
    >>> spans(torch.tensor([[9.5, 0.0], [9.0, 0.0], [8.0, 0.0]])).k_best(2)
    tensor([[0, 0, 1],
            [0, 1, 0]])
    """

    transitions: Tensor
    durations: Tensor | None
    start: Tensor | None
    stop: Tensor | None

    def __init__(
        self,
        max_width: int,
        transitions: Tensor,
        durations: Tensor | None = None,
        start: Tensor | None = None,
        stop: Tensor | None = None,
    ):
        super().__init__()
        if max_width < 1:
            raise ValueError(f"semi_markov expected max_width of at least 1, but got {max_width}.")
        self.max_width = max_width
        for name, value in (("transitions", transitions), ("durations", durations), ("start", start), ("stop", stop)):
            hold(self, name, value)
        if durations is not None and durations.shape[-2:-1] != (max_width,):
            raise ValueError(f"durations expected the shape ({max_width}, S), but got {tuple(durations.shape)}.")

    def forward(self, scores: Float[Tensor, "*B T S"], mask: Mask = None) -> SemiMarkov:
        check_labels(self, scores)
        scores, present = labelled(scores, mask)
        scores = with_ends(scores, present, self.start, self.stop)
        durations = scores.new_zeros(self.max_width, scores.shape[-1]) if self.durations is None else self.durations
        batch = scores.shape[:-2]
        return SemiMarkov(scores, self.transitions.expand(*batch, -1, -1), durations.expand(*batch, -1, -1), present)

    def extra_repr(self) -> str:
        return f"max_width={self.max_width}"


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


def hold(module: nn.Module, name: str, value: Number | None) -> None:
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


def check_bool(mask: Tensor) -> None:
    """Raises TypeError unless the mask is bool."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask expected dtype bool, True where a key may be looked at, but got {kind}.")


def _fits(mask: Tensor, scores: Sequence[int]) -> bool:
    """Whether a mask has the rank of the scores, each size theirs or one, or is such of their last two dimensions."""
    wanted = scores if mask.dim() == len(scores) else scores[-2:]
    return mask.dim() == len(wanted) and all(have in (1, size) for have, size in zip(mask.shape, wanted, strict=True))


def with_ends(scores: Tensor, present: Tensor, start: Tensor | None, stop: Tensor | None) -> Tensor:
    """The scores with those of the first and of the last present position added there."""
    if start is None and stop is None:
        return scores
    count = present.cumsum(-1)
    first, last = present & (count == 1), present & (count == count[..., -1:])
    for where, ends in ((first, start), (last, stop)):
        if ends is not None:
            scores = scores + ends.unsqueeze(-2).where(where.unsqueeze(-1), 0)
    return scores


def check_labels(module: nn.Module, scores: Tensor) -> None:
    """Raises ValueError unless all that the module holds has the number of labels."""
    labels = scores.shape[-1]
    for name in ("transitions", "durations", "start", "stop"):
        value = getattr(module, name, None)
        sizes = (labels, labels) if name == "transitions" else (labels,)
        if value is not None and value.shape[-len(sizes) :] != sizes:
            raise ValueError(
                f"{name} expected {sizes} as the last sizes for scores {tuple(scores.shape)}, but got "
                f"{tuple(value.shape)}."
            )
