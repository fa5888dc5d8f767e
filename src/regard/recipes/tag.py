"""Label the words of a sentence, such as its chunks or its names: a tagger that ends in a chain.

Lafferty et al. 2001, "Conditional Random Fields"; Lample et al. 2016, "Neural Architectures for Named Entity
Recognition"; Ma and Hovy 2016, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF". Word vectors and
characters, recurrent layers in both directions, and over the scores of the labels a distribution: `chain`, over whole
labellings, whose constraints forbid what is not well formed in labels of spans, B-KIND, I-KIND and O; or `softmax`,
over each label by itself.

No vectors from elsewhere; further columns are read with `--features`. Judged as by conlleval: F1 of whole spans with
their kinds. Where the labels are of no spans, as parts of speech, every word is one.

    regard train tag                                                names in made-up sentences: a minute on one core
    regard train tag --data FOLDER                                  train.txt and test.txt, or *train.conllu
    regard compare tag                                              chain and softmax side by side

To reach: F1 94 on the chunks of CoNLL 2000, and 81.5 on the names of CoNLL 2002 in Spanish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Picture
from regard.app.report.text_figures import png
from regard.app.report.text_figures import spans as drawn_spans
from regard.app.text import lines
from regard.app.text.parsing import Forms, Recurrent, Vocabulary
from regard.app.text.reading import clean
from regard.app.text.spans import Span, of_spans, scored, spans
from regard.app.text.tokens import cased_tokens
from regard.app.training.schedules import adam, clipped
from regard.recipes.base import COSTS, Measure, Metric

METRIC = Metric("valid_f1", "max", "distance to 1 of the F1 of the validation spans", 1.0, "F1")
NAMED_BY, QUICK = ("over",), {"epochs": 2}
COLUMNS = (
    Measure("test_f1", 100, "F1", "%", "Of the spans of the test sentences, ± {spread}."),
    Measure("test_precision", 100, "precision", "%", "Share of the spans that were found which are right."),
    Measure("test_recall", 100, "recall", "%", "Share of the right spans that were found."),
    Measure("test_accuracy", 100, "words", "%", "Share of the words with the right label."),
    *COSTS,
)

KINDS = {
    "chain": "Labels all words of a sentence at once: a chain of labels, in which none follows that may not.",
    "softmax": "Labels each word by itself.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the sentences, and what is dropped."""
    data: str = "generated"
    """generated (sentences with names), a file of columns, word ... label, with an empty line after each sentence, or a
    folder of such files or of CoNLL-U: *train.*, *dev.*, *test.*, gzipped or not."""
    column: int = 0
    """Which column has the labels, from 1 on; 0 is the last one, or the parts of speech of CoNLL-U."""
    over: Literal["chain", "softmax"] = "chain"
    """Whole labellings with their transitions, or every label by itself."""
    words: int = 100
    """Size of the vector of a word that is in the training sentences twice at least."""
    letters: int = 32
    """Size of the vector of a character."""
    filters: int = 100
    """Filters over three characters each; a word's vector has the largest of each."""
    features: int = 0
    """Size of the vector of the columns between word and label; 0 reads none."""
    hidden: int = 128
    """Units of the recurrent layers in each direction."""
    layers: int = 1
    """Recurrent layers."""
    dropout: float = 0.5
    """Share of what is dropped before and after each layer."""
    word_dropout: float = 0.1
    """Share of the words that are known by their characters alone, and of further columns."""
    epochs: int = 6
    """Passes over the training sentences."""
    batch: int = 16
    """Sentences of a step, about as long as each other."""
    learning_rate: float = 4e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""
    clip: float = 5.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "words", "letters", "filters", "hidden", "layers")
        flags.share(self, "dropout", "word_dropout")
        flags.above_zero(self, "clip")
        for name in ("column", "features"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} expected a number of at least 0, but got {getattr(self, name)}")


def data(config: Config) -> datasets.Splits:
    """The sentences and their labels."""
    return datasets.tagged(config.data, config.column)


class Nothing(NamedTuple):
    """What a model asks the sentences that it learns from, where there are none: every known word twice."""

    names: Tensor
    words: Tensor
    forms: Tensor
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return 0


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No sentences, but the words, characters and labels that were learned."""
    names, letters = weights["forms.known.seen"], weights["forms.alphabet.seen"]
    features = {"features": weights["further.seen"]} if config.features else {}
    none: Any = Nothing(names, torch.arange(len(names)).repeat(2), letters, features)
    return datasets.Splits(none, none, none, "", tuple(read_facts(weights)["classes"]))


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The sentences in the labels that were learned."""
    return datasets.tagged(config.data, config.column, read_facts(weights)["classes"])


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The same of sentences that need no training part."""
    return datasets.tagged_to_test(config.data, config.column, read_facts(weights)["classes"])


class Model(nn.Module):
    """Word and character vectors, recurrent layers in both directions, and over the scores of the labels a
    distribution."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.classes, labels = config, splits.classes, len(splits.classes)
        self.facts = Facts(classes=list(splits.classes))
        self.forms = Forms(config, train)
        if config.features:
            self.further = Vocabulary(train.columns["features"])
            self.feature = nn.Embedding(len(self.further), config.features)
        sizes = [config.words + config.filters + config.features, *[2 * config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList(Recurrent(size, config.hidden) for size in sizes)
        self.dropped = nn.Dropout(config.dropout)
        self.score = nn.Linear(2 * config.hidden, labels)
        self.chunked = of_spans(splits.classes)
        self.over: Any = rg.softmax
        if config.over == "chain":
            links, ends = torch.zeros(labels, labels), torch.zeros(2, labels)
            allowed = rg.bio(splits.classes) if self.chunked else None
            self.over = rg.chain(nn.Parameter(links), *map(nn.Parameter, ends.unbind()), constraints=allowed)

    def forward(self, batch: Mapping[str, Tensor]) -> rg.Positions:
        """The distribution of the labels of sentences."""
        present = batch["words"] >= 0
        words = self.vectors(batch)
        for layer in self.layers:
            words = layer(self.dropped(words), present.sum(-1))
        return self.over(self.score(self.dropped(words)).float(), present.unsqueeze(-1))

    def vectors(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What each word looks like, and what stands in its further columns, (B, K, D)."""
        words = self.forms(batch)
        if not self.config.features:
            return words
        known = self.further(batch["features"])
        if self.training:
            known = known.masked_fill(torch.rand(known.shape, device=known.device) < self.config.word_dropout, 0)
        return torch.cat((words, self.feature(known)), -1)

    def spans(self, labels: Sequence[int]) -> list[Span]:
        """The spans that the numbers of labels say; every word is one where the labels are of none."""
        names = [self.classes[label] for label in labels]
        return spans(names) if self.chunked else [Span(n, n + 1, name) for n, name in enumerate(names)]

    def count(self, found: Tensor, wanted: Tensor, present: Tensor) -> tuple[int, int, int]:
        """How many spans labels (K,) say that were found, how many are wanted, and how many are both."""
        ours, gold = (set(self.spans(each[present].tolist())) for each in (found, wanted))
        return len(ours), len(gold), len(ours & gold)


def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-probability of the labels, of a sentence."""
    positions = model(batch)
    return -positions.log_prob(batch["labels"]).sum() / len(batch["words"]), {}  # the chain has (B,), softmax (B, K)


def evaluate(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whether each word has its label, (words,), and of each sentence whether some is wrong, and how many spans were
    found, are wanted, and are right."""
    found, present = model(batch).mode, batch["words"] >= 0
    right = found == batch["labels"]
    counts = torch.tensor([model.count(*rows) for rows in zip(found, batch["labels"], present, strict=True)])
    return {
        "accuracy": right[present].float(),
        "error": (~right & present).any(-1).float(),
        **dict(zip(("found", "wanted", "right"), counts.float().unbind(-1), strict=True)),
    }


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The means of words and sentences, and precision, recall and F1 of all spans."""
    counts = {name: sums[name][0] for name in ("found", "wanted", "right")}
    means = {name: total / count for name, (total, count) in sums.items() if name not in counts}
    return means | scored(counts)


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, and its gradients clipped."""
    found, schedule = adam(model.parameters(), config.learning_rate, steps)
    return clipped(found, config.clip), schedule


def noun(splits: datasets.Splits) -> str:
    """What is tagged."""
    return "sentence"


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The words of each sentence, once for each kind of label in it, the darker the more probably they have it; those
    that should be labelled are underlined."""
    positions = model(batch)
    rows = zip(positions.mode, positions.mean.detach().float(), batch["labels"], batch["words"], strict=True)
    return [
        _picture(model, _spelled(batch["forms"], words[words >= 0]), *(each[words >= 0] for each in (z, mean, gold)))
        for z, mean, gold, words in rows
    ]


def _spelled(forms: Tensor, words: Tensor) -> list[str]:
    return ["".join(map(chr, filter(None, form))) for form in forms[words].tolist()]


def _picture(model: Model, words: list[str], found: Tensor, mean: Tensor, gold: Tensor) -> Picture:
    known = int(gold.min()) >= 0
    ours, true = set(model.spans(found.tolist())), set(model.spans(gold.tolist()) if known else ())
    kinds = sorted({span.kind for span in ours | true}) or ["none"]
    of_kind = torch.tensor([[label.split("-", 1)[-1] == kind for label in model.classes] for kind in kinds])
    weights = of_kind.to(mean) @ mean.T  # (kinds, K)
    marked = torch.zeros(len(words), dtype=torch.bool)
    for span in true if model.chunked else ():
        marked[span.start : span.end] = True
    said = {
        "found": ours & true if len(true) else ours,
        "not found": true - ours,
        "wrong": ours - true if true else set(),
    }
    text = "; ".join(f"{name} {_listed(words, each)}" for name, each in said.items() if each) or "no span"
    return Picture(" ".join(words), f"{text}.", png(drawn_spans(words, weights, marked, kinds)))


def _listed(words: list[str], found: set[Span]) -> str:
    return ", ".join(f"“{' '.join(words[span.start : span.end])}” ({span.kind})" for span in sorted(found))


READS, inputs = "lines of text", lines.inputs


def prepare(model: Any, given: str | Sequence[str]) -> list[str]:
    """The words of a text, or words as they are. Raises ValueError where there are none."""
    words = cased_tokens(clean(given)) if isinstance(given, str) else [clean(word) for word in given]
    if not words or not all(words):
        raise ValueError(f"expected a text with a word in it, but got {given!r}")
    return words


class Answer(NamedTuple):
    """The words of a text and their labels."""

    words: list[str]
    labels: list[str]


def predict(model: Model, prepared: Sequence[list[str]], options: Any) -> list[Answer]:
    """The most probable labels of each text."""
    found = model(datasets.untagged(prepared).batch(torch.arange(len(prepared)))).mode.tolist()
    return [
        Answer(words, [model.classes[label] for label in labels[: len(words)]])
        for words, labels in zip(prepared, found, strict=True)
    ]


def written(given: Any, prediction: Answer) -> str:
    """A word and its label a line, and an empty line after them."""
    return "\n".join([*(f"{word}\t{label}" for word, label in zip(*prediction, strict=True)), ""])


def example(model: Model, text: str) -> datasets.Split:
    """A text without labels."""
    return datasets.untagged([prepare(model, text)])
