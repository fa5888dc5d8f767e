"""Say in words what a picture shows, and look at one place of it for every word.

Xu et al. 2015, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention": a convolutional network
makes a grid of places of the picture; an LSTM, which begins with their mean, writes word by word, and each word is told
from the LSTM's state, the word before, and what is read at the places (sections 3.1.2 and 4.1, with the gate beta and
the deep output). Soft attention reads the mean of all places under its weights, hard attention one place, drawn in
training. What is read tells its word and is not handed on to the next state, otherwise than in the paper: so all words
look at once, a draw is paid for by its own word alone, with nothing to go after it, and several draws cost a layer.

- `hard` compares the draws of a word with each other (`leave_one_out`); `reinforce` has one, and a learned baseline;
  `straight-through` has one, and the gradient of the mean; `top-k` is trained by the likelihood of the word under the
  likeliest places, -log sum_k p_k p(word | k).
- These four begin as soft attention: else the places that are drawn say nothing yet of the word, and the attention
  stays where it is, everywhere.
- `random` reads a place drawn blindly, `uniform` the mean of all, `none` nothing: it knows the mean at the beginning.

    regard train caption                                  two digits and how they lie: minutes on one core
    regard train caption --data DIR/emoji_captions --config experiments/caption/emoji.yaml
    regard predict RUN PICTURE...

BLEU-4 of the paper on Flickr8k, from 6,000 photographs: 19.5 soft, 21.3 hard. To reach on the digits: 93 and 90.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

import regard as rg
from regard.app import data as datasets
from regard.app import flags
from regard.app.facts import Facts, read_facts
from regard.app.text.bleu import counts
from regard.app.text.captioning import State, Teller, Through, Told, alike, conclude, ended, references, wandering  # noqa: F401
from regard.app.text.networks import SoftThen
from regard.app.text.vocabulary import Words
from regard.app.vision.describing import READS, Prediction, explained, inputs, look, predict, prepare, written  # noqa: F401
from regard.app.vision.features import open_features, with_features
from regard.app.vision.places import Learned, Projected, moved, pointing
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_bleu", "max", "distance to 100 of BLEU on the validation pictures", 100.0, "BLEU")

NAMED_BY, QUICK = ("attention",), {"epochs": 2}

COLUMNS = (
    Measure("test_bleu", 1, "BLEU", "", "Of the captions of the test {noun}s, up to four words."),
    ERROR._replace(meaning="Share of the test {noun}s whose caption is none of those in the data, ± {spread}."),
    Measure("test_pointing", 100, "pointing", "%", "Share of the digits that were named looking at them."),
    Measure("test_entropy", 1, "entropy", "nats", "Of where a word looks."),
    Measure("test_movement", 1, "movement", "", "Total variation between where a word looks and the next; at most 1."),
    Measure("test_places", 1, "places", "", "Read for a caption."),
    *COSTS,
)

KINDS = {
    "soft": "Weighs all places for each word and reads their weighted mean: it looks everywhere.",
    "hard": "Reads one place for each word; several that are drawn are compared with each other in training.",
    "reinforce": "Reads one place for each word; one is drawn in training and compared with what was expected.",
    "straight-through": "Reads one place for each word; one is drawn in training, with the gradient of the mean.",
    "top-k": "Reads one place for each word; trained by the likelihood of the word under the likeliest places.",
    "random": "The same network, but it reads a place drawn blindly: what learning where to look has to beat.",
    "uniform": "The same network, but it reads the mean of all places.",
    "none": "The same network without places: it knows the mean of all before the first word, and nothing else.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the pictures, what is dropped and what is drawn."""
    data: str = "digits"
    """digits (two of them, composed on the fly), or a folder or file of captions: captions.csv or captions.txt beside
    pictures, captions_train*.json as COCO has them, or MNIST's files to compose digits of."""
    pictures: str | None = None
    """The folder or archive of the pictures, where it is not the data folder."""
    attention: Literal["soft", "hard", "reinforce", "straight-through", "top-k", "random", "uniform", "none"] = "soft"
    """How a word looks at the picture."""
    features: str = "learned"
    """What sees the places: learned, squeezenet:FILE, or hf:NAME_OR_FOLDER, a vision model of Hugging Face; other than
    learned ones are computed once and kept with the run."""
    canvas: int | None = None
    """Height and width of the pictures in pixels; 60 for digits, else as the pictures or the features suggest."""
    stride: Literal[4, 8, 16] = 4
    """Pixels from one place to the next, of learned features."""
    size: int = 64
    """Numbers at a place."""
    moved: float = 0.0
    """How much the training pictures are moved and scaled, as a share of their sides; not with frozen features."""
    others: str | None = None
    """A file of captions of other pictures, to learn to write from; without those of pictures that are held out."""
    least: int = 1
    """How often a word must be in the training captions to be known."""
    hidden: int = 256
    """Units of the LSTM, and the size of a word's vector."""
    dropout: float = 0.3
    """Share of the units of words, states and outputs that are dropped."""
    blinded: float = 0.0
    """Share of the numbers at the places that are dropped."""
    smoothing: float = 0.05
    """Share of the probability that is to be spread over all words instead of the right one."""
    doubly: float = 0.0
    """Weight of the doubly stochastic term, (1 - K / T sum_t p_tk)^2 over the K places: each is to have an equal share
    of the T looks of a caption (the paper's equation 14, in which that share is one look)."""
    draws: int = 4
    """Places that are drawn for each word, by hard; the likeliest ones, of top-k."""
    soft: float = 0.5
    """Share of the training, at its beginning, in which those that read one place are trained as soft attention."""
    entropy: float = 0.0
    """Weight of the entropy of where a word looks, in nats, which is kept high in drawing."""
    beam: int = 3
    """Beginnings that are kept at each word of a caption; 1 is greedy."""
    epochs: int = 5
    """Passes over the training pictures, at most."""
    patience: int = 8
    """Epochs without better captions after which training stops."""
    batch: int = 64
    """Pictures of a step."""
    learning_rate: float = 2e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "hidden", "size", "patience", "beam", "least", "canvas")
        flags.share(self, "dropout", "blinded", "smoothing", "soft", "moved")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")


def data(config: Config) -> datasets.Splits:
    """The pictures and their captions."""
    canvas = config.canvas or (None if config.features == "learned" else open_features(config.features).side)
    return datasets.captioned(config.data, config.pictures, canvas, config.least, config.others)


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No pictures, but the words, the shape and the bits that were learned. Raises ValueError for other features."""
    facts = read_facts(weights)
    if facts["features"]:
        open_features(config.features).require(facts["features"])
    return datasets.no_captions(Words(facts["words"]), tuple(facts["shape"]), facts["bits"])


def fitted(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """The pictures, their captions in the words that were learned."""
    return datasets.spelled_by(data(config), cast(Any, known(config, weights).train).vocabulary)


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Pictures of the shape that was learned, to test on."""
    learned: Any = known(config, weights)
    vocabulary, bits = learned.train.vocabulary, learned.train.bits
    return datasets.captions_to_test(config.data, vocabulary, learned.shape, config.pictures, bits)


def kept(config: Config, splits: datasets.Splits, run: Path) -> datasets.Splits:
    """With the features of all pictures, where these are not learned."""
    return splits if config.features == "learned" else with_features(splits, open_features(config.features), run)


ONE_PLACE: dict[str, Any] = {"hard": rg.hard, "reinforce": rg.hard, "straight-through": Through(), "top-k": rg.hard}
BLIND = {"random": rg.sample, "uniform": rg.mean, "none": rg.mean}
"""What is read, by those that begin as soft attention, and by those that know nothing of the places."""


def attention(config: Config, steps: int) -> rg.Attention:
    """The triple: how places are scored, over what, and what is read."""
    if config.attention in BLIND:
        return rg.Attention(score=alike, over=rg.softmax, read=BLIND[config.attention])
    one = ONE_PLACE.get(config.attention)
    read: Any = SoftThen(round(config.soft * steps), one) if one else rg.mean
    return rg.Attention(score=rg.Additive(config.hidden, config.size, 128), over=rg.softmax, read=read)


class Model(nn.Module):
    """What sees the places of a picture, and what writes, with the attention between the two."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        self.config, train = config, cast(Any, splits.train)
        network = None if config.features == "learned" else open_features(config.features)
        digest, bits = network.digest if network else "", getattr(train, "bits", 16)
        self.facts = Facts(words=train.vocabulary.words, shape=splits.shape, bits=bits, features=digest)
        self.vocabulary = train.vocabulary
        shape = splits.shape, config.size, config.stride
        self.places: Any = Projected(network, config.size) if network else Learned(*shape)
        sizes = len(train.vocabulary), math.prod(self.places.grid), config.size, config.hidden, config.dropout
        self.teller = Teller(*sizes, attention(config, config.epochs * math.ceil(len(train) / config.batch)))
        self.baseline = rg.Learned(config.hidden, 64) if config.attention == "reinforce" else None

    @property
    def drawing(self) -> bool:
        """Whether it learns from one place at a time: later on."""
        return self.config.attention in ONE_PLACE and not self.teller.attention.read.soft

    def begin(self, batch: Mapping[str, Tensor]) -> State:
        """The state before the first word, from pictures (B, C, Y, X) or their features (B, K, F)."""
        seen = batch["features"] if "features" in batch else batch["picture"]
        if self.training and self.config.moved and seen.dim() == 4:
            seen = moved(seen, self.config.moved)
        places = dropout(self.places(seen), self.config.blinded, self.training)  # (B, K, D)
        nowhere = places.new_zeros(places.shape[0], 1, places.shape[1], dtype=torch.bool)
        return self.teller.begin(places, nowhere if self.config.attention == "none" else None)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Told, State]:
        """What is known of every word of the captions, given those before it, and the state at first."""
        state = self.begin(batch)
        return self.teller(batch["caption"], state), state

    def text(self, words: Tensor) -> str:
        """What words say."""
        return self.vocabulary.decode(words.tolist())


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cost of a word, with what trains the attention of some, whose value is zero."""
    (told, state), target, config = model(batch), batch["caption"], model.config
    by, present = LATER.get(config.attention, by_mean) if model.drawing else by_mean, target > 0
    positions = told.looked.positions
    entropy = positions.entropy()[present].mean()
    shares = (positions.mean * present.unsqueeze(-1)).sum(1) / present.sum(1, keepdim=True)  # (B, K)
    uneven = (1 - shares.shape[-1] * shares).square().mean()
    total = by(model, told, state, target, config.smoothing).sum() / present.sum() + config.doubly * uneven
    if "others" in batch:
        total = total + model.teller.cost_of_others(batch["others"], config.smoothing)
    return total - config.entropy * model.drawing * entropy, {"entropy": entropy, "uneven": uneven}


def by_mean(model: Model, told: Told, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The cost of each word (B, T) by what was read."""
    return model.teller.cost(told, told.looked.context, target, smoothing)


def by_draws(model: Model, told: Told, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The mean cost of each word (B, T) by the places that are drawn; compared, these also train where to look."""
    positions = told.looked.positions
    z = positions.sample((model.config.draws,))
    costs = model.teller.cost(told, positions.gather(state.memory.values, z), target, smoothing)
    return (costs + rg.leave_one_out(positions.log_prob(z), costs)).mean(0)


def by_one_draw(model: Any, told: Told, state: State, target: Tensor, smoothing: float) -> Tensor:
    """The cost of each word (B, T) by the place that was drawn, which is compared with what was expected before."""
    cost = by_mean(model, told, state, target, smoothing)
    expected = model.baseline(told.hidden.detach())
    fit = (expected - cost.detach()).square().masked_fill(target == 0, 0)
    return cost + rg.reinforce(told.looked.log_prob, cost, expected.detach()) + fit


def by_likeliest(model: Model, told: Told, state: State, target: Tensor, smoothing: float) -> Tensor:
    """-log sum_k p_k p(word | k) of each word (B, T) over the likeliest places k, as if there were no others."""
    positions: Any = told.looked.positions
    likeliest, places = positions.mean.topk(model.config.draws)
    context = positions.gather(state.memory.values, places.movedim(-1, 0))
    costs = model.teller.cost(told, context, target, smoothing)  # (k, B, T)
    shares = (likeliest / likeliest.sum(-1, keepdim=True)).movedim(-1, 0)
    return -(shares.log() - costs).logsumexp(0).masked_fill(target == 0, 0)


LATER = {"hard": by_draws, "reinforce": by_one_draw, "top-k": by_likeliest}
"""What those are trained by that begin as soft attention, beside `by_mean`."""


def after_step(model: Any) -> None:
    """Notes that a step is made, where the first ones are trained in another way."""
    if model.config.attention in ONE_PLACE:
        model.teller.attention.read.count()


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `loss` of each word, (words,); of each picture, (B,), whether the caption that is written is none of those in
    the data (`error`), and what BLEU counts of it; and of its words, END included, where they look: the `entropy` in
    nats, the `movement`, how much of it is elsewhere from one word to the next, and the `places` that are read.
    `pointing` says of each digit whether the word that names it is right and looks at it most, (digits,)."""
    told, state = model(batch)
    said = model.teller.written(state, model.config.beam)
    words, both = ended(said), [*zip(map(model.text, said), references(batch), strict=True)]
    looked = model.teller(words, state).looked
    counted = [counts(text.split(), [truth.split() for truth in truths]) for text, truths in both]
    values = {
        "loss": by_mean(model, told, state, batch["caption"], 0.0)[batch["caption"] > 0],
        "error": torch.tensor([float(text not in truths) for text, truths in both]),
        **{name: torch.tensor([float(each[name]) for each in counted]) for name in counted[0]},
        **wandering(looked, words > 0),
    }
    if "boxes" in batch:
        most = looked.weights.argmax(-1) if looked.z is None else looked.z
        values["pointing"] = pointing(model.places.grid, batch, words, most)
    return values


def noun(splits: datasets.Splits) -> str:
    """What is described."""
    return "picture"
