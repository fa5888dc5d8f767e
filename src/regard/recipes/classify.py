"""Classify a text: by all of its words, or by the few that its heads looked at.

Each head asks the encoded words one learned question, a query, and the answer is told from what the heads read.

- `soft` reads the mean of the words under additive attention (Bahdanau et al. 2015), once for each head.
- `self` is the structured self-attentive embedding (Lin et al. 2017): softmax(W2 tanh(W1 H)), whose heads are kept
  apart by the penalty |A A' - I|^2.
- `hard` has the heads of `self`, but each reads one word (Xu et al. 2015): softly at first, then by draws, which are
  compared with each other (`leave_one_out`); in use, the likeliest word.
- `mean` reads the mean of all words, and `last` the last state of each direction: no attention.

Words are encoded by GRUs, by a Transformer, or not at all: then a hard head has read one word, and nothing of others.

    regard train classify                                      questions of a small grammar: a minute on one core
    regard train classify --data FILE.csv --vectors glove.6B.50d.txt       your own texts, with word vectors
    regard compare classify

To reach with 50 numbers a word, in five minutes on one core: TREC and Subj 92 %, MR 78 %; hard within 1.0 of soft.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import explaining, flags
from regard.app.explaining import Explained
from regard.app.facts import Facts
from regard.app.report.report import Picture
from regard.app.report.shaded_words import shaded, verdict
from regard.app.text import lines
from regard.app.text.encoders import encoder, mean
from regard.app.text.known import Texts
from regard.app.text.networks import SoftThen
from regard.app.text.self_attention import Structured, overlap
from regard.app.text.vectors import WordVectors
from regard.app.text.vocabulary import UNKNOWN
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_error", "min", "share of the validation texts labelled wrongly")

NAMED_BY, QUICK = ("attention",), {"epochs": 3}

COLUMNS = (ERROR, Measure("test_words_read", 1, "words read", "", "Of a {noun}, by all heads together."), *COSTS)

KINDS = {
    "self": "Heads that are kept apart read means of the words (Lin et al. 2017).",
    "soft": "Heads read means of the words, by additive attention.",
    "hard": "Heads that are kept apart read one word each.",
    "mean": "All words count the same: no attention.",
    "last": "What the encoder ended with in each direction: no attention.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the texts, what is dropped, and the draws."""
    data: str = "generated"
    """generated (questions and what they ask for); a table, .csv or .tsv, with columns text and label; or a folder with
    such tables train, valid and test, or with files LABEL.txt, a text a line."""
    attention: Literal["self", "soft", "hard", "mean", "last"] = "soft"
    """How the encoded words are read."""
    heads: int = 4
    """How many questions they are asked."""
    encoder: Literal["gru", "transformer", "none"] = "gru"
    """What the words go through before: GRUs in both directions, layers of self-attention, or nothing."""
    vectors: str = ""
    """A file of word vectors: GloVe's text, word2vec's text or binary form, .bin, or .npz; gzipped or not."""
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
    """The weight of what keeps the heads of `self` and `hard` apart."""
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


TEXTS = Texts(datasets.labelled, datasets.labelled_to_test, datasets.no_texts)
data, known, fitted, tested = TEXTS.data, TEXTS.known, TEXTS.fitted, TEXTS.tested


class Output(NamedTuple):
    """What came of B texts; S draws of each are in front while training draws."""

    logits: Tensor
    """Of the labels, (*S, B, labels)."""
    look: Any
    """Where the H heads looked, as `regard.Attended`; None without attention."""
    present: Tensor
    """Where there are words, (B, K)."""

    def wrong(self, label: Tensor) -> Tensor:
        """Whether the likeliest label is another, (*S, B)."""
        return (self.logits.argmax(-1) != label).float()

    @property
    def weights(self) -> Tensor:
        """How much of each word was read by each head, (B, H, K)."""
        if self.look is None:
            return (self.present / self.present.sum(-1, keepdim=True)).unsqueeze(1)
        return self.look.weights if self.look.z is None else self.look.positions.indicator(self.look.z).float()


class Model(nn.Module):
    """Word vectors, an encoder, heads that read, and the answer from what they read."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.classes, self.lexicon = config, splits.classes, train.lexicon
        words, seen = self.lexicon.vocabulary.words, self.lexicon.seen
        self.facts = Facts(words=words, seen=seen, classes=list(splits.classes))
        self.vectors = WordVectors(self.lexicon, config.learn_vectors, config.size)
        self.forget, self.dropped = nn.Dropout(config.word_dropout), nn.Dropout(config.dropout)
        self.encoder = encoder(config, self.vectors.size)
        width, units, looks = self.encoder.width, config.scoring, config.attention not in ("mean", "last")
        self.queries = nn.Parameter(torch.randn(config.heads, units)) if looks else None
        steps = config.epochs * (len(train) // config.batch)
        read = SoftThen(round(config.soft * steps), rg.hard) if config.attention == "hard" else rg.mean
        score = rg.Additive(units, width, units) if config.attention == "soft" else Structured(width, units)
        self.attention: Any = rg.Attention(score=score, over=rg.softmax, read=read) if looks else None
        self.answer = nn.Linear(width * (config.heads if looks else 1), len(splits.classes))

    @property
    def draws(self) -> bool:
        """Whether what is read is drawn now."""
        return self.config.attention == "hard" and self.training and not self.attention.read.soft

    def forward(self, batch: Mapping[str, Tensor]) -> Output:
        return self.told(self.vectors(batch["words"]), batch["words"] > 0)

    def told(self, vectors: Tensor, present: Tensor) -> Output:
        """What comes of texts, from the vectors of their words (B, K, D)."""
        words = self.encoder(self.forget(vectors), present)  # (B, K, width)
        look = self.looked(words, present) if self.attention else None
        summary = self.encoder.last if self.config.attention == "last" else mean
        read = look.context.flatten(-2) if look else summary(words, present)  # (*S, B, H width), or (B, width)
        return Output(self.answer(self.dropped(read)), look, present)

    def looked(self, words: Tensor, present: Tensor) -> rg.Attended:
        """Where the heads looked among encoded words (B, K, width), and what each read, (*S, B, H, width)."""
        queries: Any = self.queries
        queries = queries.repeat(*([self.config.draws] if self.draws else []), words.shape[0], 1, 1)
        return self.attention(queries, self.attention.prepare(words, words, present.unsqueeze(1)))


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of the label; with draws what trains the choice of words, whose value is zero; and what keeps
    heads apart."""
    output = model(batch)
    label = batch["label"].expand(output.logits.shape[:-1])
    smoothed = {"reduction": "none", "label_smoothing": model.config.smoothing}
    cost = cross_entropy(output.logits.movedim(-1, 1), label, **smoothed)  # (*S, B)
    total = cost.mean()
    if model.draws:
        total = total + rg.leave_one_out(output.look.log_prob.sum(-1), cost.detach()).mean()
    if model.config.attention in ("self", "hard"):
        total = total + model.config.penalty * overlap(output.look.weights).mean()
    return total, {"cost": cost.mean(), "error": output.wrong(label).mean()}


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each text, (B,): whether its label is wrong, and how many of its words were read, but of `last`."""
    output = model(batch)
    read = (output.weights.amax(1) > 0).sum(-1).float()
    return {"error": output.wrong(batch["label"])} | ({"words_read": read} if model.config.attention != "last" else {})


def after_step(model: Model) -> None:
    """Counts the steps in which hard attention is trained softly."""
    if model.config.attention == "hard":
        model.attention.read.count()


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
    texts = (bytes(text[text > 0].tolist()).decode().split() for text in batch["text"])
    found = zip(texts, output.weights, output.logits.softmax(-1), batch["label"].tolist(), strict=True)
    names = [f"head {n}" for n in range(1, 1 + model.config.heads)] if model.attention else []
    return [shaded(words, weights, verdict(model.classes, *said), names) for words, weights, *said in found]


def explained(model: Model, batch: dict[str, Tensor]) -> Explained | None:
    """The label by the words that are kept, the others being unknown ones, and how much all heads read of each."""
    if model.config.attention == "last":
        return None
    words, present = batch["words"], batch["words"] > 0
    vectors, unknown = model.vectors(words), model.vectors(torch.full_like(words, UNKNOWN))
    weights, encoded = model.told(vectors, present).weights, model.encoder(vectors, present)

    def told(kept: Tensor) -> Tensor:
        shown = unknown.lerp(vectors, kept.unsqueeze(-1).to(vectors))
        return model.told(shown, present).logits.softmax(-1)

    def permuted() -> Tensor:
        reading = lambda given: model.answer((given @ encoded).flatten(-2)).softmax(-1)  # noqa: E731
        return rg.faithfulness.permutation(reading, weights, present.unsqueeze(1))

    moved = {"permuted": permuted if model.attention else None, "gradual": True}
    return explaining.explained(told, weights.mean(1), present, **moved)


READS, inputs, prepare, written = "lines of text", lines.inputs, lines.prepare, lines.written


class Answer(NamedTuple):
    """The label of a text, its probability, and of each head the word that it looked at most: hard attention has read
    no other."""

    answer: str
    probability: float
    words: list[str]


def predict(model: Model, prepared: Sequence[str], options: Any) -> list[Answer]:
    """The likeliest label of each text."""
    texts = datasets.Labelled(list(prepared), torch.full((len(prepared),), -1), model.lexicon)
    output = model(texts.batch(torch.arange(len(prepared))))
    best = output.logits.softmax(-1).max(-1)
    places = output.weights.argmax(-1) if model.attention else output.present[:, :0]
    found = zip(*(each.tolist() for each in (*best, places)), prepared, strict=True)
    return [Answer(model.classes[n], chance, [text.split()[k] for k in at]) for chance, n, at, text in found]


def example(model: Model, text: str) -> datasets.Split:
    """A text without a label."""
    return datasets.Labelled([prepare(model, text)], torch.tensor([-1]), model.lexicon)
