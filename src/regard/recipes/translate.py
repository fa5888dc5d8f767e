"""Translate sentences: an encoder reads them, a decoder writes word by word and looks back at what was read.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate": the decoder attends to
the encoder's states, where before all of a sentence had to fit into one vector (`--attention none`; Sutskever et al.
2014, "Sequence to Sequence Learning with Neural Networks"). The decoder is that of Luong et al. 2015, "Effective
Approaches to Attention-based Neural Machine Translation": it looks with its new state, and what came of that is fed to
the next step (section 3.3). Any mechanism may do the looking; these are trained in a way of their own:

- `hard` reads one place, drawn in training. The word's cost under several draws trains where to look, each draw
  compared with the others (`leave_one_out`); that a draw also changes later words is left out.
- `variational` and `exact` take the alignment for a latent variable of each word (Deng et al. 2018, "Latent Alignment
  and Variational Attention"): p(word) = sum_z p(z) p(word | z). `exact` goes through all places; `variational` draws
  them from a posterior that has seen the word, and bounds the same likelihood. Fed to the next step is the mean under
  the prior, so that the likelihood of a sentence remains a product over its words.
- These three are trained as soft attention in the first half of the training: where to look is learned from draws only
  when it matters already what is seen there.
- `self` is a Transformer (Vaswani et al. 2017, "Attention Is All You Need").

    regard train translate                                               dates: a minute on one core
    regard train translate --data DIR/multi30k --config experiments/translate/comparison.yaml
    regard predict RUN < source.txt > target.txt

The number to reach on Multi30k, German to English, lower-cased and tokenised, test of 2016: BLEU 37.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.explaining import Explained
from regard.app.facts import Facts, read_facts
from regard.app.report.matrix import Matrix, merged
from regard.app.report.report import Picture
from regard.app.report.text_figures import png, squares
from regard.app.text import decoding, translating
from regard.app.text.bleu import bleu, counts
from regard.app.text.networks import Decoded, Dropped, Recurrent, SoftThen, State, Transformer, wide
from regard.app.text.reading import clean, stream_lines
from regard.app.text.vocabulary import BEGIN, END, vocabulary, whole_words
from regard.app.training.errors import Failure
from regard.app.training.schedules import adam
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_bleu", "max", "distance to 100 of BLEU on the validation sentences", 100.0, "BLEU")

NAMED_BY, QUICK = ("attention",), {"epochs": 2}

COLUMNS = (
    ERROR,
    Measure("test_bleu", 1, "BLEU", "", "Of the greedy translations of the test {noun}s."),
    Measure("test_perplexity", 1, "perplexity", "", "Of a subword of the test {noun}s."),
    *COSTS,
)


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the sentences, what is dropped and what is drawn."""
    data: str = "generated"
    """generated (dates in words and in figures), or a folder of sentences, train*.LANGUAGE, val*.LANGUAGE and
    test*.LANGUAGE, gzipped or not."""
    source: str = "de"
    """The language to translate from, as the files are called."""
    target: str = "en"
    """The language to translate to."""
    attention: Literal[
        "additive", "dot", "scaled-dot", "general", "concat", "cosine", "location", "local-m", "local-p", "monotonic",
        "sparsemax", "entmax", "segments", "hard", "variational", "exact", "none", "self",
    ] = "additive"  # fmt: skip
    """How the decoder looks at the sentence: a mechanism of `regard list`; exact, as variational but going through all
    alignments; none, one fixed vector; self, a Transformer."""
    subwords: int = 4000
    """Subwords of the two languages together."""
    hidden: int = 128
    """Size of a subword's vector, of the decoder's state, and of the encoder's two directions together."""
    layers: int = 1
    """Layers of the encoder; of a Transformer, of the decoder as well."""
    heads: int = 4
    """Attentions side by side in each layer of a Transformer."""
    dropout: float = 0.2
    """Share of the units that are dropped."""
    smoothing: float = 0.1
    """Share of the probability that is to be spread over all words instead of the right one."""
    draws: int = 4
    """Places that are drawn for each word, by hard and variational."""
    soft: float = 0.5
    """Share of the training, at its beginning, in which hard, variational and exact are trained as soft attention."""
    epochs: int = 6
    """Passes over the training sentences, at most."""
    patience: int = 5
    """Epochs without a better translation after which training stops."""
    batch: int = 64
    """Sentences of a step."""
    learning_rate: float = 3e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "hidden", "layers", "heads", "patience")
        flags.at_least(5, self, "subwords")
        flags.share(self, "dropout", "smoothing", "soft")
        if self.hidden % 2 or self.hidden % self.heads:
            raise ValueError(f"--hidden expected a multiple of 2 and of --heads {self.heads}, but got {self.hidden}")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")


def data(config: Config) -> datasets.Splits:
    """The sentences and their translations."""
    return datasets.translations(config.data, config.source, config.target, config.subwords)


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No sentences, in the vocabulary that the weights come with."""
    if "spelling" not in weights:
        raise Failure("the weights have no vocabulary, which those of a translator come with.")
    tokenised = read_facts(weights).get("tokenised", config.data.endswith("tok"))
    spelling = vocabulary(bytes(weights["spelling"].tolist()).decode(errors="replace"))
    nothing = datasets.Pairs([], [], spelling, tokenised)
    return datasets.Splits(nothing, nothing, nothing, "")


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The sentences in the vocabulary that the weights come with."""
    return datasets.spelled_by(data(config), cast(Any, known(config, weights).train).vocabulary)


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Sentences in the vocabulary that the weights come with, to test on."""
    spelling = known(config, weights).train.vocabulary  # pyright: ignore
    return datasets.pairs_to_test(config.data, config.source, config.target, spelling)


def network(config: Config) -> Any:
    """What is between the subwords that are read and those that are written."""
    if config.attention == "self":
        return Transformer(config.hidden, config.heads, config.layers, config.dropout)
    row = {"none": None, "variational": "additive", "exact": "additive"}.get(config.attention, config.attention)
    return Recurrent(config.hidden, row, config.layers, config.dropout)


class Model(nn.Module):
    """Vectors of subwords, which also are the weights of the output (Press and Wolf 2017, "Using the Output Embedding
    to Improve Language Models"), and a network between. It keeps its vocabulary with the weights."""

    spelling: Tensor

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.vocabulary, self.tokenised = config, train.vocabulary, train.tokenised
        self.register_buffer("spelling", torch.frombuffer(bytearray(train.vocabulary.json.encode()), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_check_spelling)
        self.facts = Facts(tokenised=train.tokenised)
        self.words = nn.Embedding(len(train.vocabulary), config.hidden)
        nn.init.normal_(self.words.weight, std=config.hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(train.vocabulary)))
        steps = config.epochs * math.ceil(len(train) / config.batch)
        self.dropped, self.network = Dropped(config.dropout), network(config)
        if config.attention in SOFT_FIRST:
            reader = self.network.attention
            reader.read = SoftThen(round(config.soft * steps), reader.read)
        self.latent = config.attention in ("variational", "exact")
        if config.attention == "variational":
            sizes = {"query_dim": 2 * config.hidden, "key_dim": config.hidden, "hidden_dim": config.hidden}
            self.posterior: Any = rg.named.find("variational").make(**sizes)

    def vectors(self, words: Tensor) -> Tensor:
        """The vectors of words, of which units are dropped, (*B, D)."""
        return self.dropped(self.config.hidden**0.5 * self.words(words))

    def begin(self, source: Tensor) -> Any:
        """The state before the first word of the translations of sentences (B, K)."""
        return self.network.begin(self.vectors(source), source > 0)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Decoded, Any]:
        """What is made of every word of the translation, given those before it; and the state."""
        target = batch["target"]
        before = torch.cat((torch.full_like(target[:, :1], BEGIN), target[:, :-1]), 1)
        decoded, state = self.network(self.vectors(before), self.begin(batch["source"]))
        ones = torch.ones_like(decoded.features[:, :1])
        return decoded._replace(kept=dropout(ones, self.config.dropout, self.training)), state

    def logits(self, features: Tensor) -> Tensor:
        """The scores of all words from features (*B, D), (*B, words)."""
        return wide(nn.functional.linear(features, self.words.weight, self.bias))

    def cost(self, decoded: Decoded, features: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        """The cross-entropy of each word of translations (B, T) by features (*S, B, T, D): (*S, B, T), 0 after END."""
        present = target > 0
        logits = self.logits((features * decoded.kept)[..., present, :])  # (*S, W, words)
        labels = target[present].expand(logits.shape[:-1])
        found = cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing)
        costs = found.new_zeros(features.shape[:-1])
        costs[..., present] = found.view(labels.shape)
        return costs

    def infer(self, query: Tensor, memory: rg.Memory) -> Any:
        """The posterior of the places of words that are known: from (B, T, 2 D), the decoder's states and the words."""
        return self.posterior(query, self.posterior.prepare(memory.values, memory.values, memory.mask)).positions

    def step(self, words: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The log-probabilities (N, words) of what follows the words (N,), for `regard.app.text.decoding`."""
        decoded, state = self.network(self.vectors(words.unsqueeze(1)), state)
        if not self.latent:
            return self.logits(decoded.features[:, 0]).log_softmax(-1), state
        places = decoded.positions.enumerate_support()[:-1]  # (K, N, 1)
        each = self.logits(self.network.given(places, decoded, state.memory)).log_softmax(-1)
        return (each + decoded.positions.log_prob(places).unsqueeze(-1)).logsumexp(0)[:, 0], state

    def longest(self, source: Tensor) -> Tensor:
        """How many subwords the translations of sentences (B, K) may have, (B,)."""
        return 2 * (source > 0).sum(-1) + 10

    def greedy(self, source: Tensor) -> list[Tensor]:
        """The most probable word after word for each of B sentences, without END."""
        return decoding.greedy(self.step, self.begin(source), self.longest(source))


def _check_spelling(model: Model, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    found = weights.get(f"{prefix}spelling")
    if found is not None and not torch.equal(found.cpu(), model.spelling.cpu()):
        raise Failure(
            "the vocabulary of the data is not that of the run, which was trained on other sentences or languages: "
            "`regard predict RUN` needs no data."
        )


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cost of a word, with what trains the attention of some: its value is zero."""
    (decoded, state), target = model(batch), batch["target"]
    first, later = SOFT_FIRST.get(model.config.attention, (by_mean, None))
    by = first if later is None or model.network.attention.read.soft else later
    return by(model, decoded, state, target, model.config.smoothing).sum() / (target > 0).sum(), {}


def by_mean(model: Model, decoded: Decoded, state: Any, target: Tensor, smoothing: float) -> Tensor:
    """The cost of each word (B, T) by what was read."""
    return model.cost(decoded, decoded.features, target, smoothing)


def by_draws(model: Model, decoded: Decoded, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The cost of each word (B, T) by the place that was drawn and read; compared with that of other places, it also
    trains where to look."""
    cost = model.cost(decoded, decoded.features, target, smoothing)
    z = torch.cat([look.z for look in decoded.looks], -1).unsqueeze(0)  # (1, B, T)
    others = decoded.positions.sample((model.config.draws - 1,))
    with torch.no_grad():
        costs = model.cost(decoded, model.network.given(others, decoded, state.memory), target, smoothing)
    z, costs = torch.cat((z, others)), torch.cat((cost.detach().unsqueeze(0), costs))
    return cost + rg.leave_one_out(decoded.positions.log_prob(z), costs).mean(0)


def by_posterior(model: Model, decoded: Decoded, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The evidence bound of each word (B, T), by places that are drawn from a posterior that sees the word."""
    posterior = model.infer(torch.cat((decoded.hidden, model.vectors(target)), -1), state.memory)
    z = posterior.sample((model.config.draws,))
    costs = model.cost(decoded, model.network.given(z, decoded, state.memory), target, smoothing)
    cost = (costs + rg.leave_one_out(posterior.log_prob(z), costs)).mean(0)
    return rg.variational(cost, posterior, decoded.positions).masked_fill(target == 0, 0)


def by_imitation(model: Model, decoded: Decoded, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The cost of each word (B, T) by what was read, with the divergence of the posterior from where the word looked:
    it trains nothing but the posterior, which is to begin there."""
    query = torch.cat((decoded.hidden, model.vectors(target)), -1).detach()
    memory = replace(state.memory, values=state.memory.values.detach())
    cost, prior = by_mean(model, decoded, state, target, smoothing), rg.OneHot(weights=decoded.weights.detach())
    return rg.variational(cost, model.infer(query, memory), prior).masked_fill(target == 0, 0)


def by_all_places(model: Model, decoded: Decoded, state: State, target: Tensor, smoothing: float) -> Tensor:
    """-log sum_z p(z) p(word | z) of each word (B, T) (Deng et al. 2018, section 2), place after place."""

    def likelihood(places: Tensor) -> Tensor:
        return torch.stack([checkpoint(of, z, use_reentrant=False) for z in places])  # pyright: ignore

    def of(z: Tensor) -> Tensor:
        return (-model.cost(decoded, model.network.given(z, decoded, state.memory), target, smoothing)).exp()

    return -rg.enumerate_exactly(decoded.positions, likelihood).log()


SOFT_FIRST = {
    "hard": (by_mean, by_draws),
    "variational": (by_imitation, by_posterior),
    "exact": (by_mean, by_all_places),
}
"""The costs of attentions that begin as soft ones: then, and later."""


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `loss` of each word, (words,); of each sentence, (B,), its mean over the words (`cost`), whether the greedy
    translation is not as the one to reach (`error`), and what BLEU counts of it."""
    (decoded, state), target = model(batch), batch["target"]
    cost = (by_all_places if model.latent else by_mean)(model, decoded, state, target, 0.0)
    written = [model.vocabulary.decode(words.tolist()) for words in model.greedy(batch["source"])]
    wanted = [bytes(row[row > 0].tolist()).decode() for row in batch["text"]]
    pairs = ([spaced(model, text) for text in both] for both in zip(written, wanted, strict=True))
    counted = [counts(ours, [theirs]) for ours, theirs in pairs]
    wrong = [one != other for one, other in zip(written, wanted, strict=True)]
    return {
        "loss": cost[target > 0],
        "cost": cost.sum(-1) / (target > 0).sum(-1),
        "error": torch.tensor(wrong).float(),
        **{name: torch.tensor([float(each[name]) for each in counted]) for name in counted[0]},
    }


def badness(values: Mapping[str, Tensor]) -> list[tuple[float, float]]:
    """How bad each translation is: the worse the lower its own BLEU, or if that is the same, the higher its cost."""
    columns = {name: each.tolist() for name, each in values.items() if name != "loss"}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [(-bleu(row), row["cost"]) for row in rows]


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """What is to be known of a split, from the sum and the number of each of its values."""
    loss, error = (total / count for total, count in (sums["loss"], sums["error"]))
    score = bleu({name: total for name, (total, _) in sums.items()})
    return {"loss": loss, "perplexity": math.exp(min(loss, 80)), "bleu": score, "error": error}


def spaced(model: Model, text: str) -> list[str]:
    """The words that BLEU counts: as they stand if the data are tokenised, else as sacrebleu's 13a cuts them; of dates
    the characters."""
    if model.config.data == "generated":
        return list(text)
    if model.tokenised:
        return text.split()
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()(text).split()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, its rate rising over a tenth of the steps and then falling to zero by a cosine."""
    return adam(model.parameters(), config.learning_rate, steps, betas=(0.9, 0.98))


def after_step(model: Model) -> None:
    """Notes that a step is made, where the first ones are trained in another way."""
    if model.config.attention in SOFT_FIRST:
        model.network.attention.read.count()


def noun(splits: datasets.Splits) -> str:
    """What is translated."""
    return "sentence"


@torch.no_grad()
def alignments(model: Model, source: Tensor, target: Tensor) -> list[Matrix]:
    """Where the words of translations (B, T) look in sentences (B, K), if the model has to write these: of whole words,
    which look as their subwords do on average, and are looked at as much as these together. END is a word."""
    decoded, _ = model.eval()({"source": source, "target": target})
    return [_aligned(model, *each) for each in zip(source, target, decoded.weights.float(), strict=True)]


def _aligned(model: Model, read: Tensor, written: Tensor, weights: Tensor) -> Matrix:
    """Where the words of one translation look, by the weights of its subwords."""
    sides = read[read > 0][: weights.shape[-1]], written[written > 0]
    (sources, of_source), (targets, of_target) = (
        whole_words(model.vocabulary.pieces(numbers.tolist())) for numbers in sides
    )
    if model.config.attention == "none":
        sources = ["(the whole sentence)"]
    return Matrix(sources, targets, merged(weights[: len(of_target), : len(of_source)], of_source, of_target))


def glance(model: Model, batch: dict[str, Tensor]) -> Matrix | None:
    """Where the words of the one translation look, if the model has to write it; nothing if they cannot choose."""
    if model.config.attention == "none":
        return None
    (aligned,) = alignments(model, batch["source"], batch["target"])
    return aligned


def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """The greedy translation of each sentence, with its own BLEU, and where each of its words looked."""
    written = model.greedy(batch["source"])
    ended = [nn.functional.pad(words, (0, 1), value=END) for words in written]
    aligned = alignments(model, batch["source"], pad_sequence(ended, batch_first=True))
    texts = [[model.vocabulary.decode(words.tolist()) for words in each] for each in (batch["source"], written)]
    wanted = [bytes(row[row > 0].tolist()).decode() for row in batch["text"]]
    return [_picture(model, *each) for each in zip(aligned, *texts, wanted, strict=True)]


def _picture(model: Model, aligned: Matrix, read: str, written: str, wanted: str) -> Picture:
    """A sentence, its translation beside the wanted one if that is known, and where each word looked."""
    score = bleu(counts(spaced(model, written), [spaced(model, wanted)]))
    known = ", as in the data" if written == wanted else f", where the data have “{wanted}”: BLEU {score:.1f}"
    return Picture(read, f"Translated as “{written}”{known if wanted else ''}.", png(squares(aligned)), aligned)


def explained(model: Model, batch: dict[str, Tensor]) -> Explained | None:
    """Each word of the translation by the words of the sentence that are kept."""
    return translating.explained(model, batch, by_all_places if model.latent else by_mean)


READS = "lines of text"


@dataclass
class Prediction:
    """How translations are looked for."""

    beam: int = 5
    """Beginnings that are kept at each word; 1 is greedy."""

    def __post_init__(self) -> None:
        flags.at_least(1, self, "beam")


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The lines."""
    return iter(arguments) if arguments else stream_lines(stream)


def prepare(model: Model, given: str) -> str:
    """The text as those that were learned from."""
    return clean(given)


def predict(model: Model, prepared: Sequence[str], options: Prediction) -> list[str]:
    """The translation of each text."""
    return translating.translated(model, prepared, options.beam)


def example(model: Model, text: str) -> datasets.Split:
    """A sentence without a translation."""
    return datasets.Pairs([clean(text)], [""], model.vocabulary)
