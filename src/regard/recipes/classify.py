"""Classify a text: by all of its words, or by the few that its heads looked at.

Each head asks the encoded words one learned question, a query, and the answer is told from what the heads read.

- `soft` reads the mean of the words under additive attention (Bahdanau et al. 2015; with a learned query, Yang et al.
  2016, "Hierarchical Attention Networks for Document Classification", equations 5 to 7).
- `hard` is the same, but each head reads one word (Xu et al. 2015): softly at first, then by draws, which are compared
  with each other (`leave_one_out`); in use, the likeliest word.
- `self` is the structured self-attentive sentence embedding (Lin et al. 2017): softmax(W2 tanh(W1 H)), whose heads are
  kept apart by the penalty |A A' - I|^2.
- `mean` reads the mean of all words, and `last` the last state of each direction: no attention.

Words are encoded by a GRU in both directions, by a Transformer, or not at all: then a hard head has read one word, and
nothing of the others.

    regard train classify                                      questions of a small grammar: a minute on one core
    regard train classify --data FILE.csv --vectors glove.6B.50d.txt       your own texts, with word vectors
    regard compare classify

To reach, with 50 numbers a word and five minutes on one core: 92 % right on TREC and on Subj, 78 % on MR, and hard
attention within 1.0 of soft.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Picture
from regard.app.report.text_figures import png, spans
from regard.app.text.encoders import encoder
from regard.app.text.networks import SoftThen
from regard.app.text.reading import clean, stream_lines
from regard.app.text.tokens import tokens
from regard.app.text.vectors import Lexicon, WordVectors, lexicon, read_vectors
from regard.app.text.vocabulary import Words
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_error", "min", "share of the validation texts labelled wrongly")

NAMED_BY, QUICK = ("attention",), {"epochs": 3}

COLUMNS = (ERROR, Measure("test_words_read", 1, "words read", "", "Of a {noun}, by all heads together."), *COSTS)

KINDS = {
    "self": "Heads that are kept apart read means of the words (Lin et al. 2017).",
    "soft": "Each head reads a mean of the words, by additive attention.",
    "hard": "Each head reads one word.",
    "mean": "All words count the same: no attention.",
    "last": "What the encoder ended with in each direction: no attention.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the texts, what is dropped, and the draws."""
    data: str = "generated"
    """generated (questions of a small grammar, and what they ask for); a table, .csv or .tsv, with a column text and a
    column label; or a folder with tables train, valid and test, or with files LABEL.txt that have a text a line."""
    attention: Literal["self", "soft", "hard", "mean", "last"] = "soft"
    """How the encoded words are read."""
    heads: int = 4
    """How many questions they are asked."""
    encoder: Literal["gru", "transformer", "none"] = "gru"
    """What the words go through before: GRUs in both directions, layers of self-attention, or nothing."""
    vectors: str = ""
    """A file of word vectors: GloVe's text, word2vec's text or binary form (.bin), or .npz; gzipped (.gz) or not."""
    learn_vectors: Literal["no", "yes", "beside"] = "beside"
    """Whether given vectors are learned further: no, yes, or as given with learned ones beside them."""
    most: int = 100_000
    """The commonest words of the file that are kept."""
    size: int = 50
    """Numbers of a word's vector, where none are given."""
    hidden: int = 64
    """Units of the encoder in each direction; of its layers, twice as many."""
    layers: int = 1
    """Of self-attention, in a Transformer."""
    scoring: int = 64
    """Units with which a query is compared with a word."""
    draws: int = 4
    """Of the words of a text, in hard training."""
    soft: float = 0.4
    """The share of the steps in which hard attention is trained softly at first."""
    penalty: float = 0.1
    """The weight of what keeps the heads of `self` apart."""
    smoothing: float = 0.0
    """The probability that training expects of wrong labels, all together."""
    dropout: float = 0.5
    """Share of what was read that is dropped before the answer."""
    word_dropout: float = 0.3
    """Share of the numbers of the words that are dropped before the encoder."""
    epochs: int = 8
    """Passes over the training texts."""
    batch: int = 64
    """Texts of a step, about as long as each other."""
    learning_rate: float = 4e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""
    clip: float = 3.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "heads", "most", "size", "hidden", "layers", "scoring")
        flags.share(self, "soft", "smoothing", "dropout", "word_dropout")
        flags.above_zero(self, "clip")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")
        if self.encoder == "transformer" and 2 * self.hidden % self.heads:
            raise ValueError(f"--heads expected a divisor of {2 * self.hidden}, twice --hidden, but got {self.heads}")
        if self.learn_vectors == "no" and not self.vectors:
            raise ValueError("--learn_vectors no expected word vectors, but --vectors gives none")


def data(config: Config) -> datasets.Splits:
    """The texts and their labels, in the numbers of the training words and of those that have given vectors."""
    splits = datasets.labelled(config.data)
    given = read_vectors(config.vectors, config.most) if config.vectors else None
    train: Any = splits.train
    return datasets.spelled_by(splits, lexicon(train.texts, given))


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No texts, but the words, their given vectors and the labels that were learned."""
    facts = read_facts(weights)
    none = datasets.no_texts(Lexicon(Words(facts["words"]), facts["seen"], weights["vectors.given"]))
    return datasets.Splits(none, none, none, "", tuple(facts["classes"]))


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The texts in the words and labels that were learned."""
    mine = known(config, weights)
    return datasets.spelled_by(datasets.labelled(config.data, mine.classes), mine.train.lexicon)  # pyright: ignore


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The same of texts that need no training part."""
    mine = known(config, weights)
    return datasets.spelled_by(datasets.labelled_to_test(config.data, mine.classes), mine.train.lexicon)  # pyright: ignore


class Output(NamedTuple):
    """What came of B texts; S draws of each are in front while training draws."""

    logits: Tensor
    """Of the labels, (*S, B, labels)."""
    look: rg.Attended | None
    """Where the H heads looked, if it is attention."""
    present: Tensor
    """Where there are words, (B, K)."""

    @property
    def weights(self) -> Tensor:
        """How much of each word was read by each head, (B, H, K)."""
        if self.look is None:
            return (self.present / self.present.sum(-1, keepdim=True)).unsqueeze(1)
        return self.look.weights if self.look.z is None else self.look.positions.indicator(self.look.z).float()


class Structured(rg.scores.Score):
    """w_h . tanh(W k) of head h, whose query is w_h (Lin et al. 2017, equation 5)."""

    def __init__(self, width: int, units: int):
        super().__init__()
        self.key = nn.Linear(width, units, bias=False)

    def prepare(self, keys: Tensor) -> Tensor:
        return self.key(keys).tanh()

    def compare(self, query: Tensor, prepared: Tensor) -> Tensor:
        return query @ prepared.mT


class Model(nn.Module):
    """Word vectors, an encoder, heads that read, and the answer from what they read."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.classes, self.lexicon = config, splits.classes, train.lexicon
        known = self.lexicon.vocabulary.words
        self.facts = Facts(words=known, seen=self.lexicon.seen, classes=list(splits.classes))
        self.vectors = WordVectors(self.lexicon, config.learn_vectors, config.size)
        self.forget, self.dropped = nn.Dropout(config.word_dropout), nn.Dropout(config.dropout)
        self.encoder = encoder(config, self.vectors.size)
        width, units, looks = self.encoder.width, config.scoring, config.attention not in ("mean", "last")
        self.queries = nn.Parameter(torch.randn(config.heads, units)) if looks else None
        steps = config.epochs * (len(train) // config.batch)
        self.read = SoftThen(round(config.soft * steps), rg.hard) if config.attention == "hard" else rg.mean
        score = Structured(width, units) if config.attention == "self" else rg.Additive(units, width, units)
        self.attention: Any = rg.Attention(score=score, over=rg.softmax, read=self.read) if looks else None
        self.answer = nn.Linear(width * (config.heads if looks else 1), len(splits.classes))

    @property
    def draws(self) -> bool:
        """Whether what is read is drawn now."""
        return isinstance(self.read, SoftThen) and self.training and not self.read.soft

    def forward(self, batch: Mapping[str, Tensor]) -> Output:
        present = batch["words"] > 0
        words = self.encoder(self.forget(self.vectors(batch["words"])), present)  # (B, K, width)
        read, look = self.looked(words, present) if self.attention else (self.summary(words, present), None)
        return Output(self.answer(self.dropped(read)), look, present)

    def looked(self, words: Tensor, present: Tensor) -> tuple[Tensor, rg.Attended]:
        """What the heads read, side by side, (*S, B, H width), and where they looked."""
        queries: Any = self.queries
        queries = queries.expand(*([self.config.draws] if self.draws else []), len(words), -1, -1)
        look = self.attention(queries, self.attention.prepare(words, words, present.unsqueeze(1)))
        return look.context.flatten(-2), look

    def summary(self, words: Tensor, present: Tensor) -> Tensor:
        """Of encoded words (B, K, width) their mean, or what the encoder ended with, (B, width)."""
        if self.config.attention == "last":
            return self.encoder.last(words, present)
        return (words * present.unsqueeze(-1)).sum(1) / present.sum(-1, keepdim=True)


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of the label; with draws what trains the choice of words, whose value is zero; and what keeps
    the heads of `self` apart."""
    output = model(batch)
    label = batch["label"].expand(output.logits.shape[:-1])
    cost = cross_entropy(
        output.logits.flatten(0, -2), label.flatten(), reduction="none", label_smoothing=model.config.smoothing
    ).view_as(label)  # (*S, B)
    total = cost.mean()
    if output.look is not None and model.draws:
        total = total + rg.leave_one_out(output.look.log_prob.sum(-1), cost.detach()).mean()
    if model.config.attention == "self":
        total = total + model.config.penalty * overlap(output.weights).mean()
    return total, {"cost": cost.mean(), "error": _wrong(output.logits, label).mean()}


def overlap(weights: Tensor) -> Tensor:
    """|A A' - I|^2 of weights (B, H, K), (B,): zero where each head looks at one word, all at others (Lin et al. 2017,
    equation 8)."""
    own = torch.eye(weights.shape[-2], device=weights.device)
    return (weights @ weights.mT - own).square().sum((-1, -2))


def _wrong(logits: Tensor, label: Tensor) -> Tensor:
    return (logits.argmax(-1) != label).float()


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each text, (B,): whether its label is wrong, and how many of its words were read; of `last`, that is not
    said."""
    output = model(batch)
    error = {"error": _wrong(output.logits, batch["label"])}
    if model.config.attention == "last":
        return error
    return error | {"words_read": (output.weights.amax(1) > 0).sum(-1).float()}


def after_step(model: Model) -> None:
    """Counts the steps in which hard attention is trained softly."""
    if isinstance(model.read, SoftThen):
        model.read.count()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, its rate rising over a tenth of the steps, and its gradients clipped."""
    found, schedule = adam(model.parameters(), config.learning_rate, steps)
    return clipped(found, config.clip), schedule


def noun(splits: datasets.Splits) -> str:
    """What is classified."""
    return "text"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The words of each text, shaded by how much each head read of them."""
    output = model(batch)
    found = zip(output.logits.softmax(-1), output.weights, batch["text"], batch["label"].tolist(), strict=True)
    return [_picture(model, *each) for each in found]


def _picture(model: Model, chances: Tensor, weights: Tensor, text: Tensor, label: int) -> Picture:
    """One text: its words under each head (H, K), and in words which each looked at most."""
    words = bytes(text[text > 0].tolist()).decode().split()
    weights, best = weights[:, : len(words)], int(chances.argmax())
    verdict = "" if label < 0 else ", right" if best == label else f", not {model.classes[label]}"
    most = [f"head {n} “{words[int(row.argmax())]}” ({row.max():.0%})" for n, row in enumerate(weights, 1)]
    looked = f": most looked at by {', '.join(most)}" if model.attention else ""
    names = [f"head {n}" for n in range(1, 1 + len(weights))] if model.attention else []
    said = f"Labelled {model.classes[best]} ({chances[best]:.0%}){verdict}{looked}."
    return Picture(" ".join(words), said, png(spans(words, weights / weights.max(), names=names)))


READS = "lines of text"


class Answer(NamedTuple):
    """The label of a text, its probability, and of each head the word that it looked at most: hard attention has read
    no other."""

    answer: str
    probability: float
    words: list[str]


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The arguments, or without any the lines of standard input."""
    return iter(arguments) if arguments else stream_lines(stream)


def prepare(model: Model, given: str) -> str:
    """The words of a text. Raises ValueError where it has none."""
    if not isinstance(given, str) or not (words := tokens(clean(given))):
        raise ValueError(f"expected a text with a word in it, but got {given!r}")
    return " ".join(words)


def predict(model: Model, prepared: Sequence[str], options: Any) -> list[Answer]:
    """The likeliest label of each text."""
    texts = datasets.Labelled(prepared, torch.full((len(prepared),), -1), model.lexicon)
    output = model(texts.batch(torch.arange(len(prepared))))
    best = output.logits.softmax(-1).max(-1)
    places = output.weights.argmax(-1) if model.attention else [torch.zeros(0, dtype=torch.long)] * len(prepared)
    found = zip(*(each.tolist() for each in best), places, prepared, strict=True)
    return [Answer(model.classes[n], chance, [text.split()[k] for k in at.tolist()]) for chance, n, at, text in found]


def written(given: Any, prediction: Answer) -> str:
    """The label alone."""
    return prediction.answer


def example(model: Model, text: str) -> datasets.Split:
    """A text without a label."""
    return datasets.Labelled([prepare(model, text)], torch.tensor([-1]), model.lexicon)
