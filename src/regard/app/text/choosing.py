"""What is shared by networks that choose words: how words are scored, and how well a choice agrees with people's."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import regard as rg
from regard.app import explaining
from regard.app.explaining import Explained


class Neighbours(nn.Module):
    """A score of each word by itself and the `reach` words on either side, w . tanh(W [x_-r ... x_r] + b): too little
    of a text to know what it is labelled.

    >>> words = torch.randn(2, 9, 5)
    >>> Neighbours(size=5, units=3, reach=2)(words).shape
    torch.Size([2, 9])
    """

    def __init__(self, size: int, units: int, reach: int):
        super().__init__()
        self.window = nn.Conv1d(size, units, 2 * reach + 1, padding=reach)
        self.energy = nn.Linear(units, 1, bias=False)

    def forward(self, words: Float[Tensor, "B K D"]) -> Float[Tensor, "B K"]:
        return self.energy(self.window(words.mT).tanh().mT).squeeze(-1)


class spread(nn.Module):
    """An over of scores that are brought to a mean of zero and a standard deviation of `width` in each text: they can
    neither grow until nothing is left to chance, nor shrink until everything is.

    >>> import regard
    >>> spread(regard.sigmoid, width=2.0)(torch.tensor([[0.0, 0.3]])).scores
    tensor([[-2.0000,  2.0000]])
    """

    def __init__(self, over: Any, width: float):
        super().__init__()
        self.over, self.width = over, width

    def forward(self, scores: Float[Tensor, "*B Q K"], mask: Bool[Tensor, "*B Q K"] | None = None) -> Any:
        present = torch.ones_like(scores) if mask is None else mask.to(scores.dtype)
        count = present.sum(-1, keepdim=True).clamp(min=1)
        apart = (scores - (scores * present).sum(-1, keepdim=True) / count) * present
        variance = apart.square().sum(-1, keepdim=True) / count
        return self.over(self.width * apart * (variance + SMALL).rsqrt(), mask)


MOST = 1_000_000
"""The k of a subset that has as many places as there is room for."""
SMALL = 1e-8
"""A variance far below any that counts."""
NOTHING = 0.005
"""A share of the words that is as good as none."""


def contributions(
    weight: Float[Tensor, "C D"], vectors: Float[Tensor, "B K D"], label: Int[Tensor, " B"]
) -> Float[Tensor, "B K"]:
    """What each word adds to the logit of a label, above what it adds to all labels on average, where logits are the
    weight times a sum of the words' vectors.

    >>> contributions(torch.eye(2), torch.tensor([[[3.0, 1.0], [0.0, 1.0]]]), torch.tensor([0]))
    tensor([[ 1.0000, -0.5000]])
    """
    return (vectors @ (weight - weight.mean(0))[label].unsqueeze(-1)).squeeze(-1)


def largest(scores: Float[Tensor, "B K"], present: Bool[Tensor, "B K"], share: float) -> Float[Tensor, "B K"]:
    """The words of the largest scores, as 0 and 1: a share of those that are present.

    >>> largest(torch.tensor([[0.3, 0.1, 0.2, 0.9]]), torch.tensor([[True, True, True, False]]), share=0.5)
    tensor([[1., 0., 0., 0.]])
    """
    return filled(torch.zeros_like(scores).unsqueeze(1), scores, present, share)[:, 0]


def filled(
    chosen: Float[Tensor, "B 1 K"], scores: Float[Tensor, "B K"], present: Bool[Tensor, "B K"], share: float
) -> Float[Tensor, "B 1 K"]:
    """A choice of words, as 0 and 1, with the largest scores beside it, up to a share of the words that are present:
    segments leave room where the next piece is too large, in a short text perhaps all of it.

    >>> filled(torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([[0.3, 0.1, 0.2]]), torch.ones(1, 3).bool(), share=0.7)
    tensor([[[1., 1., 0.]]])
    """
    first = scores + (scores.amax(-1, True) - scores.amin(-1, True) + 1) * chosen[:, 0]
    found = rg.budget(rg.subset(MOST), share)(first.unsqueeze(1), present.unsqueeze(1))
    return found.indicator(found.mode)


def means(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The means of values, from their sums and numbers, without those that there are none of.

    >>> means({"error": (1.0, 4.0), "precision": (0.0, 0.0)})
    {'error': 0.25}
    """
    return {name: total / count for name, (total, count) in sums.items() if count}


def faithful(
    whole: Float[Tensor, "B C"], rest: Float[Tensor, "B C"], alone: Float[Tensor, "B C"]
) -> dict[str, Float[Tensor, " B"]]:
    """By how much the probability of the label that is told from all words is less without the rationale, its
    comprehensiveness, and by the rationale alone, its sufficiency (DeYoung et al. 2020, "ERASER", section 4.2), from
    the logits of all three.

    >>> both = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, 0.0]])
    >>> {name: round(float(value), 2) for name, value in faithful(*both).items()}
    {'comprehensiveness': 0.5, 'sufficiency': 0.0}
    """
    said = whole.argmax(-1, keepdim=True)
    sure, less, few = (each.softmax(-1).gather(-1, said).squeeze(-1) for each in (whole, rest, alone))
    return {"comprehensiveness": sure - less, "sufficiency": sure - few}


def agreement(
    chosen: Float[Tensor, "B K"], marked: Bool[Tensor, "B K"], present: Bool[Tensor, "B K"]
) -> dict[str, Float[Tensor, " M"]]:
    """Of the M texts in which words are marked, the precision of the chosen words, the share of them that are marked;
    token F1, its harmonic mean with the share of marked words that are chosen (DeYoung et al. 2020, section 4.1); and
    the share of words that are marked, which is the precision of random ones.

    >>> chosen, marked = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[True, False, False, False]])
    >>> {name: round(float(value), 2) for name, value in agreement(chosen, marked, torch.ones_like(marked)).items()}
    {'precision': 0.5, 'token_f1': 0.67, 'marked': 0.25}
    """
    some = marked.any(-1)
    both, count, wanted = ((each[some]).sum(-1).float() for each in (chosen * marked, chosen, marked))
    return {
        "precision": both / count.clamp(min=1),
        "token_f1": 2 * both / (count + wanted).clamp(min=1),
        "marked": wanted / present[some].sum(-1),
    }


def explained(model: Any, batch: Mapping[str, Tensor]) -> Explained:
    """Of a model that chooses, the label by the mean of the words that are kept; the rationale, and of other words what
    they contribute to the answer; the words that people marked; and the certificate that only chosen words were read.
    """
    output, present = model(batch), batch["words"] > 0
    chosen, vectors = model.rationale(output, present), output.vectors
    given = contributions(model.answer.weight, vectors, output.logits[:, 0].argmax(-1))

    def told(kept: Tensor) -> Tensor:
        return model.told(vectors, (kept * present).unsqueeze(1).float())[:, 0].softmax(-1)

    def permuted() -> Tensor:
        reading = lambda given: model.told(vectors, given.unsqueeze(1))[:, 0].softmax(-1)  # noqa: E731
        return rg.faithfulness.permutation(reading, output.chosen[:, 0], present)

    def unread() -> Tensor:
        read = (output.chosen[:, 0] > 0) | ~present
        return rg.faithfulness.certificate(lambda each: model.told(each, output.chosen), vectors, read)

    importance, moved = chosen + given.sigmoid() / 2, permuted if model.config.over != "all" else None
    return explaining.explained(told, importance, present, batch["marked"], unread, permuted=moved, gradual=True)


def collapsed(row: Mapping[str, int | float]) -> str:
    """What is wrong with a choice of words, if anything, by the figures of an epoch: that it is empty, or no better
    than chance, so that the choice may say the label by itself. Accuracy shows neither.

    >>> collapsed({"valid_share_read": 0.15, "valid_precision": 0.45, "valid_marked": 0.31})
    ''
    """
    if row.get("valid_share_read", 1.0) < NOTHING:
        return "hardly a word is read"
    if row.get("valid_precision", 1.0) < row.get("valid_marked", 0.0):
        return "the words that are read are marked less often than random ones: the choice may say the label by itself"
    return ""


def piece_length(chosen: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """How many words the pieces have that were chosen, on average; zero where none was.

    >>> piece_length(torch.tensor([[1.0, 1.0, 0.0, 1.0]]))
    tensor([1.5000])
    """
    before = torch.nn.functional.pad(chosen, (1, 0))[..., :-1]
    return chosen.sum(-1) / (chosen * (1 - before)).sum(-1).clamp(min=1)
