"""Find the constituency tree of a sentence: written bracket by bracket by a model that looks at words, or by a chart.

Vinyals et al. 2015, "Grammar as a Foreign Language": an encoder reads the words, and a decoder writes the tree as a
sequence, `(S`, `(NP`, a word, `)`, and so on. What it looks at while it writes is the `--decoder`:

- `additive` reads the mean of the words under additive attention (Bahdanau et al. 2015).
- `monotonic` reads one word, at or behind the one before (Raffel et al. 2017): a distribution in training.
- `hard` reads one word (Xu et al. 2015): softly at first, then by draws, which are compared with each other.
- `none` has nothing but what the encoder ended with.
- `chart` is no writer: a conditional random field of spans (Stern, Andreas and Klein 2017; Finkel, Kleeman and Manning
  2008) by `rg.constituency`, trained by the sum over all binary trees that have the true brackets, and decoded for the
  most brackets that are expected to be right (Goodman 1996).

`--constrained yes` has a writer write well-formed trees alone; it may be said of a run that is trained.

    regard train bracket                                                made-up sentences
    regard train bracket --data DIR --decoder chart --longest 40        bracket files train, dev and test of a treebank

To reach on CRAFT's test sentences of up to 40 words: F1 85 by additive, 87 by chart. All brackets count, punctuation
too; `f1_evalb` leaves punctuation out. A malformed tree counts as one without brackets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.data.brackets import Bracketed, Known, brackets_to_test
from regard.app.facts import Facts, read_facts
from regard.app.report.matrix import Matrix
from regard.app.report.report import Picture
from regard.app.text import decoding, lines, made_trees
from regard.app.text.bracketing import NESTED, Chart, Encoder, Online, Output, Writer, Written, well_formed
from regard.app.text.brackets import BEGIN, END, Bracketing, Spans, read_steps
from regard.app.text.charts import chart_cost, decoded_spans, unchained
from regard.app.text.made_trees import compared, pictured, spelled, spoken
from regard.app.text.networks import SoftThen
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, Measure, Metric

METRIC = Metric("valid_f1", "max", "distance to 100 of the F1 of labelled brackets", 100.0, "F1")

NAMED_BY, QUICK = ("decoder",), {"epochs": 2}

COLUMNS = (
    Measure("test_f1", 1, "F1", "%", "Of the labelled brackets of the test {noun}s, ± {spread}."),
    Measure("test_malformed", 100, "malformed", "%", "Share of the trees in which brackets or words are wrong."),
    *COSTS,
)

KINDS = {
    "additive": "Writes a tree step by step, and reads the mean of all words at each: soft attention.",
    "monotonic": "Goes through the words once from left to right, and reads the one where it stands.",
    "hard": "Reads one word at each step, drawn in training.",
    "none": "Writes from the last state of the encoder alone.",
    "chart": "Scores every span, and takes the best of all trees: nothing is written.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the sentences, what is dropped, and the draws."""
    data: str = "generated"
    """generated (sentences of a small grammar), or a folder of bracket files: *train.ptb, *dev.ptb, *test.ptb, or
    *.mrg, gzipped or not."""
    longest: int = 250
    """Words of the longest sentences that are learned from and tested."""
    decoder: Literal["additive", "monotonic", "hard", "none", "chart"] = "additive"
    """How a tree is made."""
    constrained: Literal["no", "yes"] = "no"
    """Whether a writer writes well-formed trees alone."""
    words: int = 100
    """Size of the vector of a word that is in the training sentences twice at least."""
    shapes: int = 50
    """Size of the vector of what it looks like."""
    hidden: int = 200
    """Units of the recurrent layers, in each direction, and of the writer."""
    layers: int = 2
    """Recurrent layers of the encoder."""
    scoring: int = 100
    """Units with which a step is compared with a word, or a span is labelled."""
    draws: int = 4
    """Of the words that a step may look at, in hard training."""
    soft: float = 0.5
    """The share of the steps in which hard attention is trained softly at first."""
    tagging: float = 0.3
    """Weight of guessing the parts of speech from the first recurrent layer."""
    dropout: float = 0.3
    """Share of what is dropped before each layer, the same units for all words of a sentence."""
    word_dropout: float = 0.1
    """Share of the words that are known by what they look like alone."""
    epochs: int = 6
    """Passes over the training sentences."""
    batch: int = 32
    """Sentences of a step, about as long as each other."""
    learning_rate: float = 4e-3
    """The highest, after a twentieth of the steps; it then falls to zero by a cosine."""
    clip: float = 3.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "longest", "words", "shapes", "hidden", "layers", "scoring")
        flags.share(self, "soft", "dropout", "word_dropout")
        flags.above_zero(self, "clip")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")


def data(config: Config) -> datasets.Splits:
    """The sentences and their trees."""
    return datasets.bracketed(config.data, config.longest)


def _learned(weights: Mapping[str, Tensor]) -> Known:
    return Known(**read_facts(weights))


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No sentences, but the words and labels that were learned."""
    none = Bracketed([], _learned(weights))
    return datasets.Splits(none, none, none, "", tuple(none.known.labels))


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The sentences in the words and labels that were learned."""
    return datasets.bracketed(config.data, config.longest, _learned(weights))


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The same of sentences that need no training part."""
    return brackets_to_test(config.data, config.longest, _learned(weights))


class Model(nn.Module):
    """An encoder, and a chart of spans or a writer of brackets."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.known, self.constrained = config, train.known, config.constrained == "yes"
        self.facts = Facts(**{name: list(each) for name, each in train.known._asdict().items()})
        self.encoder, size = Encoder(config, train.known), 2 * config.hidden
        self.chart: Any = None
        self.writer: Any = None
        if config.decoder == "chart":
            self.chart = Chart(size, 2 * config.scoring, len(train.known.chains), config.dropout)
        else:
            steps = config.epochs * (len(train) // config.batch)
            over, read = {
                "additive": (rg.softmax, rg.mean),
                "monotonic": (rg.monotonic(noise=1.0), Online()),
                "hard": (rg.softmax, SoftThen(round(config.soft * steps), rg.hard)),
                "none": (None, rg.mean),
            }[config.decoder]
            self.writer = Writer(config, size, len(train.known.labels), over, read)

    @property
    def draws(self) -> bool:
        """Whether what is read is drawn now."""
        return self.config.decoder == "hard" and self.training and not self.writer.attention.read.soft

    def forward(self, batch: dict[str, Tensor]) -> tuple[Any, Tensor]:
        """The scores of spans, or what is made of the true steps with the state; and the scores of the tags."""
        words, tags = self.encoder(batch)
        if self.chart:
            return self.chart(words), tags
        begin = torch.full_like(batch["steps"][:, :1], BEGIN)
        before = torch.cat((begin, batch["steps"][:, :-1]), 1)
        return self.writer(before, self.writer.begin(words, batch["words"] > 0)), tags

    def step(self, steps: Tensor, state: Written) -> tuple[Tensor, Written]:
        """The log-probabilities of what follows on steps (N,), for `regard.app.text.decoding`."""
        output, state = self.writer(steps.unsqueeze(1), state)
        logits = self.writer.label(output.features[:, 0])
        if self.constrained:
            logits = logits.masked_fill(~well_formed(state, len(self.known.labels)), -torch.inf)
        return logits.log_softmax(-1), state

    def trees(self, batch: dict[str, Tensor]) -> tuple[list[Spans | None], Tensor]:
        """The brackets of each sentence, None where malformed, and the parts of speech of its words, (B, K)."""
        words, tags = self.encoder(batch)
        present = batch["words"] > 0
        if self.chart:
            labels, _ = decoded_spans(self.chart(words), present)
            return [unchained(each, self.known) for each in labels], tags.argmax(-1)
        counts = present.sum(-1)
        longest = counts * (2 * NESTED + 1) + 1 if self.constrained else 6 * counts + 20
        begun = self.writer.begin(words, present)
        written = decoding.greedy(self.step, begun, longest, BEGIN, END)
        return [read_steps(each.tolist(), n) for each, n in zip(written, counts.tolist(), strict=True)], tags.argmax(-1)


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-probability of the true tree, and the cross-entropy of the parts of speech, of a word."""
    made, tags = model(batch)
    present = batch["words"] > 0
    tagging = cross_entropy(tags.flatten(0, 1), batch["tags"].flatten(), ignore_index=-1, reduction="sum")
    by = by_chart if model.chart else by_draws if model.draws else by_mean
    trees = by(model, made, batch).sum() / present.sum()
    return trees + model.config.tagging * tagging / present.sum(), {"trees": trees}


def by_chart(model: Model, scores: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The cost of each tree, (B,), by the scores of spans."""
    return chart_cost(scores, batch["words"] > 0, batch["chains"])


def by_mean(model: Model, made: tuple[Output, Written], batch: dict[str, Tensor]) -> Tensor:
    """The cost of each step, (B, T), by what was read."""
    return _cost(model, made[0].features, batch["steps"])


def by_draws(model: Model, made: tuple[Output, Written], batch: dict[str, Tensor]) -> Tensor:
    """The cost of each step by the words that were drawn and read, on average; compared with each other, they also
    train where to look."""
    output, state = made
    z = output.look.positions.sample((model.config.draws,))
    cost = _cost(model, model.writer.given(z, output, state.memory), batch["steps"])
    log_prob = output.look.positions.log_prob(z).where(batch["steps"] > 0, 0)
    return cost.mean(0) + rg.leave_one_out(log_prob, cost.detach()).mean(0)


def _cost(model: Model, features: Tensor, steps: Tensor) -> Tensor:
    """The cross-entropy of steps (B, T) by features (*S, B, T, D): (*S, B, T), 0 after END."""
    logits, wanted = model.writer.label(features), steps.expand(features.shape[:-1])
    found = cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=0, reduction="none")
    return found.view(wanted.shape)


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is `compared` of each tree, (B,), and whether each part of speech is right, (words,)."""
    trees, tags = model.trees(batch)
    return compared(trees, batch) | {"tags": (tags == batch["tags"])[batch["tags"] >= 0].float()}


def after_step(model: Model) -> None:
    """Counts the steps in which hard attention is trained softly."""
    if model.config.decoder == "hard":
        model.writer.attention.read.count()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam with a short memory, its rate rising over a twentieth of the steps, and its gradients clipped."""
    found, schedule = adam(model.parameters(), config.learning_rate, steps, betas=(0.9, 0.98), rising=20)
    return clipped(found, config.clip), schedule


def noun(splits: datasets.Splits) -> str:
    """What is parsed."""
    return "sentence"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The tree of each sentence, and of a writer where each step looks if it has to write the true tree."""
    trees, _ = model.trees(batch)
    looks = alignments(model, batch)
    return [pictured(tree, batch, n, model.known, looks[n] if looks else None) for n, tree in enumerate(trees)]


def alignments(model: Model, batch: dict[str, Tensor]) -> list[Matrix]:
    """Where the steps of the true trees look; nothing of a model that looks at no word."""
    if model.config.decoder in ("none", "chart"):
        return []
    (output, _), _ = model.eval()(batch)
    found = zip(batch["text"], batch["steps"], output.look.weights.detach().float(), strict=True)
    sides = ((spelled(text), spoken(steps, model.known), weights) for text, steps, weights in found)
    return [Matrix(words, steps, weights[: len(steps), : len(words)]) for words, steps, weights in sides]


def glance(model: Model, batch: dict[str, Tensor]) -> Matrix | None:
    """Where the steps of the one tree look."""
    return next(iter(alignments(model, batch)), None)


READS, inputs, prepare = "lines of text", lines.inputs, made_trees.prepare
conclude, badness = made_trees.conclude, made_trees.badness


def predict(model: Model, prepared: Sequence[Bracketing], options: Any) -> list[str]:
    """The tree of each sentence, on one line."""
    trees, tags = model.trees(Bracketed(prepared, model.known).batch(torch.arange(len(prepared))))
    return made_trees.lines_of(prepared, trees, tags, model.known)


def example(model: Model, text: str) -> datasets.Split:
    """A sentence without a tree."""
    return Bracketed([prepare(model, text)], model.known)
