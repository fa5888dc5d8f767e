"""Alignments of frames with a sequence of labels that is given: a distribution over all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from regard.over.structured import check_bool, labelled, of_positions
from regard.positions import CTC, RNNT, ForcedAlignment
from regard.positions.algorithms.ctc import closed
from regard.positions.structure import may_be_read


class ctc(nn.Module):
    """A label for every frame, so that together they say the targets once runs of one label are made one and blanks
    are left out: connectionist temporal classification (Graves et al. 2006, equation 3).

    The scores are (*B, T, S), the frames in the place of the queries and the labels in that of the keys. Where they are
    log-probabilities, `-positions.log_z` is the loss of CTC, and log_z = log sum_z exp(sum_t scores_{t, z_t}) over all
    paths z that say the targets; `mean` aligns softly, `mode` is the best alignment. `targets` are labels, (*B, L) or
    (L,) for all rows, in which -1 is none, such as padding: `targets.where(rg.padding(lengths, L).squeeze(-2), -1)`.
    The mask is that of the frames, (*B, T), or of the labels of each, (*B, T, S) or (T, S); a frame of which it leaves
    no label is left out. Time O(T L), and O(T S) for what is as large as the scores.

    Targets that need more frames than there are have a `log_z` of -inf and gradients of zero: one for each label, and
    one more for a blank between two that are the same. Empty targets say that all frames are blank.

    Raises TypeError for targets that are not integers, and ValueError for a label, or a blank, that the scores lack,
    for a label that is the blank, for targets of another batch, and for masks as `chain` does.

    >>> log_probs = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.8, 0.2]]).log()
    >>> positions = ctc([1, 1])(log_probs)
    >>> positions.mode, positions.log_z.exp()
    (tensor([1, 0, 1]), tensor(0.0400))
    """

    targets: Tensor

    def __init__(self, targets: Integer[Tensor, "*B L"] | Sequence[int], blank: int = 0):
        super().__init__()
        self.register_buffer("targets", integers(targets), persistent=False)
        self.blank = blank

    def forward(self, scores: Float[Tensor, "*B T S"], mask: Bool[Tensor, "..."] | None = None) -> CTC:
        check_targets(self.targets, self.blank, scores.shape[:-2], scores.shape[-1])
        scores, present = labelled(scores, mask)
        targets = self.targets.to(scores.device).expand(*scores.shape[:-2], -1)
        return CTC(scores, targets, present, self.blank)

    def extra_repr(self) -> str:
        return f"targets={tuple(self.targets.shape)}, blank={self.blank}"


class rnnt(nn.Module):
    """A frame for every label of the targets, none earlier than that of the label before: the recurrent neural network
    transducer (Graves 2012, "Sequence Transduction with Recurrent Neural Networks", section 2.4).

    The scores are (*B, T, L+1, S), of every label at frame t after the first u of the L targets, as a joint network
    makes them of frames and of what was said. Where they are log-probabilities, `-positions.log_z` is the loss,
    log_z = log sum_z exp(score(z)) over all alignments; `mean` (*B, L, T) is where each label is said. `targets` are
    as for `ctc`; the mask is that of the frames, (*B, T), those that it forbids are left out.

    Any number of labels may be said at one frame, so that targets fit unless there is no frame; then `log_z` is -inf,
    and gradients are zero. Empty targets are said by a blank at every frame. Time O((T + L) L^2).

    Raises TypeError and ValueError as `ctc` does, and ValueError unless the scores have a place for each number of
    targets from none to all, or for a mask of another shape.

    >>> positions = rnnt([1])(torch.tensor([0.25, 0.75]).log().expand(3, 2, 2))
    >>> positions.log_z.exp(), positions.mean
    (tensor(0.0352), tensor([[0.3333, 0.3333, 0.3333]]))
    """

    targets: Tensor

    def __init__(self, targets: Integer[Tensor, "*B L"] | Sequence[int], blank: int = 0):
        super().__init__()
        self.register_buffer("targets", integers(targets), persistent=False)
        self.blank = blank

    def forward(self, scores: Float[Tensor, "*B T U S"], mask: Bool[Tensor, "*B T"] | None = None) -> RNNT:
        batch, count = scores.shape[:-3], self.targets.shape[-1]
        check_targets(self.targets, self.blank, batch, scores.shape[-1])
        if scores.shape[-2] != count + 1:
            raise ValueError(
                f"scores expected {count + 1} places for the targets, one more than there are, but got "
                f"{tuple(scores.shape)}."
            )
        if mask is None:
            mask = torch.ones(scores.shape[:-2], dtype=torch.bool, device=scores.device)
        check_bool(mask)
        if mask.shape != scores.shape[:-2]:
            raise ValueError(
                f"mask expected the shape of the frames, {tuple(scores.shape[:-2])}, but got {tuple(mask.shape)}."
            )
        return RNNT(scores, self.targets.to(scores.device).expand(*batch, -1), mask, self.blank)

    def extra_repr(self) -> str:
        return f"targets={tuple(self.targets.shape)}, blank={self.blank}"


def forced_alignment(scores: Float[Tensor, "*B T K"], mask: Bool[Tensor, "..."] | None = None) -> ForcedAlignment:
    """A place for every frame, in the order of the places and at least one frame in each: the alignment of a recording
    with what is known to be said in it, or of speech with its text (Kim et al. 2020, "Glow-TTS", section 3.2, whose
    monotonic alignment search is `mode`; Rabiner 1989, section VI, left-to-right models).

    The frames stand in the place of the queries: p(z) is proportional to exp(sum_t scores_{t, z_t}) over all paths z
    from the first place to the last, by none or one from frame to frame. `log_z` is the log-likelihood where the scores
    are log-probabilities of frames, and `mean` aligns softly. The mask is that of the frames, (*B, T), or of the places
    of each, (*B, T, K) or (T, K), such as `padding(lengths, K)`: what is absent is left out. Time O(T K).

    With fewer frames than places there is no path: `log_z` is -inf and gradients are zero.

    Raises TypeError and ValueError for masks as `chain` does.

    >>> positions = forced_alignment(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0]]))
    >>> positions.mode
    tensor([0, 0, 0, 1])
    """
    places = scores.shape[-1]
    there = torch.ones((*scores.shape[:-2], places), dtype=torch.bool, device=scores.device)
    if mask is not None and not of_positions(mask, scores, "frames", "places"):
        there = mask.expand(scores.shape).any(-2)
    scores, present = labelled(scores, mask)
    turns = torch.arange(places, device=scores.device).where(there, -1)
    return ForcedAlignment(scores, closed(turns, there), present, places)


def integers(targets: Tensor | Sequence[int]) -> Tensor:
    """The targets with -1 after the last of each row. Raises TypeError unless they are integers."""
    targets = torch.as_tensor(targets)
    if targets.numel() and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise TypeError(f"targets expected integers, the labels that are said, but got {targets.dtype}.")
    return closed(targets.long(), targets >= 0)


def check_targets(targets: Tensor, blank: int, batch: Sequence[int], labels: int) -> None:
    """Raises ValueError unless the targets are those of so many rows and labels."""
    if not 0 <= blank < labels:
        raise ValueError(f"blank expected one of the {labels} labels, counted from 0, but got {blank}.")
    theirs = targets.shape[:-1]
    if theirs and (len(theirs) > len(batch) or any(a not in (1, b) for a, b in zip(theirs[::-1], batch[::-1]))):  # noqa: B905
        raise ValueError(f"targets expected the batch of the scores, {tuple(batch)}, but got {tuple(theirs)}.")
    if may_be_read(targets):
        wrong = (targets < -1) | (targets >= labels) | (targets == blank)
        if wrong.any():
            raise ValueError(
                f"targets expected labels from 0 to {labels - 1} without the blank {blank}, or -1 for none, "
                f"but got {targets[wrong][0]}."
            )
