"""Classify a text by a few of its words: the rationale, beside which nothing is read.

Words are chosen by what they and their neighbours are, and the answer is told from the mean of those that were chosen
(Lei et al. 2016, "Rationalizing Neural Predictions"; Bastings et al. 2019). Which words are chosen is a distribution
over sets of them, with room for a share of the words, met whatever the scores are:

- `segments` like to come in runs (Kim et al. 2017), `subset` is of so many words, `sigmoid` has each by itself;
- `random` words and `all` words are beside these; of all words, the largest contributions are the reason afterwards.

A choice is learned by draws that are compared with each other (`hard`, by `leave_one_out`), at first softly; by
`relaxed` draws; or by the `mean` alone. In use the likeliest words are read, and they alone, however it was learned.

    regard train rationale                                         reviews of a small grammar: a minute on one core
    regard train rationale --data movies --vectors glove.6B.50d.txt           a folder as ERASER has them
    regard train rationale --data FILE.csv                         your own texts, with [[marked]] words if you like
    regard compare rationale

To reach on the reviews of ERASER with 50 numbers a word, by 15 % of the words: 84 % right and within 2.0 of all words,
precision .45 and token F1 .30, where random words have .31 and .20; three minutes on one core.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.facts import Facts
from regard.app.report.report import Picture
from regard.app.report.shaded_words import chosen_words, pieces, verdict
from regard.app.text import choosing, lines
from regard.app.text.known import Texts
from regard.app.text.networks import SoftThen
from regard.app.text.vectors import WordVectors
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_error", "min", "share of the validation texts labelled wrongly")

NAMED_BY, QUICK = ("over", "read"), {"epochs": 3}

COLUMNS = (
    ERROR,
    Measure("test_share_read", 100, "words read", "%", "Of a {noun}."),
    Measure("test_precision", 100, "precision", "%", "Share of the chosen words that people marked."),
    Measure("test_token_f1", 100, "token F1", "%", "Of the chosen words against those that people marked."),
    *COSTS,
)

KINDS = {
    "segments": "Words are chosen in runs (Kim et al. 2017).",
    "subset": "So many words are chosen, of all sets of them.",
    "sigmoid": "Every word is chosen by itself.",
    "random": "As many words, by chance.",
    "all": "All words are read; the words with the largest contributions are called the reason afterwards.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the texts, what is dropped, and the draws."""
    data: str = "generated"
    """generated (reviews, with the words of opinion marked); a folder as ERASER has them, train.jsonl and docs; or what
    `classify` reads, a table or a folder, in which [[marked]] words stand in double brackets, if any."""
    over: Literal["segments", "subset", "sigmoid", "random", "all"] = "segments"
    """Of which sets of words one is chosen."""
    read: Literal["hard", "relaxed", "mean"] = "hard"
    """How choosing is learned: by draws, by relaxed draws (of `sigmoid`), or by the mean."""
    share: float = 0.15
    """Of the words of a text, how many are read at most."""
    stay: float = 4.0
    """What two neighbours of `segments` score for being both chosen or both not."""
    width: float = 2.0
    """The standard deviation of the scores in a text: the larger, the less is left to chance."""
    reach: int = 2
    """How many words on either side a word is scored with."""
    units: int = 64
    """With which it is scored."""
    draws: int = 8
    """Of the words of a text, in hard training."""
    soft: float = 0.25
    """The share of the steps in which hard choices are trained by the mean at first."""
    temperature: float = 0.5
    """Of relaxed draws."""
    whole: float = 0.5
    """The weight of telling the label from all words, too: what a word means cannot drift with the choice."""
    vectors: str = ""
    """A file of word vectors: GloVe's text, word2vec's text or binary form, .bin, or .npz; gzipped or not."""
    learn_vectors: Literal["no", "yes", "beside"] = "beside"
    """Whether given vectors are learned further: no, yes, or as given with learned ones beside them; words are scored
    by the given ones."""
    most: int = 100_000
    """The commonest words of the file that are kept."""
    size: int = 50
    """Numbers of a word's vector, where none are given."""
    dropout: float = 0.3
    """Share of the numbers of the words that are dropped, before scoring and before reading."""
    epochs: int = 8
    """Passes over the training texts."""
    batch: int = 16
    """Texts of a step, about as long as each other."""
    learning_rate: float = 1e-2
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""
    choosing_rate: float = 1.5e-3
    """The same of what scores the words."""
    clip: float = 3.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "most", "size", "units", "reach")
        flags.share(self, "soft", "dropout")
        flags.above_zero(self, "clip", "share", "width", "temperature", "choosing_rate")
        if self.share > 1:
            raise ValueError(f"--share expected a number above zero and up to 1, but got {self.share}")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")
        if self.read == "relaxed" and self.over in ("segments", "subset"):
            raise ValueError(f"--read relaxed expected --over sigmoid, but got {self.over}")
        if self.learn_vectors == "no" and not self.vectors:
            raise ValueError("--learn_vectors no expected word vectors, but --vectors gives none")


TEXTS = Texts(datasets.rationales, datasets.rationales_to_test, datasets.no_rationales)
data, known, fitted, tested = TEXTS.data, TEXTS.known, TEXTS.fitted, TEXTS.tested


class Output(NamedTuple):
    """What came of B texts of at most K words, S draws of each in training."""

    logits: Tensor
    """Of the labels, (B, S, labels)."""
    chosen: Tensor
    """What was read, (B, S, K): 1 or 0 of each word, or between them while the choice is soft."""
    log_prob: Any
    """Of the draws, (S, B); None without."""
    vectors: Tensor
    """Of the words, (B, K, D)."""


class Model(nn.Module):
    """Word vectors, a score of each word, a distribution over sets of words, and the answer from the words of one."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.classes, self.lexicon = config, splits.classes, train.lexicon
        words, seen = self.lexicon.vocabulary.words, self.lexicon.seen
        self.facts = Facts(words=words, seen=seen, classes=list(splits.classes))
        self.vectors = WordVectors(self.lexicon, config.learn_vectors, config.size)
        self.dropped = nn.Dropout(config.dropout)
        self.scored_by = self.lexicon.vectors.shape[1] or self.vectors.size
        self.score = choosing.Neighbours(self.scored_by, config.units, config.reach)
        overs = {"segments": rg.segments(config.stay), "sigmoid": rg.sigmoid}
        over = rg.budget(overs.get(config.over, rg.subset(choosing.MOST)), config.share)
        self.over = choosing.spread(over, config.width)
        steps = config.epochs * (len(train) // config.batch)
        self.begin = SoftThen(round(config.soft * steps), rg.hard)
        self.answer = nn.Linear(self.vectors.size, len(splits.classes))

    @property
    def draws(self) -> bool:
        """Whether words are drawn now."""
        config = self.config
        return self.training and config.read == "hard" and config.over in LEARNED and not self.begin.soft

    def forward(self, batch: Mapping[str, Tensor]) -> Output:
        vectors, present = self.vectors(batch["words"]), batch["words"] > 0
        if self.config.over == "all":
            chosen, log_prob = present.unsqueeze(1).float(), None
        else:
            chosen, log_prob = self.choose(vectors, present)
        vectors = self.dropped(vectors)
        return Output(self.told(vectors, chosen), chosen, log_prob, vectors)

    def choose(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Any]:
        """Which words are read, (B, S, K), of vectors (B, K, D), and the log-probability (S, B) of draws."""
        if self.config.over == "random":
            scores = torch.rand_like(vectors[..., 0])
        else:
            words = vectors[..., : self.scored_by] * present.unsqueeze(-1)
            scores = self.score(self.dropped(words.detach() if self.vectors.beside else words))  # given, not learned
        positions = self.over(scores.unsqueeze(1), present.unsqueeze(1))  # (B, 1, K)
        if self.draws:
            z = positions.sample((self.config.draws,))
            return positions.indicator(z).squeeze(2).transpose(0, 1), positions.log_prob(z).squeeze(-1)
        if not self.training or self.config.over == "random":
            return choosing.filled(positions.indicator(positions.mode), scores, present, self.config.share), None
        return positions.relax(self.config.temperature) if self.config.read == "relaxed" else positions.mean, None

    def told(self, vectors: Tensor, chosen: Tensor) -> Tensor:
        """The answer (B, S, labels) from the mean of the chosen words alone."""
        return self.answer(chosen @ vectors / chosen.sum(-1, keepdim=True).clamp(min=1))

    def rationale(self, output: Output, present: Tensor) -> Tensor:
        """The words (B, K), as 0 and 1, that are called the reason: those that were read, or of all words those with
        the largest contributions to the answer."""
        if self.config.over != "all":
            return output.chosen[:, 0]
        given = choosing.contributions(self.answer.weight, output.vectors, output.logits[:, 0].argmax(-1))
        return choosing.largest(given, present, self.config.share)


LEARNED = "segments", "subset", "sigmoid"


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of the label told from what was read, and from all words; with draws what trains the choice,
    whose value is zero."""
    output, label = model(batch), batch["label"]
    each = label.unsqueeze(1).expand(output.chosen.shape[:2])
    costs = cross_entropy(output.logits.movedim(-1, 1), each, reduction="none")  # (B, S)
    whole = model.told(output.vectors, (batch["words"] > 0).unsqueeze(1).float())[:, 0]
    total = costs.mean() + model.config.whole * cross_entropy(whole, label)
    if output.log_prob is not None:
        total = total + rg.leave_one_out(output.log_prob, costs.detach().T).mean()
    return total, {"cost": costs.mean(), "error": (output.logits.argmax(-1) != each).float().mean()}


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each text whether its label is wrong, also told from all words and from the rationale, which share of its
    words was read, and how good a reason that is: `faithful` to the answer, and in `agreement` with people, where they
    marked words."""
    output, present, marked = model(batch), batch["words"] > 0, batch["marked"]
    chosen = model.rationale(output, present)
    sets = torch.stack((present.float(), present.float() - chosen, chosen), 1)
    whole, rest, alone = model.told(output.vectors, sets).unbind(1)
    return {
        "error": (output.logits[:, 0].argmax(-1) != batch["label"]).float(),
        "error_of_all": (whole.argmax(-1) != batch["label"]).float(),
        "error_of_rationale": (alone.argmax(-1) != batch["label"]).float(),
        "share_read": output.chosen[:, 0].sum(-1) / present.sum(-1),
        "piece": choosing.piece_length(chosen),
        **choosing.faithful(whole, rest, alone),
        **choosing.agreement(chosen, marked, present),
    }


conclude, warning, explained = choosing.means, choosing.collapsed, choosing.explained


def after_step(model: Model) -> None:
    """Counts the steps in which choosing is trained by the mean."""
    model.begin.count()


def optimiser(model: Model, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, of rates that rise over a tenth of the steps, lower for the choice, and its gradients clipped."""
    slower = {"params": list(model.score.parameters()), "lr": config.choosing_rate}
    rest = [each for name, each in model.named_parameters() if not name.startswith("score.")]
    found, schedule = adam([{"params": rest}, slower], config.learning_rate, steps)
    return clipped(found, config.clip), schedule


def noun(splits: datasets.Splits) -> str:
    """What is classified."""
    return "text"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The words of each text, those that were read on a dark ground, those that people marked underlined."""
    output = model(batch)
    texts = (bytes(text[text > 0].tolist()).decode().split() for text in batch["text"])
    rows = zip(texts, model.rationale(output, batch["words"] > 0), batch["marked"], strict=True)
    said = zip(output.logits[:, 0].softmax(-1), batch["label"].tolist(), strict=True)
    verb = "read all, most of it by" if model.config.over == "all" else "read"
    return [chosen_words(*row, verdict(model.classes, *each), verb) for row, each in zip(rows, said, strict=True)]


READS, inputs, prepare, written = "lines of text", lines.inputs, lines.prepare, lines.written


class Answer(NamedTuple):
    """The label of a text, its probability, and the words that were read, or called the reason, by pieces."""

    answer: str
    probability: float
    words: list[str]


def predict(model: Model, prepared: Sequence[str], options: Any) -> list[Answer]:
    """The likeliest label of each text."""
    texts = datasets.unlabelled(prepared, model.lexicon)
    batch = texts.batch(torch.arange(len(prepared)))
    output = model(batch)
    best = (each.tolist() for each in output.logits[:, 0].softmax(-1).max(-1))
    found = zip(*best, texts.texts, model.rationale(output, batch["words"] > 0), strict=True)
    return [Answer(model.classes[n], chance, pieces(text.split(), choice)) for chance, n, text, choice in found]


def example(model: Model, text: str) -> datasets.Split:
    """A text without a label, of which [[marked]] words are underlined."""
    return datasets.unlabelled([prepare(model, text)], model.lexicon)
