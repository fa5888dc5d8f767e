"""Find the head of every word of a sentence, and the relation between the two: a graph-based dependency parser.

Dozat and Manning 2017, "Deep Biaffine Attention for Neural Dependency Parsing": each word scores all others as its
head, and softmax picks one, word by word. Here the distribution is over whole trees instead (Kim et al. 2017,
"Structured Attention Networks", section 3.2; Koo et al. 2007, "Structured Prediction Models via the Matrix-Tree
Theorem"; Eisner 1996, "Three New Probabilistic Models for Dependency Parsing"): training maximises the probability of
the true tree among all, and what is decoded is the most probable one. `--over softmax` is the same network with the
loss and the greedy decoding of the first paper, whose answer need not be a tree.

Words are given as they are in the data; nothing else is used, no tags and no vectors from elsewhere. Of a sentence
whose tree is not projective, a distribution over projective trees learns the relations alone, as its arcs are
impossible there.

    regard train parse                                                  a made-up grammar: a minute on one core
    regard experiment parse --data DIR --size large --over projective --threads 2      40 minutes on two cores

Measured as in the shared task CoNLL 2018: all words count, punctuation too, and of a relation what is before the
colon. The number to reach on UD English EWT: 88 % of the heads (UAS).
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
from regard.app.data.conllu import Block, annotated, only_sentence, stream_sentences
from regard.app.data.trees import RELATIONS, TAGS, unparsed
from regard.app.report.report import Picture
from regard.app.report.text_figures import arcs, png
from regard.app.text.networks import Dropped
from regard.app.text.parsing import Arcs, Forms, Recurrent, Relations
from regard.app.text.reading import clean, raw_lines
from regard.app.training.schedules import adam
from regard.recipes.base import COSTS, Measure, Metric, from_files

METRIC = Metric("valid_las", "max", "share of the validation words with a wrong head or relation", 1.0, "LAS")

NAMED_BY = ("over",)

COLUMNS = (
    Measure("test_uas", 100, "UAS", "%", "Share of the test words with the right head."),
    Measure("test_las", 100, "LAS", "%", "Share of the test words with the right head and relation."),
    *COSTS,
)

KINDS = {
    "projective": "A head for each word, of all trees whose arcs do not cross.",
    "nonprojective": "A head for each word, of all trees.",
    "softmax": "A head for each word by itself: not always a tree.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the sentences, and what is dropped."""
    data: str = "generated"
    """generated (sentences of a small grammar), or a folder of CoNLL-U files: *train.conllu, *dev.conllu, *test.conllu,
    gzipped or not."""
    over: Literal["projective", "nonprojective", "softmax"] = "projective"
    """Trees without or with crossing arcs; softmax chooses the head of each word by itself."""
    words: int = 100
    """Size of the vector of a word that is in the training sentences twice at least."""
    letters: int = 32
    """Size of the vector of a character."""
    filters: int = 100
    """Filters over three characters each; a word's vector has the largest of each."""
    hidden: int = 200
    """Units of the recurrent layers in each direction."""
    layers: int = 2
    """Recurrent layers."""
    arcs: int = 256
    """Size of a word as a head and as a dependent, to score arcs with."""
    relations: int = 100
    """The same, to score relations with."""
    dropout: float = 0.33
    """Share of what is dropped before each layer, the same units for all words of a sentence."""
    word_dropout: float = 0.2
    """Share of the words that are known by their characters alone."""
    tagging: float = 0.3
    """Weight of guessing the parts of speech from the first recurrent layer, which the parser is not told."""
    epochs: int = 6
    """Passes over the training sentences."""
    batch: int = 32
    """Sentences of a step."""
    learning_rate: float = 4e-3
    """The highest, after a twentieth of the steps; it then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "words", "letters", "filters", "hidden", "layers", "arcs", "relations")
        flags.share(self, "dropout", "word_dropout")


def data(config: Config) -> datasets.Splits:
    """The sentences, their trees and relations."""
    return datasets.treebank(config.data)


class NoTrees(NamedTuple):
    """What a model asks the sentences that it learns from, where there are none: every known word twice."""

    names: Tensor
    words: Tensor
    forms: Tensor

    def __len__(self) -> int:
        return 0


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No sentences, but the words and characters that were learned."""
    names, letters = weights["forms.known.seen"], weights["forms.alphabet.seen"]
    none: Any = NoTrees(names, torch.arange(len(names)).repeat(2), letters)
    return datasets.Splits(none, none, none, "")


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Sentences to test on; a batch of them is the same for every model."""
    return datasets.trees_to_test(config.data)


class Parsed(NamedTuple):
    """What is said of sentences (B, K)."""

    positions: rg.Positions
    """The distribution of the heads."""
    words: Tensor
    """What was understood of each word, (B, K, D)."""
    tags: Tensor
    """Logits of the parts of speech, (B, K, tags)."""


class Model(nn.Module):
    """Word and character vectors, recurrent layers in both directions, and over the scores of arcs a distribution."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        self.config, size = config, 2 * config.hidden
        self.forms = Forms(config, splits.train)
        sizes = [config.words + config.filters, *[size] * (config.layers - 1)]
        self.layers = nn.ModuleList(Recurrent(each, config.hidden) for each in sizes)
        self.dropped = Dropped(config.dropout)
        self.tag = nn.Linear(size, len(TAGS))
        self.score, self.relate = Arcs(size, config), Relations(size, config)
        self.over: Any = {
            "projective": lambda: rg.tree(projective=True, single_root=True),
            "nonprojective": lambda: rg.tree(projective=False, single_root=True),
            "softmax": lambda: rg.softmax,
        }[config.over]()

    def forward(self, batch: dict[str, Tensor]) -> Parsed:
        present = batch["words"] >= 0
        layers = [self.forms(batch)]
        for layer in self.layers:
            layers.append(layer(self.dropped(layers[-1]), present.sum(-1)))
        words = self.dropped(layers[-1])
        positions = self.over(self.score(words), present.unsqueeze(-1) & present.unsqueeze(-2))
        return Parsed(positions, words, self.tag(self.dropped(layers[1])).float())


def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-probability of the true heads, and the cross-entropy of the relations to them, of a word."""
    parsed, count = model(batch), (batch["words"] >= 0).sum()
    log_prob = parsed.positions.log_prob(batch["heads"])  # (B,), or (B, K) if the heads are independent
    impossible = log_prob == -math.inf
    arcs = -log_prob.masked_fill(impossible, 0).sum() / count
    relations = _cross_entropy(model.relate(parsed.words, batch["heads"]), batch["relations"]) / count
    tags = model.config.tagging * _cross_entropy(parsed.tags, batch["tags"]) / count
    logs = {"arcs": arcs, "relations": relations, "impossible": impossible.float().mean()}
    return arcs + relations + tags, logs


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (B, K, labels) and labels (B, K), the sum over the words that have one."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum")


def evaluate(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whether each word has its head (`uas`), and the relation to it as well (`las`), (words,); the same of those that
    are no punctuation; and of each sentence, (B,), whether some head is wrong, and whether the heads are a tree."""
    parsed = model(batch)
    heads, present = parsed.positions.mode, batch["words"] >= 0
    right = heads == batch["heads"]
    both = right & (model.relate(parsed.words, heads).argmax(-1) == batch["relations"])
    proper = present & (batch["tags"] != TAGS.index("PUNCT"))
    return {
        "uas": right[present].float(),
        "las": both[present].float(),
        "uas_without_punctuation": right[proper].float(),
        "las_without_punctuation": both[proper].float(),
        "error": (~right).any(-1).float(),
        "tree": _is_tree(heads).float(),
    }


def _is_tree(heads: Tensor) -> Tensor:
    """Whether the heads (B, K) of each sentence are a possible tree, with one root: (B,)."""
    scores = torch.zeros(*heads.shape, heads.shape[1], device=heads.device)
    return rg.Tree(scores, heads >= 0, projective=False).log_prob(heads).isfinite()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam with a short memory, its rate rising over a twentieth of the steps."""
    return adam(model.parameters(), config.learning_rate, steps, betas=(0.9, 0.9), rising=20)


def noun(splits: datasets.Splits) -> str:
    """What is parsed."""
    return "sentence"


def look(model: Any, batch: dict[str, Tensor]) -> list[Picture]:
    """The trees that were decoded, as arcs as thick as they are probable, and the arcs that are wrong."""
    parsed = model(batch)
    heads, weights = parsed.positions.mode, parsed.positions.mean.detach().float()
    relations = model.relate(parsed.words, heads).argmax(-1)
    return [
        _picture(_spelled(batch, n), *(each[n, : int(length)] for each in (heads, batch["heads"], weights, relations)))
        for n, length in enumerate((batch["words"] >= 0).sum(-1))
    ]


def _spelled(batch: dict[str, Tensor], n: int) -> list[str]:
    """The words of a sentence of a batch."""
    forms = batch["forms"][batch["words"][n][batch["words"][n] >= 0]].tolist()
    return ["".join(chr(letter) for letter in form if letter) for form in forms]


def _picture(words: list[str], heads: Tensor, gold: Tensor, weights: Tensor, relations: Tensor) -> Picture:
    """One sentence: its arcs, and which are wrong in words."""
    found, true = ([_head(words, i, int(head)) for i, head in enumerate(each)] for each in (heads, gold))
    wrong = [
        f"{word} below {head}, not {truth}"
        for word, head, truth in zip(words, found, true, strict=True)
        if head != truth
    ]
    figure = arcs(words, heads, gold, weights[:, : len(words)], [RELATIONS[relation] for relation in relations])
    verdict = f"{len(words) - len(wrong)} of {len(words)} heads are right"
    return Picture(" ".join(words), "; ".join([verdict, *wrong]) + ".", png(figure))


def _head(words: list[str], i: int, head: int) -> str:
    """What a word is below, by name and number."""
    return "the root" if head == i else f"{words[head]} ({head + 1})"


READS = "sentences in CoNLL-U"


class Tree(NamedTuple):
    """The head of each word, counted from 1 on and 0 for the root, and the relation to it."""

    heads: tuple[int, ...]
    relations: tuple[str, ...]


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[Block | Exception]:
    """The sentences."""
    return from_files(arguments, stream, lambda file, name: stream_sentences(raw_lines(file, name), name))


def prepare(model: Model, given: Block | str | Sequence[str]) -> Any:
    """A sentence, in CoNLL-U or as a list of words, without a tree. Raises ValueError where there are no words."""
    block = only_sentence(given) if isinstance(given, str) else given
    words = block.words if isinstance(block, Block) else tuple(map(clean, block))
    if not words or not all(words):
        raise ValueError(f"expected the words of a sentence, but got {given!r}")
    return unparsed(words)


def predict(model: Model, prepared: Sequence[Any], options: Any) -> list[Tree]:
    """The most probable tree of each sentence."""
    batch = datasets.Trees(prepared).batch(torch.arange(len(prepared)))
    parsed = model(batch)
    heads = parsed.positions.mode
    relations = model.relate(parsed.words, heads).argmax(-1)
    return [
        _tree(*(each[n, : len(sentence.words)].tolist() for each in (heads, relations)))
        for n, sentence in enumerate(prepared)
    ]


def _tree(heads: list[int], relations: list[int]) -> Tree:
    counted = (0 if head == n else head + 1 for n, head in enumerate(heads))
    return Tree(tuple(counted), tuple(RELATIONS[relation] for relation in relations))


def written(given: Block, prediction: Tree) -> str:
    """The sentence in CoNLL-U, all else in it as it was."""
    return "\n".join([*annotated(given, *prediction), ""])
