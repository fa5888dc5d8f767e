"""The facts that support an answer, and whether it mattered that they were looked at."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import regard as rg
from regard.app import explaining
from regard.app.explaining import Explained


def supporting(batch: Mapping[str, Tensor], facts: int) -> Tensor:
    """Which of the latest facts is each supporting one, (B, M, facts); none that is older, or absent.

    >>> supporting({"supporting": torch.tensor([[0, 2, -1]])}, 3).int()
    tensor([[[0, 0, 1],
             [1, 0, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    after = torch.arange(facts - 1, -1, -1, device=batch["supporting"].device)
    return batch["supporting"].unsqueeze(-1) == after


def explained(model: Any, batch: Mapping[str, Tensor]) -> Explained:
    """Of a memory network, the answer by the facts that are kept, the others not being there; how much all hops read of
    each; and the facts that support the answer."""
    question, memory = model.question(batch["question"]).unsqueeze(-2), model.remember(batch["facts"])
    weights = torch.cat([look.weights for look in model.hop(question, memory)[1]], -2)  # (B, hops, N)
    there = memory.mask.squeeze(-2)

    def told(kept: Tensor) -> Tensor:
        share = kept.unsqueeze(-1)
        shown = model.attention.prepare(memory.keys * share, memory.values * share, memory.mask & (share.mT > 0))
        return model.answer(model.hop(question, shown)[0].squeeze(-2)).softmax(-1)

    def reading(given: Tensor) -> Tensor:
        return model.answer(model.follow(question, given @ memory.values).squeeze(-2)).softmax(-1)

    truth = supporting(batch, weights.shape[-1]).any(1) & there
    permuted = lambda: rg.faithfulness.permutation(reading, weights, memory.mask)  # noqa: E731
    return explaining.explained(told, weights.mean(-2), there, truth, permuted=permuted, gradual=True)
