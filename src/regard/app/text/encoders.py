"""Encoders of words for what reads them afterwards: GRUs in both directions, a Transformer, or nothing."""

from typing import Any

import torch
from torch import Tensor, nn

from regard.app.text.networks import Layer, waves
from regard.app.text.parsing import Recurrent


class Gru(nn.Module):
    """GRUs in both directions (Cho et al. 2014), of `hidden` units each."""

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.both, self.width = Recurrent(size, hidden, nn.GRU), 2 * hidden

    def forward(self, words: Tensor, present: Tensor) -> Tensor:
        """Words (B, K, size) where they are present (B, K), to (B, K, width)."""
        return self.both(words, present.sum(-1))

    def last(self, words: Tensor, present: Tensor) -> Tensor:
        """Of encoded words the last state of each direction, (B, width)."""
        forth, back = words.chunk(2, -1)
        return torch.cat((_last(forth, present), back[:, 0]), -1)


class Transformer(nn.Module):
    """Layers of self-attention (Vaswani et al. 2017, section 3.1), each a `regard.MultiHead`."""

    def __init__(self, size: int, width: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.width, self.enter, self.norm = width, nn.Linear(size, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, dropout, reads=False) for _ in range(layers))

    def forward(self, words: Tensor, present: Tensor) -> Tensor:
        """Words (B, K, size) where they are present (B, K), to (B, K, width)."""
        words = self.enter(words)
        words = words + waves(torch.zeros_like(present[:, 0], dtype=torch.long), *words.shape[1:])
        for layer in self.layers:
            words, *_ = layer(words, present.unsqueeze(-2))
        return self.norm(words)

    def last(self, words: Tensor, present: Tensor) -> Tensor:
        """Of encoded words the last, (B, width)."""
        return _last(words, present)


class Nothing(nn.Module):
    """Each word as it is, and nothing of the others."""

    def __init__(self, size: int):
        super().__init__()
        self.width = size

    def forward(self, words: Tensor, present: Tensor) -> Tensor:
        """The words."""
        return words

    def last(self, words: Tensor, present: Tensor) -> Tensor:
        """The last word, (B, width)."""
        return _last(words, present)


def encoder(config: Any, size: int) -> Any:
    """The `encoder` of a recipe's Config, for words of so many numbers: it has `width` and `last`."""
    if config.encoder == "gru":
        return Gru(size, config.hidden)
    if config.encoder == "transformer":
        return Transformer(size, 2 * config.hidden, config.heads, config.layers, config.word_dropout)
    return Nothing(size)


def mean(words: Tensor, present: Tensor) -> Tensor:
    """The mean of words (B, K, D) where they are present (B, K): (B, D)."""
    return (words * present.unsqueeze(-1)).sum(1) / present.sum(-1, keepdim=True)


def _last(words: Tensor, present: Tensor) -> Tensor:
    """The last word of each text, (B, D)."""
    return words[torch.arange(words.shape[0], device=words.device), present.sum(-1) - 1]
