"""The parts of the structured self-attentive sentence embedding (Lin et al. 2017)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.scores import Score


class Structured(Score):
    """w_h . tanh(W k) of head h, whose query is w_h (Lin et al. 2017, "A Structured Self-attentive Sentence Embedding",
    equation 5).

    >>> Structured(width=5, units=3)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, width: int, units: int):
        super().__init__()
        self.key = nn.Linear(width, units, bias=False)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K D"]:
        """tanh(W k)."""
        return self.key(keys).tanh()

    def compare(self, query: Float[Tensor, "*SB Q D"], prepared: Float[Tensor, "*B K D"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against prepared keys."""
        return query @ prepared.mT


def overlap(weights: Float[Tensor, "*B H K"]) -> Float[Tensor, "*B"]:
    """|A A' - I|^2 of the weights of H heads: zero where each looks at one place, and all at others (Lin et al. 2017,
    equation 8).

    >>> overlap(torch.eye(2, 3)), overlap(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    (tensor(0.), tensor(2.))
    """
    own = torch.eye(weights.shape[-2], device=weights.device)
    return (weights @ weights.mT - own).square().sum((-1, -2))
