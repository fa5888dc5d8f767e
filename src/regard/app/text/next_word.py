"""What a language model is made of beside its recurrent network: the states that it looks back at, the words that it
may say next, and those that it may say again.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import regard as rg

SHARPNESS = 6.0
"""By which the cosines of states are scored where words may come again: of 3, 6 and 12 the best on the part of Brown's
corpus that is to choose by."""


class State(NamedTuple):
    """What is known of B texts: the LSTM's state and cell, (1, B, H), its last W states, (B, W, H), and how many of
    those there have been, (B,)."""

    hidden: Tensor
    cell: Tensor
    past: Tensor
    seen: Tensor

    def kept(self, first: Bool[Tensor, " B"]) -> "State":
        """The same, but of those texts that begin, nothing."""
        other = ~first
        hidden, cell = (each * other.view(1, -1, 1) for each in self[:2])
        return State(hidden, cell, self.past * other.view(-1, 1, 1), self.seen * other)

    def detached(self) -> "State":
        """The same without gradients."""
        return State(*(each.detach() for each in self))


def nothing(rows: int, window: int, size: int) -> State:
    """What is known of texts before they begin.

    >>> [tuple(each.shape) for each in nothing(rows=2, window=5, size=3)]
    [(1, 2, 3), (1, 2, 3), (2, 5, 3), (2,)]
    """
    blank = torch.zeros(1, rows, size)
    return State(blank, blank.clone(), torch.zeros(rows, window, size), torch.zeros(rows, dtype=torch.long))


class LookBack(nn.Module):
    """Each of T states (B, T, H) looks at the `window` states before it (Daniluk et al. 2017, "Frustratingly short
    attention spans in neural language modeling", equations 2 to 6; with `parts` a state is a key, a value and what is
    predicted by, a third each, section 3.2)."""

    def __init__(self, score: Any, window: int, read: Any, parts: bool):
        super().__init__()
        self.attention: Any = rg.Attention(score=score, over=rg.softmax, read=read)
        self.window, self.parts = window, parts

    def split(self, states: Float[Tensor, "*B T H"]) -> tuple[Tensor, Tensor, Tensor]:
        """The keys, the values and what is predicted by."""
        key, value, by = states.chunk(3, -1) if self.parts else (states, states, states)
        return key, value, by

    def forward(self, states: Float[Tensor, "B T H"], state: State, draws: int = 0) -> tuple[Any, Tensor]:
        """Where it looked, with what was read (*S, B, T, V), and what is predicted by, (B, T, V)."""
        keys, values, _ = self.split(torch.cat((state.past, states), 1)[:, :-1])
        query, _, by = self.split(states)
        steps, places = states.shape[1], keys.shape[1]
        there = torch.arange(places, device=keys.device) >= (self.window - state.seen).unsqueeze(-1)
        mask = rg.window(self.window, steps, places, device=keys.device) & there.unsqueeze(1)
        query = query.expand(draws, *query.shape) if draws else query
        return self.attention(query, self.attention.prepare(keys, values, mask)), by


class Cache(nn.Module):
    """Words that may come again: each state of a text looks at all before it, by the cosine, and a `share` of what is
    said comes from the words that followed those, p(w) = (1 - s) p'(w) + s sum of the weights of the states that w
    followed (Grave et al. 2017, "Improving neural language models with a continuous cache", equations 2 to 4). It has
    nothing to learn; the first state has nothing to look at, and says what it would without.
    """

    def __init__(self, share: float):
        super().__init__()
        self.score: Any = rg.Cosine(SHARPNESS)
        self.share = share

    def weights(self, known: Float[Tensor, "T E"], words: Int[Tensor, " T"], asked: Bool[Tensor, " T"]) -> Tensor:
        """How much the states that are asked look at each of T, (N, T): at those before it that are of a word."""
        there = rg.causal(len(known)).tril(-1) & (words > 0)
        return rg.softmax(self.score(known[asked], known), there[asked]).mean

    def forward(
        self, log_probs: Float[Tensor, "N V"], known: Tensor, words: Int[Tensor, " T"], asked: Bool[Tensor, " T"]
    ) -> Float[Tensor, "N V"]:
        """The log-probabilities with those words, by what is known (T, E) after each of T words, 0 where none is."""
        weights = self.weights(known, words, asked)
        again = rg.attention_sum(weights, F.pad(words[1:], (0, 1), value=-1), log_probs.shape[1])
        share = self.share * weights.sum(-1, keepdim=True)  # all but of a state with nothing before it
        return torch.logaddexp(torch.log1p(-share) + log_probs, (self.share * again).log())


class Guesses(nn.Module):
    """The word that comes next, by what is known (*B, E): scores of all words, e . w + b, by the vectors w of the words
    that are read (Press and Wolf 2017, "Using the output embedding to improve language models").

    In training a word is told from `samples` others alone, the same for all, drawn by the power 0.75 of how often they
    are there; the score of each is less by the logarithm of how often it is drawn on average, so that their sum of
    exponentials is on average that of all other words (Bengio and Senecal 2008, "Adaptive importance sampling to
    accelerate training of a neural probabilistic language model").
    """

    chances: Tensor

    def __init__(self, vectors: nn.Embedding, counts: Int[Tensor, " V"], samples: int):
        super().__init__()
        self.vectors, self.samples = vectors, samples
        self.bias = nn.Parameter(torch.zeros(len(counts)))
        self.register_buffer("chances", (counts + 1).float().pow(0.75) / (counts + 1).float().pow(0.75).sum())

    def forward(self, known: Float[Tensor, "*B E"]) -> Float[Tensor, "*B V"]:
        """The scores of all words."""
        return known @ self.vectors.weight.T + self.bias

    def cost(self, known: Float[Tensor, "N E"], target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """-log p of the target, in nats; in training by the samples, if they are fewer than there are words."""
        if not self.training or self.samples >= len(self.bias):
            return F.cross_entropy(self(known), target, reduction="none")
        others = torch.multinomial(self.chances, self.samples, replacement=True)
        drawn = (self.chances * self.samples).log()
        right = (known * self.vectors(target)).sum(-1) + self.bias[target]
        wrong = known @ self.vectors(others).T + (self.bias[others] - drawn[others])
        wrong = wrong.masked_fill(others == target.unsqueeze(1), -torch.inf)
        return torch.logaddexp(right, wrong.logsumexp(-1)) - right
