"""Read a story, and say which name is left out of the sentence after it.

Hermann et al. 2015, "Teaching Machines to Read and Comprehend", with questions in the manner of Hill et al. 2016, "The
Goldilocks Principle". Names are markers that say nothing but that they are the same name again, drawn anew in every
epoch, so that a name is known by what the story says of it. The question is read on from the story, by GRUs in both
directions, and the story is then looked at:

- `attentive` looks once, and answers from what it read of words, their states and what they are (section 2.2).
- `impatient` looks once for each word of the question, each time knowing what it has read before.
- `sum` looks once, at the names alone, and answers by how much each name is looked at (Kadlec et al. 2016, "Text
  Understanding with the Attention Sum Reader Network"): `regard.attention_sum`.
- `uniform` reads the mean of all words: no attention.

The score is a bilinear product in the place of Hermann's additive one (Chen et al. 2016, "A Thorough Examination of the
CNN/Daily Mail Reading Comprehension Task"). With `--attention hard` a look reads one word: softly at first, then by
draws that are compared with each other (`leave_one_out`); in use, the likeliest. Beside the name that is left out a
reader learns all others: which of the names before it, or behind it, is the same?

    regard train read                                       stories of a village: a minute on one core
    regard train read --data DIR --reader attentive         train, valid and test.jsonl, or a file of your own
    regard compare read
    regard compare read --reader attentive --attentions soft,hard

To reach on names left out of English novels, in an hour on one core: sum 60 %, attentive 50 %, impatient no less, and
uniform less than that; the most frequent name is right in 32.6 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.data.cloze import MARKERS, Cloze, cloze_in
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Picture
from regard.app.report.shaded_words import shaded
from regard.app.text import comprehension, lines
from regard.app.text.comprehension import Naming, Output, Story, among_names, log_share, name_of, said, words_of
from regard.app.text.encoders import mean
from regard.app.text.networks import SoftThen
from regard.app.text.parsing import Recurrent
from regard.app.text.recurrent import GRU
from regard.app.text.vectors import Lexicon, WordVectors, lexicon, read_vectors
from regard.app.text.vocabulary import Words
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_error", "min", "share of the validation questions answered wrongly")
NAMED_BY, QUICK = ("reader", "attention"), {"epochs": 3}
COLUMNS = (ERROR, Measure("test_words_read", 1, "words read", "", "Of a story, by all looks together."), *COSTS)

KINDS = {
    "sum": "Looks at names once; the answer is the name that is looked at most, wherever it stands.",
    "attentive": "Looks at words once, and answers from what it read.",
    "impatient": "Looks at words once for each word of the question, knowing what it has read before.",
    "uniform": "All words count the same: no attention.",
    "soft": "A look reads the mean of the words under its weights.",
    "hard": "A look reads one word: several are drawn in training and compared with each other.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the questions, the markers, what is dropped, and the draws."""
    data: str = "generated"
    """generated (stories of a village), a file of JSON lines, or a folder with such files train, valid and test."""
    reader: Literal["sum", "attentive", "impatient", "uniform"] = "sum"
    """How the story is looked at."""
    attention: Literal["soft", "hard"] = "soft"
    """Whether a look reads a mean, or one word."""
    vectors: str = ""
    """A file of word vectors: GloVe's text, word2vec's text or binary form, .bin, or .npz; gzipped or not."""
    rare: int = 1
    """How often a word without a given vector must be in the training stories to have one of its own."""
    size: int = 50
    """Numbers of a word's vector, where none are given; else others are learned beside those given."""
    hidden: int = 64
    """Units of the encoder in each direction."""
    draws: int = 4
    """Of the words that are read of a story, in hard training."""
    soft: float = 0.7
    """The share of the steps in which hard attention is trained softly at first."""
    names: float = 1.0
    """The weight of knowing the other names of a story, too."""
    pointing: float = 1.0
    """The weight of looking at the answer and not at other names, for attentive and impatient readers while soft."""
    dropout: float = 0.2
    """Share of the numbers of words that is dropped before the encoder and after it, and of what was read."""
    epochs: int = 8
    """Passes over the training questions."""
    batch: int = 32
    """Questions of a step, about stories about as long as each other."""
    learning_rate: float = 4e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""
    clip: float = 5.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "rare", "size", "hidden")
        flags.share(self, "soft", "dropout")
        flags.above_zero(self, "clip")
        flags.at_least(0, self, "names", "pointing")
        flags.at_least(2, self, "draws")
        if self.attention == "hard" and self.reader == "uniform":
            raise ValueError("--attention hard expected a reader that looks somewhere, but --reader is uniform")


def data(config: Config) -> datasets.Splits:
    """The stories with their questions, in the numbers of the training words and of those that have given vectors."""
    splits = datasets.clozes(config.data)
    given = read_vectors(config.vectors, 100_000) if config.vectors else None
    texts = (" ".join(each.words).lower() for each in splits.train.questions)  # pyright: ignore
    return datasets.spelled_by(splits, lexicon(texts, given, config.rare))


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No stories, but the words and their given vectors."""
    facts = read_facts(weights)
    none = datasets.no_clozes(Lexicon(Words(facts["words"]), facts["seen"], weights["vectors.given"]))
    return datasets.Splits(none, none, none, "")


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The stories in the words that were learned."""
    return datasets.spelled_by(datasets.clozes(config.data), known(config, weights).train.lexicon)  # pyright: ignore


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The same of stories that need no training part."""
    splits = datasets.clozes_to_test(config.data)
    return datasets.spelled_by(splits, known(config, weights).train.lexicon)  # pyright: ignore


class Model(nn.Module):
    """Vectors of words and of markers, an encoder of the story and the question after it, looks, and the answer."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.lexicon = config, train.lexicon
        self.facts = Facts(words=self.lexicon.vocabulary.words, seen=self.lexicon.seen)
        self.vectors = WordVectors(self.lexicon, "beside", config.size)
        if not config.vectors:
            nn.init.normal_(self.vectors.learned.weight)  # pyright: ignore - as large as markers
        size, width, again = self.vectors.size, 2 * config.hidden, config.reader == "impatient"
        self.markers = nn.Parameter(torch.randn(MARKERS, size))
        self.encoder, self.dropped = Recurrent(size, config.hidden, GRU), nn.Dropout(config.dropout)
        steps = round(config.soft * config.epochs * (len(train) // config.batch))
        read = SoftThen(steps, rg.hard) if config.attention == "hard" else rg.mean
        self.attention = rg.Attention(score=rg.Bilinear(width, width), over=rg.softmax, read=read)
        self.naming: Any = Naming(width + size, width, size, config.dropout) if config.reader != "sum" else None
        self.kept: Any = nn.Linear(width + size, width + size, bias=False) if again else None
        self.known: Any = nn.Linear(width + size, width, bias=False) if again else None

    @property
    def draws(self) -> bool:
        """Whether what is read is drawn now."""
        return self.config.attention == "hard" and self.training and not self.attention.read.soft

    def forward(self, batch: Mapping[str, Tensor]) -> Output:
        return getattr(self, self.config.reader)(self.story(batch))

    def story(self, batch: Mapping[str, Tensor]) -> Story:
        """The words of stories and of the questions after them, encoded."""
        markers = batch["names"].unsqueeze(-1)
        words = self.vectors(batch["words"]).where(markers < 0, self.markers[batch["names"].clamp(min=0)])
        words, present = self.dropped(words), batch["words"] > 0
        states = self.dropped(self.encoder(words, present.sum(-1)))
        return Story(words, states, present, batch["story"], batch["blank"], batch["names"])

    def asked(self, query: Tensor) -> Tensor:
        """A query (B, Q, D), once for each draw of what it reads."""
        return query.expand(self.config.draws, *query.shape) if self.draws else query

    def sum(self, story: Story) -> Output:
        """Looks at the names once; the answer is the one that is looked at most, or the one that was read."""
        memory = self.attention.prepare(story.states, story.states, (story.names >= 0).unsqueeze(1))
        look = self.attention(self.asked(story.asked), memory)
        chances = rg.attention_sum(look.weights, story.names, MARKERS).squeeze(-2)
        return Output(chances, chances.argmax(-1) if look.z is None else story.named(look.z), story, [look])

    def attentive(self, story: Story) -> Output:
        """Looks at the words once, by what is asked, and answers from what it read."""
        memory = self.attention.prepare(story.states, story.both, story.inside.unsqueeze(1))
        look = self.attention(self.asked(story.asked), memory)
        return self.named(look.context, story, [look])

    def impatient(self, story: Story) -> Output:
        """Looks once for each word of the question, what is left out being the last, by the word and W r_(i - 1), what
        has been read: r_i is what word i reads, plus tanh(V r_(i - 1)) (Hermann et al. 2015, section 2.3)."""
        memory = self.attention.prepare(story.states, story.both, story.inside.unsqueeze(1))
        words, there = story.question
        read, looks = self.asked(torch.zeros_like(memory.values[:, :1])), []
        for word, known in zip(words.split(1, 1), there.unbind(1), strict=True):
            looks.append(self.attention(self.asked(word) + self.known(read), memory))
            read = (looks[-1].context + self.kept(read).tanh()).where(known[:, None, None], read)
        return self.named(read, story, looks, there)

    def uniform(self, story: Story) -> Output:
        """Answers from the mean of all words."""
        return self.named(mean(story.both, story.inside).unsqueeze(1), story)

    def named(self, read: Tensor, story: Story, looks: Sequence[Any] = (), there: Tensor | None = None) -> Output:
        """The answer from what was read, (*S, B, 1, V)."""
        chances = self.naming(read, story, self.markers)
        return Output(chances, chances.argmax(-1), story, looks, there)


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of the answer, or of a reader that draws the name itself, whether it is wrong; with draws what
    trains the choice of words, whose value is zero; and what is learned from the other names of the story."""
    output, config, answer = model(batch), model.config, batch["answer"]
    cost = output.wrong(answer) if model.draws and config.reader == "sum" else -log_share(output.chances, answer)
    total = cost.mean()
    if model.draws:
        total = total + rg.leave_one_out(output.log_prob, cost.detach()).mean()
    elif config.reader in ("attentive", "impatient"):
        total = total - config.pointing * output.pointed(answer).mean()
    logs = {"cost": cost.mean(), "error": output.wrong(answer).mean()}
    if config.names:
        logs["names"] = among_names(model.attention.score, output.story)
        total = total + config.names * logs["names"]
    return total, logs


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each question, (B,): whether another name is given, and how many words of the story were read."""
    output = model(batch)
    return {"error": output.wrong(batch["answer"]), "words_read": (output.weights.amax(-2) > 0).sum(-1).float()}


def after_step(model: Model) -> None:
    """Counts the steps in which hard attention is trained softly."""
    if model.config.attention == "hard":
        model.attention.read.count()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, its rate rising over a tenth of the steps, and its gradients clipped."""
    found, schedule = adam(model.parameters(), config.learning_rate, steps)
    return clipped(found, config.clip), schedule


def noun(splits: datasets.Splits) -> str:
    """What is answered."""
    return "question"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The words of each story and its question, shaded by how much was read of them by all looks together."""
    output = model(batch)
    return list(map(shaded, words_of(batch), output.weights.mean(-2, keepdim=True), said(output, batch)))


READS, MOST = "stories with XXXXX for a name, as running text or lines of JSON, each a line", 5
inputs, written, explained = lines.inputs, lines.written, comprehension.explained


class Answer(NamedTuple):
    """The name, its probability, and the words that were read most, at most five: hard attention has read no others."""

    answer: str
    probability: float
    words: list[str]


def prepare(model: Model, given: str) -> Cloze:
    """The story and its question. Raises ValueError where there is no name to answer with, or none asked for."""
    return cloze_in(given)


def predict(model: Model, prepared: Sequence[Cloze], options: Any) -> list[Answer]:
    """The name that is given to each question."""
    batch = datasets.Clozes(prepared, model.lexicon).batch(torch.arange(len(prepared)))
    output = model(batch)
    best = output.weights.mean(-2).topk(min(MOST, batch["words"].shape[1]))
    rows = zip(words_of(batch), batch["names"], output.answer, output.chances, *best, strict=True)
    return [
        Answer(name_of(words, names, answer), float(chances[answer]), [words[k] for k in places[weights > 0].tolist()])
        for words, names, answer, chances, weights, places in rows
    ]


def example(model: Model, text: str) -> datasets.Split:
    """A story without an answer."""
    return datasets.Clozes([prepare(model, text)], model.lexicon)
