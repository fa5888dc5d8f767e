"""A conditional random field over the brackets of a sentence: what it costs, and the brackets that are decoded."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import regard as rg
from regard.app.data.brackets import Known
from regard.app.text.brackets import Spans

SURE = 0.45
"""The least probability of a bracket that is written: half the F1 that is hoped for (as Goodman 1996)."""


def gold_labels(chains: Int[Tensor, "B M 3"], words: int) -> Int[Tensor, "B K K"]:
    """The labels of spans in all binary trees that have the brackets of a true tree: those of its brackets, 0 for other
    spans, and -1 for spans that cross a bracket, which are in none.

    >>> gold_labels(torch.tensor([[[0, 2, 5], [1, 2, 7]]]), 3)
    tensor([[[ 0, -1,  5],
             [ 0,  0,  7],
             [ 0,  0,  0]]])
    """
    rows = torch.arange(len(chains), device=chains.device).unsqueeze(-1).expand(chains.shape[:2])
    real = chains[..., 0] >= 0
    labels = chains.new_zeros(len(chains), words, words)
    labels[rows[real], chains[real][:, 0], chains[real][:, 1]] = chains[real][:, 2]
    here = torch.zeros_like(labels)
    here[rows[real], chains[real][:, 0], chains[real][:, 1]] = 1
    longer = here.flip(-1).cumsum(-1).flip(-1) - here  # at (i, j): how many brackets begin with i and end after j
    passed = longer.cumsum(-2)
    right = passed.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) - passed
    earlier = here.cumsum(-2) - here  # at (i, j): that begin before i and end with j
    within = earlier.cumsum(-1) - earlier
    left = within - within.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return labels.where(((right <= 0) & (left <= 0)) | (torch.ones_like(here).triu() == 0), -1)


def chart_cost(
    scores: Float[Tensor, "B K K S"], present: Bool[Tensor, "B K"], chains: Int[Tensor, "B M 3"]
) -> Float[Tensor, " B"]:
    """-log of the probability of all binary trees that have the brackets of the true one and no others."""
    gold = gold_labels(chains, scores.shape[1])
    observed = scores.gather(-1, gold.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(gold < 0, -torch.inf)
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    return rg.constituency(scores.shape[-1])(scores, both).log_z - rg.constituency()(observed, both).log_z


def decoded_spans(
    scores: Float[Tensor, "B K K S"], present: Bool[Tensor, "B K"]
) -> tuple[Int[Tensor, "B K K"], Float[Tensor, "B K K S"]]:
    """The labels of the brackets of which most are expected to be right, each counting as much more than `SURE` as it
    is probable (Goodman 1996), 0 for none; and how probable each label of each span is."""
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    chances = rg.constituency(scores.shape[-1])(scores, both).mean
    best, label = chances[..., 1:].max(-1)
    spans = rg.constituency()((best - SURE).clamp(min=0), both).mode
    return (1 + label).where((spans >= 0) & (best > SURE), 0), chances


def unchained(labels: Int[Tensor, "K K"], known: Known) -> Spans:
    """The brackets of a table of numbers of chains, the outermost first, by the numbers of their labels."""
    number = {label: n for n, label in enumerate(known.labels)}
    spans = sorted(labels.nonzero().tolist(), key=lambda span: (span[0], -span[1]))
    return [
        (first, last, number[name])
        for first, last in spans
        for name in known.chains[int(labels[first, last])].split("+")
    ]
