"""Tell the next word of a text, looking back at what was known of the words before.

Daniluk et al. 2017, "Frustratingly short attention spans in neural language modeling": an LSTM reads a text word by
word, and attends over its own last states. The attention reads them as soft attention does, or one alone:

- `cosine`, `additive` and `dot` read the mean of the last states, by another score.
- `hard` draws one state for each word, and compares how well the word could be told by each (`leave_one_out`); it
  begins by reading the mean. Scored as `cosine`.
- `none` is the same LSTM, which does not look back.

What was learned also looks at all the words before, hundreds of them, for those after which it knew much the same:
a share of what it says are the words that followed there (Grave et al. 2017, "Improving neural language models with a
continuous cache").

    regard train language                                          Alice in Wonderland: a minute or two
    regard train language --data FOLDER                            a folder with brown.zip, or a file of text
    regard predict runs/language/cosine-seed0 "The Queen said"     goes on with the text
    regard compare language --attentions none,cosine,hard

To reach: a perplexity of 200 on the test part of Brown's corpus, of which Bengio et al. 2003 had 252.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import regard as rg
from regard.app import flags
from regard.app.data.running import Passages, Streams, running
from regard.app.data.splits import Split, Splits
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Picture
from regard.app.report.shaded_words import shaded
from regard.app.text.going_on import READS, Prediction, inputs, predict, prepare  # noqa: F401
from regard.app.text.networks import SoftThen
from regard.app.text.next_word import Cache, Guesses, LookBack, State, nothing
from regard.app.text.vocabulary import Words
from regard.app.training.schedules import clipped, warmup_cosine
from regard.recipes.base import COSTS, Measure, Metric

METRIC = Metric("valid_perplexity", "min", "perplexity on the validation text", label="The perplexity", unit="words")

NAMED_BY, QUICK = ("attention",), {"epochs": 2}

COLUMNS = (
    Measure("test_perplexity", 1, "perplexity", "", "Of the test text: e to the mean cost of a word in nats."),
    Measure("test_entropy", 1, "entropy", "nats", "Of where it looks back."),
    Measure("test_back", 1, "back", "words", "How far it looks back on average; one is the state before."),
    *COSTS,
)

KINDS = {
    "none": "An LSTM that does not look back.",
    "cosine": "Reads the mean of its last states, by the cosine between the state and each of them.",
    "additive": "Reads the mean of its last states, scored by a layer.",
    "dot": "Reads the mean of its last states, scored by inner products.",
    "hard": "Draws one of its last states in training, and later reads the likeliest; scored by the cosine.",
}

SHOWN = 60
"""Words of a passage that are shown."""

SCORES: dict[str, Any] = {
    "cosine": lambda size: rg.Cosine(nn.Parameter(torch.tensor(5.0))),
    "hard": lambda size: rg.Cosine(nn.Parameter(torch.tensor(5.0))),
    "additive": lambda size: rg.Additive(size, size, 64),
    "dot": lambda size: rg.scaled_dot,
}
"""How states of so many numbers are scored."""


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights and the draws."""
    data: str = "embedded"
    """embedded, Alice in Wonderland; a folder with brown.zip; or a file of text, of which a fifth is held out."""
    attention: Literal["none", "cosine", "additive", "dot", "hard"] = "cosine"
    """How it looks back at its own states."""
    window: int = 30
    """States that it looks back at."""
    parts: bool = False
    """Whether a state has a part for each use: what it is found by, what is read, and what the word is told by."""
    size: int = 256
    """Numbers of a word's vector, and units of the LSTM; with parts, three times as many units."""
    dropout: float = 0.5
    """Of the word vectors and of what is known, in training."""
    cache: float = 0.15
    """The share of what is told that are words which followed where the text was much alike; not in training."""
    samples: int = 1000
    """Words that the next one is told from in training."""
    soft: float = 0.3
    """The share of hard training in which the mean is read, before states are drawn."""
    draws: int = 2
    """States that are compared then, for each word."""
    entropy: float = 0.01
    """The weight of the entropy of where to look, while states are drawn."""
    steps: int = 35
    """Words of a step of training."""
    before: int = 500
    """Words of a passage to be judged by, and words that are read before it."""
    epochs: int = 12
    """Times that the text is read."""
    batch: int = 20
    """Streams that the text is parted into."""
    learning_rate: float = 4e-3
    """The highest; it rises over a fiftieth of the steps, and then falls to zero by a cosine."""
    clip: float = 1.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "window", "size", "samples", "draws", "steps", "before")
        flags.share(self, "dropout", "soft", "cache")
        flags.above_zero(self, "clip")
        if self.draws < 2 and self.attention == "hard":
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")


def data(config: Config) -> Splits:
    """A text: streams of it to learn from, and passages."""
    return running(config.data, config.batch, config.steps, config.before)


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """No text, but its words."""
    vocabulary, none = Words(read_facts(weights)["words"]), torch.zeros(1, dtype=torch.long)
    empty = Passages(none, config.steps, config.before, vocabulary)
    return Splits(Streams(none, config.batch, config.steps), empty, empty, "")


def fitted(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """The text in the words that were learned."""
    vocabulary: Any = known(config, weights).valid
    return running(config.data, config.batch, config.steps, config.before, vocabulary.vocabulary)


class Output(NamedTuple):
    """What is known of the next of T words, (*S, B, T, E), by S draws in training by draws; where it looked back, as
    `regard.Attended`, None if it did not; and the state after them."""

    known: Tensor
    look: Any
    state: State


class Model(nn.Module):
    """An LSTM that reads words, what looks back at its states, and the words that it may say."""

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        valid, train = splits.valid, splits.train
        self.config, self.vocabulary = config, valid.vocabulary  # pyright: ignore[reportAttributeAccessIssue]
        self.facts = Facts(words=self.vocabulary.words)
        size, units = config.size, config.size * (3 if config.parts else 1)
        self.vectors = nn.Embedding(len(self.vocabulary), size)
        nn.init.normal_(self.vectors.weight, std=size**-0.5)
        self.lstm = nn.LSTM(size, units, batch_first=True)
        counts = torch.bincount(train.numbers, minlength=len(self.vocabulary))  # pyright: ignore[reportAttributeAccessIssue]
        self.guesses, self.dropped = Guesses(self.vectors, counts, config.samples), nn.Dropout(config.dropout)
        self.cache = Cache(config.cache) if config.cache else None
        steps = config.epochs * (len(train) // config.batch)
        read = SoftThen(round(config.soft * steps), rg.hard) if config.attention == "hard" else rg.mean
        looks = config.attention != "none"
        self.back: Any = LookBack(SCORES[config.attention](size), config.window, read, config.parts) if looks else None
        self.told = nn.Linear(size if looks else units, size, bias=False)
        self.read: Any = nn.Linear(size, size) if looks else None
        for name, each in zip(State._fields, self.nothing(config.batch), strict=True):
            self.register_buffer(f"stream_{name}", each)
        self.after: State | None = None

    @property
    def draws(self) -> int:
        """How many states are drawn for each word now; 0 where the mean is read, or the likeliest alone."""
        drawing = self.config.attention == "hard" and self.training and not self.back.attention.read.soft
        return self.config.draws if drawing else 0

    def nothing(self, rows: int) -> State:
        """What is known of texts before they begin."""
        return nothing(rows, self.config.window, self.lstm.hidden_size)

    def stream(self, rows: int) -> State:
        """What is known of the streams after the last step of training."""
        hidden, cell, past, seen = (getattr(self, f"stream_{name}") for name in State._fields)
        return State(hidden[:, :rows], cell[:, :rows], past[:rows], seen[:rows])

    def forward(self, words: Tensor, state: State) -> Output:
        """Reads words (B, T), after what is known."""
        states, (hidden, cell) = self.lstm(self.dropped(self.vectors(words)), state[:2])
        past, seen = torch.cat((state.past, states), 1)[:, -self.config.window :], state.seen + words.shape[1]
        after = State(hidden, cell, past, seen.clamp(max=self.config.window))
        if self.back is None:
            return Output(self.dropped(self.told(states).tanh()), None, after)
        look, by = self.back(states, state, self.draws)
        return Output(self.dropped((self.told(by) + self.read(look.context)).tanh()), look, after)

    def says(self, known: Tensor, words: Tensor, asked: Tensor) -> Tensor:
        """The log-probabilities (N, V) of the words after those of T that are asked for, (T,), by what is known (T, E)
        after each of the `words` (T,)."""
        found = self.guesses(known[asked]).log_softmax(-1)
        return self.cache(found, known, words, asked) if self.cache else found


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cost of a word, with what trains the draws, whose value is zero."""
    words, target = batch["words"], batch["target"]
    output = model(words, model.stream(len(words)).kept(batch["first"]))
    model.after = output.state.detached()
    every = target.expand(output.known.shape[:-1])
    costs = model.guesses.cost(output.known.flatten(0, -2), every.flatten()).view(every.shape)
    if not model.draws:
        return costs.mean(), {"cost": costs.mean()}
    policy = rg.leave_one_out(output.look.log_prob, costs.detach())
    entropy = output.look.positions.entropy().mean()
    return (costs + policy).mean() - model.config.entropy * entropy, {"cost": costs.mean(), "entropy": entropy}


@torch.no_grad()
def after_step(model: Model) -> None:
    """Keeps what is known of the streams for the next step, and counts the steps in which hard attention is soft."""
    if model.after is not None:
        for kept, new in zip(model.stream(len(model.after.past)), model.after, strict=True):
            kept.copy_(new)
    if model.config.attention == "hard":
        model.back.attention.read.count()


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each word that is asked for, (words,): its `cost` in nats, whether another is likelier (`wrong`), the
    `entropy` of where it looks, and how far `back`."""
    words, target = batch["words"], batch["target"]
    output = model(words, model.nothing(len(words)))
    asked = target > 0
    told = [judged(model, *row) for row in zip(output.known, words, target, strict=True)]
    values = {name: torch.cat(each) for name, each in zip(("cost", "wrong"), zip(*told, strict=True), strict=True)}
    if output.look is None:
        return values
    steps, places = output.look.weights.shape[1:]
    back = torch.arange(steps).unsqueeze(1) + model.config.window - torch.arange(places)  # one is the state before
    far = (output.look.positions.mean * back).sum(-1)
    return values | {"entropy": output.look.positions.entropy()[asked], "back": far[asked]}


def judged(model: Model, known: Tensor, words: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What each target of a passage costs in nats, and whether another word is likelier."""
    asked = target > 0
    says = model.says(known, words, asked)
    return nn.functional.nll_loss(says, target[asked], reduction="none"), (says.argmax(-1) != target[asked]).float()


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The means, and the perplexity, e to the mean cost."""
    means = {name: total / count for name, (total, count) in sums.items()}
    return means | {"perplexity": math.exp(means["cost"])}


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """AdamW, its rate rising over a fiftieth of the steps, and its gradients clipped."""
    found = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.01, fused=True)
    return clipped(found, config.clip), warmup_cosine(found, steps, steps // 50)


def noun(splits: Splits) -> str:
    """What is told word by word."""
    return "passage"


@torch.no_grad()
def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The last words of each passage, shaded by how much of what was known there was read to tell the word after, and
    by how much the words that followed are said again."""
    words, target = batch["words"], batch["target"]
    output, pictures = model(words, model.nothing(len(words))), []
    for n in range(len(words) if output.look is not None or model.cache else 0):
        first, last = (words[n] > 0).nonzero()[[0, -1], 0].tolist()
        begin, at = max(first, last - SHOWN), torch.arange(words.shape[1]) == last
        looks = {}
        if output.look is not None:
            looks["the state after"] = output.look.weights[n, last, model.config.window :][begin:last]
        if model.cache:
            weights = model.cache.weights(output.known[n], words[n], at)
            looks["the words that come again"] = nn.functional.pad(weights[0], (1, 0))[begin:last]
        best = model.vocabulary.decode([int(model.says(output.known[n], words[n], at).argmax())])
        then = [model.vocabulary.decode([int(each)]) or "…" for each in (words[n, last], target[n, last])]
        text = [piece.removeprefix("▁") for piece in model.vocabulary.pieces(words[n, begin:last].tolist())]
        said = f"After “{then[0]}” it says “{best}”" + (f", and “{then[1]}” comes" if target[n, last] else "")
        pictures.append(shaded(text, torch.stack(list(looks.values())), said, list(looks)))
    return pictures


def example(model: Model, text: str) -> Split:
    """A text whose next word is told."""
    numbers = torch.tensor(prepare(model, text))
    return Passages(torch.cat((numbers, numbers[-1:])), len(numbers), 1, model.vocabulary)
