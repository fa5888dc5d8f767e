"""Answer questions about a story by looking at the facts that matter, one hop after the other or all hops together.

Kim et al. 2017, "Structured Attention Networks", section 4.3: the network is a memory network (Sukhbaatar et al. 2015,
"End-To-End Memory Networks"). Every hop looks at the facts of the story. With simple attention (softmax) it looks at
one fact, and what it read changes the query of the next hop: the facts are chosen greedily. With structured attention
(chain) the hops are a linear chain whose labels are the facts: where a hop looks depends on where its neighbours do,
and all facts are chosen together. sigmoid and segments look at sets of facts, hop by hop. The data mark the facts that
support an answer; training never sees which these are, but how many, for that is the number of hops.

    regard train answer --data DIR --task 2 --over chain    about a minute on one core
    regard train answer                                     the same on generated stories
    regard experiment answer --data DIR                          all tasks and overs with three seeds

The paper reports, of the best of 20 models on each of twelve tasks with 1,000 questions, 81.4 % right answers by
softmax and 81.0 % by the chain, and on ten of them the sequence of supporting facts for 39.6 % and 53.7 % of the
questions (table 4).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.data.babi import stream_stories
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Picture
from regard.app.report.text_figures import choices, png
from regard.app.text.reading import clean, raw_lines
from regard.app.text.supporting import explained, supporting  # noqa: F401
from regard.recipes.base import Metric, from_files

METRIC = Metric("valid_error", "min", "share of the validation questions answered wrongly")

NAMED_BY = ("task", "over")

MOST = 3
"""Hops, however many facts support an answer."""


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the questions, and the gaps."""
    data: str = "generated"
    """generated (people who walk about a house and carry things), or a folder with the files of bAbI or their archive.
    """
    task: int = 2
    """One of the 20 tasks of bAbI; generated stories have 1 and 2."""
    over: Literal["softmax", "sigmoid", "segments", "chain"] = "chain"
    """Looks at one fact a hop, at a set, at a set that comes in runs, or at a chain of facts, one for each hop."""
    hops: int | None = None
    """How often it looks; as often as facts support an answer, but three times at the most, if not given."""
    facts: int = 25
    """The latest facts of a story that are remembered."""
    gaps: float = 0.1
    """Share of the facts in training before which one seems to have been left out, so that they seem older."""
    hidden: int = 32
    """Units of an encoded sentence."""
    start: float = 0.7
    """Length of a word's vector at first: the longer, the more a fact is looked at for words that it shares."""
    epochs: int = 60
    """Passes over the training questions."""
    batch: int = 32
    """Questions of a step."""
    learning_rate: float = 1e-2
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "hops", "facts", "hidden")
        flags.share(self, "gaps")


def data(config: Config) -> datasets.Splits:
    """The questions, their stories and answers, and the supporting facts."""
    return datasets.questions(config.data, config.task)


class NoStories(NamedTuple):
    """What a model asks the questions that it learns from, where there are none."""

    words: tuple[str, ...]
    questions: Tensor
    """(0, the most words of a question)."""
    facts: Tensor
    """(0, 0, the most words of a fact)."""
    supporting: Tensor
    """(0, the most facts that support an answer)."""

    def __len__(self) -> int:
        return 0


def facts(splits: datasets.Splits) -> Facts:
    """What a model must know of its stories: words, answers, and the longest of each kind."""
    train: Any = splits.train
    longest = [int(each.shape[-1]) for each in (train.questions, train.facts, train.supporting)]
    return Facts(words=train.words, answers=splits.classes, longest=longest)


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No questions, but the words and answers that were learned."""
    facts = read_facts(weights)
    if not facts:  # of weights that were saved without
        return data(config)
    question, fact, support = facts["longest"]
    none: Any = NoStories(
        tuple(facts["words"]), torch.empty(0, question), torch.empty(0, 0, fact), torch.empty(0, support)
    )
    return datasets.Splits(none, none, none, "", tuple(facts["answers"]))


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Questions in the words and answers that were learned, to test on."""
    facts = read_facts(weights)
    return (
        datasets.questions_to_test(config.data, config.task, facts["words"], facts["answers"])
        if facts
        else data(config)
    )


class Sentences(nn.Module):
    """The sum of a sentence's words, each weighted by its place: sum_j f_j * e_j with learned f (Henaff et al. 2017,
    "Tracking the World State with Recurrent Entity Networks", section 2.1). Places beyond the last are as the last."""

    def __init__(self, vectors: Tensor, longest: int):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        self.places = nn.Parameter(torch.ones(longest, vectors.shape[-1]))

    def forward(self, sentences: Tensor) -> Tensor:
        place = torch.arange(sentences.shape[-1], device=sentences.device).clamp_max(len(self.places) - 1)
        return (self.places[place] * self.words(sentences)).sum(-2)  # (*B, hidden)


class Following(nn.Module):
    """A chain over the hops: fact j follows fact i with the score x_i . W x_j (Kim et al. 2017, section 4.3), and no
    fact follows itself."""

    def __init__(self, hidden: int):
        super().__init__()
        self.compare = identity(hidden)

    def at(self, step: rg.Step) -> rg.chain:
        itself = torch.eye(step.keys.shape[-2], dtype=torch.bool, device=step.keys.device)
        transitions = step.keys @ self.compare(step.keys).mT  # (B, N, N)
        return rg.chain(transitions.masked_fill(itself, -math.inf))


def identity(hidden: int, scale: float = 1.0) -> nn.Linear:
    """A linear map that at first changes nothing but the scale."""
    linear = nn.Linear(hidden, hidden, bias=False)
    linear.weight.data.copy_(scale * torch.eye(hidden))
    return linear


class Output(NamedTuple):
    """What came of B questions."""

    answers: Tensor
    """Logits, (B, answers)."""
    looks: Sequence[rg.Attended]
    """Of each hop, or of all hops together: their weights are (B, 1, N) or (B, hops, N)."""


class Model(nn.Module):
    """A memory network: facts as keys and as values, the attention, and the answer from what was read.

    At first all vectors of a word are the same, so that what shares words is near each other, in all roles.
    """

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.words, self.classes, self.facts = config, train.words, splits.classes, facts(splits)
        vectors = config.start * config.hidden**-0.5 * torch.randn(1 + len(train.words), config.hidden)
        self.question = Sentences(vectors, train.questions.shape[-1])
        self.key, self.value = (Sentences(vectors, train.facts.shape[-1]) for _ in range(2))
        self.key_age, self.value_age = (nn.Embedding(config.facts, config.hidden) for _ in range(2))
        for age in (self.key_age, self.value_age):
            nn.init.normal_(age.weight, std=0.1)
        hops = config.hops or min(MOST, train.supporting.shape[-1])
        chained = config.over == "chain"  # where at first all hops but one look where the hop before leads them
        self.hops = nn.ModuleList(identity(config.hidden, 0.0 if chained and hop else 1.0) for hop in range(hops))
        over = {"softmax": rg.softmax, "sigmoid": rg.sigmoid, "segments": rg.segments(nn.Parameter(torch.ones(())))}
        over["chain"] = Following(config.hidden)
        self.attention = rg.Attention(score=rg.dot, over=over[config.over], read=rg.mean)
        self.answer = nn.Linear(config.hidden, len(splits.classes), bias=False)
        self.answer.weight.data.copy_(vectors[[1 + train.words.index(answer) for answer in splits.classes]])

    def forward(self, batch: dict[str, Tensor]) -> Output:
        memory, question = self.remember(batch["facts"]), self.question(batch["question"]).unsqueeze(-2)
        known, looks = self.hop(question, memory)
        return Output(self.answer(known.squeeze(-2)), looks)

    def hop(self, question: Tensor, memory: rg.Memory) -> tuple[Tensor, list[rg.Attended]]:
        """What is known after all hops, from a question (B, 1, hidden), and where they looked."""
        return (self.together if self.config.over == "chain" else self.in_turn)(question, memory)

    def remember(self, facts: Tensor) -> rg.Memory:
        """The latest facts (B, N, W), each with how many came after it."""
        facts = facts[:, -self.config.facts :]
        gaps = torch.rand(facts.shape[:-1], device=facts.device) < (self.config.gaps if self.training else 0)
        after = (1 + gaps.long()).flip(-1).cumsum(-1).flip(-1) - 1  # (B, N)
        after = after.clamp_max(self.config.facts - 1)
        keys, values = self.key(facts) + self.key_age(after), self.value(facts) + self.value_age(after)
        return self.attention.prepare(keys, values, (facts > 0).any(-1).unsqueeze(-2))

    def in_turn(self, question: Tensor, memory: rg.Memory) -> tuple[Tensor, list[rg.Attended]]:
        """Each hop looks with the query q_k, the next with H_k q_k and what this one read (Sukhbaatar et al. 2015)."""
        looks, query = [], question  # (B, 1, hidden)
        for hop in self.hops:
            looks.append(self.attention(query, memory))
            query = hop(query) + looks[-1].context
        return query, looks

    def together(self, question: Tensor, memory: rg.Memory) -> tuple[Tensor, list[rg.Attended]]:
        """All hops look at once, with queries U_k q; the sum of what they read joins the last of these (Kim et al.
        2017, section 4.3)."""
        queries = torch.cat([hop(question) for hop in self.hops], -2)  # (B, hops, hidden)
        out = self.attention(queries, memory)
        return self.follow(question, out.context), [out]

    def follow(self, question: Tensor, contexts: Tensor) -> Tensor:
        """What is known after hops that have read contexts (B, hops, hidden)."""
        if self.config.over == "chain":
            return self.hops[-1](question) + contexts.sum(-2, keepdim=True)
        for hop, context in zip(self.hops, contexts.split(1, -2), strict=True):
            question = hop(question) + context
        return question


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of the answer, which is all that is learned from."""
    answers = model(batch).answers
    return cross_entropy(answers, batch["label"]), {"error": _wrong(answers, batch["label"]).mean()}


def _wrong(answers: Tensor, labels: Tensor) -> Tensor:
    return (answers.argmax(-1) != labels).float()


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each question, (B,): whether the answer is wrong; whether the facts that the hops most probably look at are
    the supporting ones (`facts`), and each hop looks at the one whose turn it is (`sequence`, which is what the paper
    measures); and the share of the supporting facts that are looked at (`recall`)."""
    output = model(batch)
    chosen = torch.cat([look.positions.indicator(look.positions.mode) for look in output.looks], -2) > 0  # (B, hops, N)
    marked = supporting(batch, chosen.shape[-1])  # (B, M, N)
    count, found = (batch["supporting"] >= 0).sum(-1), (chosen.any(1) & marked.any(1)).sum(-1)
    facts = (found == count) & (chosen.any(1).sum(-1) == count)
    turns = min(chosen.shape[1], marked.shape[1])
    sequence = facts & (chosen[:, :turns] == marked[:, :turns]).all(-1).all(-1)
    return {
        "error": _wrong(output.answers, batch["label"]),
        "facts": facts.float(),
        "sequence": sequence.float(),
        "recall": found / count,
    }


def noun(splits: datasets.Splits) -> str:
    """What is answered."""
    return "question"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The facts of each story, how probably each hop looks at them, and which support the answer."""
    output = model(batch)
    weights = torch.cat([look.weights for look in output.looks], -2)  # (B, hops, N)
    marked = supporting(batch, weights.shape[-1]).any(1)
    present = (batch["facts"][:, -weights.shape[-1] :] > 0).any(-1)
    return [
        _picture(model, batch, n, int(output.answers[n].argmax()), weights[n, :, present[n]], marked[n, present[n]])
        for n in range(len(weights))
    ]


def _picture(model: Model, batch: dict[str, Tensor], n: int, answer: int, weights: Tensor, marked: Tensor) -> Picture:
    """One question: the facts (N) with the weights (hops, N), and in words where each hop looks most."""
    facts = [_spelled(model, fact) for fact in batch["facts"][n][-len(marked) :]]
    label, question = int(batch["label"][n]), _spelled(model, batch["question"][n])
    verdict = "right" if answer == label else f"not {model.classes[label] if label >= 0 else 'known'}"
    looked = [f"hop {k} looks at “{facts[int(row.argmax())]}” ({row.max():.0%})" for k, row in enumerate(weights, 1)]
    needed = " and ".join(f"“{fact}”" for fact, needs in zip(facts, marked, strict=True) if needs)
    text = f"Answered {model.classes[answer]}, {verdict}: {', '.join(looked)}; supporting {needed}."
    return Picture(f"{question}?", text, png(choices(facts, weights, marked)))


def _spelled(model: Model, sentence: Tensor) -> str:
    """The words of a sentence (W,)."""
    return " ".join(model.words[word - 1] for word in sentence.tolist() if word)


READS = "stories with questions, as in bAbI's files"


class Answer(NamedTuple):
    """The answer to a question, and its probability."""

    answer: str
    probability: float


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[datasets.Question | Exception]:
    """The questions, each with the facts before it."""
    return from_files(arguments, stream, lambda file, name: stream_stories(raw_lines(file, name), name))


def prepare(model: Model, given: datasets.Question | tuple[Sequence[str], str]) -> datasets.Question:
    """A question, or the facts of a story and what is asked. Raises ValueError where either is missing."""
    if isinstance(given, datasets.Question):
        return given
    if isinstance(given, str) or len(given) != 2 or isinstance(given[0], str):
        raise ValueError(f"expected a list of facts and a question, but got {given!r}")
    facts, question = tuple(filter(None, map(clean, given[0]))), clean(given[1])
    if not facts or not question:
        raise ValueError(f"expected a fact at least and a question, but got {given!r}")
    return datasets.Question(facts, question, "", ())


def predict(model: Model, prepared: Sequence[datasets.Question], options: Any) -> list[Answer]:
    """The most probable answer to each question."""
    stories = datasets.Stories(prepared, model.words, model.classes)
    best = model(stories.batch(torch.arange(len(stories)))).answers.softmax(-1).max(-1)
    found = zip(*(each.tolist() for each in best), strict=True)
    return [Answer(model.classes[answer], probability) for probability, answer in found]


def written(given: Any, prediction: Answer) -> str:
    """The answer alone."""
    return prediction.answer
