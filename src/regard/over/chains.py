"""A label for every position, each depending on that of its neighbours, or on how long it has stayed.

Every one is an over, as in `structured`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.over.structured import Mask, check_bool, hold, labelled
from regard.positions import Chain, SemiMarkov


class chain(nn.Module):
    """A label for every position, a linear-chain conditional random field (Lafferty et al. 2001, equation 1): the score
    of a labelling z is the sum of scores_{t, z_t}, of transitions_{z_t, z_{t+1}}, and of start and stop at its ends.

    `transitions` (S, S) from row to column, `start` (S,) and `stop` (S,) are tensors or parameters, with batch
    dimensions in front if they differ. Transitions of one dimension more than the scores, (*B, T-1, S, S), are those
    from each position to the next. -inf forbids one. The scores are (*B, T, S), the positions in the place of the
    queries and the labels in that of the keys: `positions.log_prob(labels)` trains a tagger, `positions.mode` decodes.
    The mask is that of the positions, (*B, T), or of the labels of each, (*B, T, S) or (T, S); a position of which it
    leaves no label is absent.

    `constraints` (S, S), bool, True for an allowed transition, forbid the others whatever the transitions are and
    become in training. With one row and one column more, (S+1, S+1), the last row says which labels may come first and
    the last column which may come last; `bio(labels)` gives such.

    Time O(T S^2). Raises ValueError unless transitions, start, stop and constraints have the size of the labels, for
    transitions that may be of positions as well as of rows, and for a mask of another shape or one that may be of
    positions as well as of labels, TypeError for a mask or constraints that are not bool.

    >>> positions = chain(torch.tensor([[0.0, -9.0], [-9.0, 0.0]]))(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.5]]))
    >>> positions.mode
    tensor([0, 0, 0])
    """

    transitions: Tensor
    start: Tensor | None
    stop: Tensor | None
    constraints: Tensor | None

    def __init__(
        self,
        transitions: Tensor,
        start: Tensor | None = None,
        stop: Tensor | None = None,
        constraints: Bool[Tensor, "R R"] | None = None,
    ):
        super().__init__()
        if constraints is not None:
            check_bool(constraints, "constraints", "a label may follow another")
        given = ("transitions", transitions), ("start", start), ("stop", stop), ("constraints", constraints)
        for name, value in given:
            hold(self, name, value)

    def forward(self, scores: Float[Tensor, "*B T S"], mask: Mask = None) -> Chain:
        check_labels(self, scores)
        given = self.transitions, self.start, self.stop
        transitions, start, stop = given if self.constraints is None else constrained(*given, self.constraints)
        steps = of_each("transitions", transitions, scores, max(scores.shape[-2] - 1, 0))
        scores, present = labelled(scores, mask)
        scores = with_ends(scores, present, start, stop)
        return Chain(scores, transitions.expand(*scores.shape[:-2], *steps, -1, -1), present)


class semi_markov(nn.Module):
    """A chain whose runs of one label have at most `max_width` positions, and a score by their length (Sarawagi and
    Cohen 2004): a segmentation into labelled spans.

    `transitions` (S, S) between spans of different labels, its diagonal without effect, `durations` (max_width, S) the
    score of a span of 1 ... max_width positions, zero by default, `start` and `stop` (S,) as for `chain`. The scores
    are (*B, T, S), those of a span the sum over its positions; the mask is as for `chain`. Time O(T S (S + max_width)).

    Scores of whole spans, by where they begin, their width and their label, are durations of one dimension more than
    the scores, (*B, T, max_width, S); with scores of zero they are all that counts. Positions of one label in
    succession are one span: labels of which two may stand side by side are written as two.

    Raises ValueError if max_width is below one, or transitions, durations, start or stop have other sizes, for
    durations that may be of positions as well as of rows, and for masks as `chain` does.

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
        batch, places = scores.shape[:-2], of_each("durations", durations, scores, scores.shape[-2])
        durations = durations.expand(*batch, *places, -1, -1)
        return SemiMarkov(scores, self.transitions.expand(*batch, -1, -1), durations, present)

    def extra_repr(self) -> str:
        return f"max_width={self.max_width}"


def constrained(
    transitions: Tensor, start: Tensor | None, stop: Tensor | None, allowed: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same with -inf where it is not allowed, by (S, S), or (S+1, S+1) with what may come first and last."""
    labels = transitions.shape[-1]
    transitions = transitions.masked_fill(~allowed[:labels, :labels], -torch.inf)
    if len(allowed) == labels:
        return transitions, start, stop
    first, last = allowed[labels, :labels], allowed[:labels, labels]
    start, stop = (transitions.new_zeros(labels) if each is None else each for each in (start, stop))
    return transitions, start.masked_fill(~first, -torch.inf), stop.masked_fill(~last, -torch.inf)


def bio(labels: Sequence[str]) -> Bool[Tensor, "R R"]:
    """The constraints of a `chain` over labels of spans: B-KIND at the first word of a span of a kind, I-KIND at its
    others, O outside of all (Ramshaw and Marcus 1995). I-KIND comes after B-KIND or I-KIND alone, and never first.

    Shape (S+1, S+1): the last row is what may come first, the last column what may come last.

    Raises ValueError for a label of another form.

    >>> bio(["O", "B-NP", "I-NP"]).int()
    tensor([[1, 1, 0, 1],
            [1, 1, 1, 1],
            [1, 1, 1, 1],
            [1, 1, 0, 1]], dtype=torch.int32)
    """
    for label in labels:
        if label != "O" and (label[:2] not in ("B-", "I-") or len(label) == 2):
            raise ValueError(f"labels expected O, or B- or I- and a kind, but got {label!r}.")
    outside = [*labels, "O"]
    return torch.tensor([[_follows(before, after) for after in outside] for before in outside])


def _follows(before: str, after: str) -> bool:
    return not after.startswith("I-") or (before != "O" and before[2:] == after[2:])


def of_each(name: str, value: Tensor, scores: Tensor, count: int) -> tuple[int, ...]:
    """The `count`, if the value is of each of so many places of the scores, with a dimension more than they have; else
    nothing. Raises ValueError if it has another number of them, and if that may be a number of rows as well."""
    if value.dim() > scores.dim():
        if value.shape[-3] not in (1, count):
            raise ValueError(
                f"{name} expected {count} matrices, one for each place where they count, for scores "
                f"{tuple(scores.shape)}, but got {tuple(value.shape)}."
            )
        return (count,)
    if 3 < value.dim() == scores.dim() and value.shape[-3] == count == scores.shape[-3] and count > 1:
        raise ValueError(
            f"{name} expected no two meanings, but {tuple(value.shape)} may be those of each position as well as those "
            f"of each row: {name}[None] is the former, {name}.unsqueeze(-3) the latter."
        )
    return ()


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
    allowed = getattr(module, "constraints", None)
    if allowed is not None and allowed.shape not in ((labels, labels), (labels + 1, labels + 1)):
        raise ValueError(
            f"constraints expected the shape ({labels}, {labels}), or one more of both for what comes first and last, "
            f"for scores {tuple(scores.shape)}, but got {tuple(allowed.shape)}."
        )
