"""Answer questions about a story by looking at the facts that matter, one hop after the other or all hops together.

Kim et al. 2017, "Structured Attention Networks", section 4.3: the network is a memory network (Sukhbaatar et al. 2015).
Every hop looks at the facts of the story. With simple attention (softmax) a hop looks at one fact, and what it read
changes the query of the next: the facts are chosen greedily. With structured attention (chain) the hops are a linear
chain whose labels are the facts: which fact a hop looks at depends on those of its neighbours, and all are chosen
together. sigmoid and segments look at sets of facts, hop by hop. Which facts support the answer is marked in the data;
training never sees it, but for how many they are, which is the number of hops.

    saccade train answer --data DIR --task 2 --over chain    about a minute on one core
    saccade train answer                                     the same on generated stories
    saccade bench answer --data DIR                          every task and over with three seeds

The paper reports, on twelve tasks with 1,000 questions each and the best of 20 models for each, 81.4 % right answers
by softmax and 81.0 % by the chain, and the exact sequence of supporting facts for 39.6 % and 53.7 % of the questions
(table 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import saccade as sc
from saccade.data.babi import babi
from saccade.data.splits import Splits

WATCH = ("valid_error", "min")

MOST = 3


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights and the order of the questions."""
    data: str = "generated"
    """generated, or a folder with the files of bAbI or with their archive."""
    task: int = 2
    """One of bAbI's tasks, 1 to 20; generated stories have 1 and 2."""
    over: Literal["softmax", "sigmoid", "segments", "chain"] = "chain"
    """Looks at one fact a hop (softmax), at a set of them, or at one fact a hop in a chain of hops."""
    hops: int | None = None
    """How often the facts are looked at; as often as facts support an answer, but at most three times, if not given."""
    facts: int = 25
    """The latest facts of a story that are remembered."""
    hidden: int = 64
    """Units of an encoded sentence."""
    epochs: int = 60
    """Passes over the training questions."""
    batch: int = 32
    """Questions of a step."""
    learning_rate: float = 5e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""


def data(config: Config) -> Splits:
    """The questions, their stories and answers, and the supporting facts."""
    return babi(config.data, config.task)


class Sentences(nn.Module):
    """The sum of a sentence's words, each weighted by where it stands: l_kj = (1 - j/J) - (k/d)(1 - 2j/J) for unit k of
    d and word j of J (Sukhbaatar et al. 2015, section 4.1)."""

    def __init__(self, words: int, size: int):
        super().__init__()
        self.words = nn.Embedding(1 + words, size, padding_idx=0)
        nn.init.normal_(self.words.weight, std=0.1)
        self.mask = nn.Parameter(torch.ones(20, size))
    MASK=True

    def forward(self, sentences: Tensor) -> Tensor:
        length = (sentences > 0).sum(-1, keepdim=True).clamp_min(1)
        place = torch.arange(1, sentences.shape[-1] + 1, device=sentences.device) / length  # (*B, W)
        size = self.words.embedding_dim
        unit = torch.arange(1, size + 1, device=sentences.device) / size
        if self.MASK:
            return (self.mask[: sentences.shape[-1]] * self.words(sentences)).sum(-2)
        weights = 1 - place.unsqueeze(-1) - unit * (1 - 2 * place.unsqueeze(-1))  # (*B, W, size)
        return (weights * self.words(sentences)*(sentences>0).unsqueeze(-1)).sum(-2)


class Follow(nn.Module):
    """A chain over the hops, in which fact j follows fact i with the score x_i . W x_j."""

    def __init__(self, hidden: int):
        super().__init__()
        self.after = eye(hidden)
        self.diag = True

    def at(self, step: sc.Step) -> Any:
        t = step.keys @ self.after(step.keys).mT
        if self.diag:
            t = t.masked_fill(torch.eye(t.shape[-1], dtype=torch.bool), -math.inf)
        return sc.chain(t)


OVERS = {
    "softmax": lambda hidden: sc.softmax,
    "sigmoid": lambda hidden: sc.sigmoid,
    "segments": lambda hidden: sc.segments(nn.Parameter(torch.ones(()))),
    "chain": Follow,
}


class Seen(NamedTuple):
    answers: Tensor
    looks: Sequence[sc.Attended]


def eye(hidden):
    m = nn.Linear(hidden, hidden, bias=False)
    nn.init.eye_(m.weight)
    return m

class Model(nn.Module):
    STD=1.; RN=0.1
    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        words, hidden = len(splits.train.words), config.hidden
        self.config = config
        self.facts, self.question = Sentences(words, 2 * hidden), Sentences(words, hidden)
        base = torch.randn(1 + words, hidden) * self.STD * hidden**-0.5
        base[0] = 0
        self.facts.words.weight.data.copy_(base.repeat(1, 2))
        self.question.words.weight.data.copy_(base)
        self.recency = nn.Embedding(config.facts, 2 * hidden)
        nn.init.normal_(self.recency.weight, std=0.1)
        self.attention = sc.Attention(score=sc.dot, over=OVERS[config.over](hidden), read=sc.mean)
        self.hops = config.hops or min(MOST, int((splits.train.supporting >= 0).sum(-1).amax()))
        self.queries = nn.ModuleList(eye(hidden) for _ in range(self.hops))
        numbers = {w: i for i, w in enumerate(splits.train.words, 1)}
        self.register_buffer("classes", torch.tensor([numbers[c] for c in splits.classes]))
        self.out = nn.Linear(hidden, len(splits.classes), bias=False)
        self.out.weight.data.copy_(base[self.classes])

    def forward(self, batch):
        memory, query = self.remember(batch["facts"]), self.question(batch["question"])
        if self.config.over == "chain":
            queries = torch.stack([hop(query) for hop in self.queries], -2)
            out = self.attention(queries, memory)
            looks = [out]
            last = queries[..., -1, :] + out.context.sum(-2)
        else:
            looks = []
            last = query.unsqueeze(-2)
            for hop in self.queries:
                out = self.attention(last, memory)
                looks.append(out)
                last = hop(last) + out.context
            last = last.squeeze(-2)
        return Seen(self.out(last), looks)

    def remember(self, facts):
        facts = facts[:, -self.config.facts :]
        ago = torch.arange(facts.shape[1] - 1, -1, -1, device=facts.device)
        if self.training and self.RN:
            gaps = (torch.rand(facts.shape[:2]) < self.RN).long()
            ago = (ago + gaps.flip(-1).cumsum(-1).flip(-1)).clamp_max(self.config.facts-1)
        tk, tv = self.recency(ago).chunk(2, -1)
        ek, ev = self.facts(facts).chunk(2, -1)
        return self.attention.prepare(ek + tk, ev + tv, (facts[..., 0] > 0).unsqueeze(-2))


def loss(model, batch):
    seen = model(batch)
    return cross_entropy(seen.answers, batch["answer"]), {}


def evaluate(model, batch):
    seen = model(batch)
    chosen = torch.cat([out.positions.indicator(out.positions.mode) for out in seen.looks], -2) > 0  # (B, K, N)
    ago = torch.arange(chosen.shape[-1] - 1, -1, -1)
    marked = batch["supporting"].unsqueeze(-1) == ago  # (B, M, N)
    marks = (batch["supporting"] >= 0).sum(-1)
    found = (marked.any(-2) & chosen.any(-2)).sum(-1)
    exact = (found == marks) & (chosen.any(-2).sum(-1) == marks)
    k = min(chosen.shape[1], marked.shape[1])
    inorder = exact & (chosen[:, :k] == marked[:, :k]).all(-1).all(-1)
    return {
        "error": (seen.answers.argmax(-1) != batch["answer"]).float(),
        "facts": exact.float(),
        "recall": found / marks,
        "in_order": inorder.float(),
    }


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Adam, its rate rising over a tenth of the steps and then falling to zero by a cosine."""
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    warm = max(1, steps // 10)
    cool = max(1, steps - warm)

    def rate(step: int) -> float:
        return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * min(1, (step - warm) / cool))) / 2

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rate)
