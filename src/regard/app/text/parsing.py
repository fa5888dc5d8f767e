"""The layers of a graph-based parser: what words look like, the sentence around them, and the scores of arcs and
relations.

Dozat and Manning 2017, "Deep Biaffine Attention for Neural Dependency Parsing"; `config` is that of the recipe parse.
"""

from typing import Any

import torch
from torch import Tensor, nn

from regard.app.data.trees import RELATIONS
from regard.app.text.networks import Dropped, picked

LONGEST = 24
"""Characters of a word that are looked at."""


class Vocabulary(nn.Module):
    """Numbers for what was seen in training, from 1 on; all else is 0. It is saved with the weights."""

    seen: Tensor

    def __init__(self, values: Tensor, least: int = 1):
        super().__init__()
        seen, counts = values.unique(return_counts=True)
        self.register_buffer("seen", seen[counts >= least])

    def __len__(self) -> int:
        return 1 + len(self.seen)

    def forward(self, values: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # ONNX cannot search
            there = values.unsqueeze(-1) == self.seen
            return (there.int().argmax(-1) + 1).where(there.any(-1), 0)
        places = torch.searchsorted(self.seen, values.contiguous()).clamp_max(len(self.seen) - 1)
        return (places + 1).where(self.seen[places] == values, 0)


class Forms(nn.Module):
    """What words look like: a vector for each known one, and the largest answers of filters over its characters."""

    def __init__(self, config: Any, train: Any):
        super().__init__()
        self.known = Vocabulary(train.names[train.words], least=2)
        self.alphabet = Vocabulary(train.forms[train.forms > 0])
        self.word = nn.Embedding(len(self.known), config.words)
        nn.init.zeros_(self.word.weight)  # or what is rare stays a random vector, which is worse than none
        self.letter = nn.Embedding(len(self.alphabet), config.letters)
        self.filters = nn.Linear(3 * config.letters, config.filters)
        self.forget = config.word_dropout

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        words, forms = batch["words"].clamp_min(0), batch["forms"][:, :LONGEST]
        known = self.known(batch["names"])[words]  # (B, K)
        if self.training:
            known = known.masked_fill(torch.rand(known.shape, device=known.device) < self.forget, 0)
        return torch.cat((self.word(known), self.spelling(forms)[words]), -1)  # (B, K, words + filters)

    def spelling(self, forms: Tensor) -> Tensor:
        """The vectors (U, filters) of forms (U, C) by their characters."""
        over = (forms == 0).unsqueeze(-1)
        letters = self.letter(self.alphabet(forms)).masked_fill(over, 0)
        triples = nn.functional.pad(letters, (0, 0, 1, 1)).unfold(1, 3, 1).flatten(2)  # (U, C, 3 letters)
        return self.filters(triples).relu().masked_fill(over, 0).amax(1)


class Recurrent(nn.Module):
    """An LSTM, or a GRU, in each direction over sentences (B, K, D), each of which it reads from its own first and last
    word."""

    def __init__(self, size: int, hidden: int, layer: type[nn.LSTM] | type[nn.GRU] = nn.LSTM):
        super().__init__()
        self.forth, self.back = (layer(size, hidden, batch_first=True) for _ in range(2))

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(words.shape[1], device=words.device)
        mirrored = lengths.unsqueeze(-1) - 1 - places
        mirrored = mirrored.where(mirrored >= 0, places)  # (B, K)
        back, _ = self.back(picked(words, mirrored))
        return torch.cat((self.forth(words)[0], picked(back, mirrored)), -1)  # (B, K, 2 hidden)


class Perceptron(nn.Sequential):
    """A hidden layer of which units are dropped."""

    def __init__(self, size: int, hidden: int, share: float):
        super().__init__(nn.Linear(size, hidden), nn.LeakyReLU(0.1), Dropped(share))


class Arcs(nn.Module):
    """Scores (B, K, K) of word j being the head of word i, d_i W h_j + u h_j (section 2.2); on
    the diagonal, of i being the root."""

    def __init__(self, size: int, config: Any):
        super().__init__()
        self.dependent, self.head = (Perceptron(size, config.arcs, config.dropout) for _ in range(2))
        self.compare, self.root = nn.Linear(config.arcs, config.arcs), nn.Linear(config.arcs, 1)

    def forward(self, words: Tensor) -> Tensor:
        dependents, heads = self.dependent(words), self.head(words)
        scores = self.compare(dependents) @ heads.mT
        root = torch.eye(words.shape[1], dtype=torch.bool, device=words.device)
        return self.root(dependents).where(root, scores).float()


class Relations(nn.Module):
    """Scores (B, K, R) of the relations of words to their heads, d_i W_r h_j + v_r d_i + u_r h_j (the same section)."""

    def __init__(self, size: int, config: Any):
        super().__init__()
        width, count = config.relations, len(RELATIONS)
        self.dependent, self.head = (Perceptron(size, width, config.dropout) for _ in range(2))
        self.compare, self.alone = nn.Linear(width, count * width, bias=False), nn.Linear(2 * width, count)
        self.root = nn.Parameter(torch.zeros(width))

    def forward(self, words: Tensor, heads: Tensor) -> Tensor:
        dependents, places = self.dependent(words), torch.arange(words.shape[1], device=words.device)
        above = picked(self.head(words), heads.clamp_min(0))
        above = torch.where((heads == places).unsqueeze(-1), self.root.to(above.dtype), above)  # (B, K, width)
        compared = self.compare(dependents).unflatten(-1, (len(RELATIONS), -1)) @ above.unsqueeze(-1)
        return (compared.squeeze(-1) + self.alone(torch.cat((dependents, above), -1))).float()
