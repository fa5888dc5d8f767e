"""Write down what is said: an encoder hears sound, a decoder spells symbol by symbol and looks at where each is said.

Chorowski et al. 2015, "Attention-Based Models for Speech Recognition": content alone cannot tell two places that sound
alike apart, so that a decoder loses its way in strings longer than those it learned from. A score that knows where the
look before was (`location-aware`) goes on from there. Raffel et al. 2017 and Chiu and Raffel 2018 only ever go on
(`monotonic`, and `chunkwise`, which reads the last places up to where it stopped): they need not have heard the end to
write the beginning, and are used `online`. `hard` draws a place and reads it alone; `none` reads the mean of all;
`ctc` has no decoder: every place tells a symbol or none (Graves et al. 2006); in `rnnt` it does so by the symbol
before, too, and may tell several (Graves 2012).

- The encoder is local and the decoder has no memory: it looks by its last symbol and by what it read last, and tells
  the next symbol, or the end, from what it reads alone. One that remembers learns to count, and says ten whatever it
  hears.
- CTC on the encoder is learned beside all of them (Kim et al. 2017, "Joint CTC-Attention"), and strings are short at
  first. In use, a softmax looks no further on from its last look than a symbol reached in training.
- `monotonic`, `chunkwise` and `hard` begin with the weights of location-aware attention: `--from RUN`.

    regard train speech                                                  generated tones: a minute on one core
    regard train speech --data DIR/speech_digits --each 2400 --epochs 8
    regard train speech --data DIR/speech_digits --attention chunkwise --from runs/speech/location-aware-seed0
    regard train speech --data FOLDER               sounds and their texts, listed in index.tsv or transcripts.csv

To reach on strings of takes that were never learned from, trained on 1 to 10 digits, of 10, 20 and 40: chunkwise
0.5, 0.5 and 1 % of the digits wrong, location-aware 1, 1 and 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import regard as rg
from regard.app import flags
from regard.app.data.splits import Splits
from regard.app.data.spoken import Known, no_sounds, spoken, spoken_to_test
from regard.app.facts import Facts, read_facts
from regard.app.speech import answering, decoding, scoring
from regard.app.speech.features import STEP, frame_count, log_mel, masked_bands
from regard.app.speech.growing import Growing
from regard.app.speech.networks import SHRINK, Local, Speller
from regard.app.speech.pictures import pictures
from regard.app.speech.transducer import Transducer
from regard.app.text.networks import SoftThen
from regard.app.text.vocabulary import BEGIN, END
from regard.app.training.schedules import clipped, warmup_cosine
from regard.recipes.base import COSTS, ERROR, Metric, paths

METRIC = Metric("valid_symbol_error", "min", "share of the validation symbols that are wrong, missed or too many")

NAMED_BY, QUICK = ("attention",), {"epochs": 2}

ONLINE = "monotonic", "chunkwise"
COLUMNS = (*scoring.COLUMNS, ERROR, *COSTS)

KINDS = {
    "additive": "Looks by content alone.",
    "location-aware": "Looks by content and by where it looked before.",
    "monotonic": "Goes on to the next place at which to stop, and reads it.",
    "chunkwise": "Goes on to the next place at which to stop, and reads the last places up to there.",
    "hard": "Draws one place, by content and by where it looked before, and reads it alone.",
    "none": "Reads the mean of the sound.",
    "ctc": "No decoder: every place tells a symbol or none.",
    "rnnt": "Every place tells symbols, by the one before, or none.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the strings and their noise, and of what is masked and drawn."""
    data: str = "generated"
    """generated (a language of tones), a folder of spoken digits, or a folder with a list of sounds and their texts."""
    held_out: str = ""
    """A speaker of the digits of whom nothing is learned, and who alone is judged by."""
    symbols: Literal["characters", "words"] = "characters"
    """What a text is spelled in."""
    attention: Literal["additive", "location-aware", "monotonic", "chunkwise", "hard", "none", "ctc", "rnnt"] = (
        "location-aware"
    )
    """How the decoder looks at the sound."""
    width: int = 51
    """Places over which location-aware scores look at where the looks before were."""
    chunk: int = 4
    """Places that chunkwise attention reads."""
    noise: float = 1.0
    """The standard deviation of what is added to monotonic scores in training, so that they become sure."""
    window: bool = True
    """Whether, in use, a softmax looks no further on from its last look than a symbol reached in training."""
    ctc: float = 0.3
    """The weight of CTC on the encoder, beside a decoder."""
    draws: int = 4
    """Places that are drawn for each symbol, by hard."""
    soft: float = 0.0
    """The share of the steps in which hard is trained as soft attention at first."""
    encoder: Literal["local", "recurrent"] = "local"
    """Convolutions alone, or a GRU in both directions above them."""
    memory: bool = False
    """Whether the decoder has one of its own, a GRU, as `none` always does."""
    units: int = 128
    """Of the encoder, the decoder and the score."""
    bands: int = 40
    """Of pitch."""
    masked: int = 2
    """Runs of up to eight bands that are masked in training."""
    start: int = 2
    """Symbols of a string at first, at most; in the first fifth of the steps it grows to the longest."""
    longest: int = 10
    """Symbols of a string in training, at most."""
    each: int = 1200
    """Strings of an epoch, new ones every time."""
    epochs: int = 4
    """Times so many strings, or passes over the sounds of a folder."""
    batch: int = 16
    """Sounds of a step, about as long as each other."""
    learning_rate: float = 3e-3
    """The highest, after a fiftieth of the steps; it then falls to zero by a cosine."""
    clip: float = 1.0
    """The largest norm of a gradient."""

    def __post_init__(self) -> None:
        flags.check_training(self, "width", "chunk", "units", "bands", "start", "longest", "each")
        flags.at_least(0, self, "masked", "noise", "ctc")
        flags.share(self, "soft")
        flags.above_zero(self, "clip")
        if self.draws < 2:
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")
        if self.units % 2 or self.width % 2 == 0:
            raise ValueError(f"expected even --units and an odd --width, but got {self.units} and {self.width}")


def data(config: Config, known: Known | None = None, spoken: Any = spoken) -> Splits:
    """The sounds and what is said in them."""
    words = config.symbols == "words"
    return spoken(config.data, config.longest, config.each, config.held_out, words, known)


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """No sounds, but the symbols, the rate, and how far a symbol reached."""
    facts = read_facts(weights)
    none: Any = no_sounds(facts["rate"], facts["reach"])
    return Splits(none, none, none, "", tuple(facts["symbols"]))


def fitted(config: Config, weights: Mapping[str, Tensor], spoken: Any = spoken) -> Splits:
    """The sounds in the symbols that were learned, at the rate of the model."""
    facts = read_facts(weights)
    return data(config, Known(tuple(facts["symbols"]), facts["rate"]), spoken)


tested = partial(fitted, spoken=spoken_to_test)


def attention(config: Config, steps: int) -> rg.Attention | None:
    """What is between the sound and the symbols."""
    if config.attention == "none":
        return None
    sizes: Any = {"query_dim": config.units, "key_dim": config.units, "hidden_dim": config.units}
    if config.attention == "additive":
        return rg.Attention(score=rg.Additive(**sizes))
    score, over, read = rg.LocationAware(**sizes, width=config.width, summed=True), rg.softmax, rg.mean
    if config.attention in ONLINE:
        chunk, read = config.chunk if config.attention == "chunkwise" else 1, decoding.OnlineInUse()
        over = rg.monotonic(chunk, noise=config.noise, bias=-1.0)
    if config.attention == "hard":
        read = SoftThen(round(config.soft * steps), rg.hard) if config.soft else rg.hard
    return rg.Attention(score=score, over=over, read=read)


class Model(nn.Module):
    """Bands of pitch, an encoder, CTC on it, and a decoder that looks at it."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        train: Any = splits.train
        self.config, self.symbols, self.rate = config, splits.classes, train.rate
        self.between = " " if config.symbols == "words" else ""
        self.facts = Facts(symbols=list(splits.classes), rate=train.rate, reach=train.reach)
        steps = config.epochs * (len(train) // config.batch)
        self.lengths, count = Growing(config.start, config.longest, round(0.2 * steps)), END + 1 + len(splits.classes)
        self.encoder = Local(config.bands, config.units, config.encoder == "recurrent")
        self.aligning = nn.Linear(config.units, count)
        self.speller: Any = None
        self.transducer = Transducer(count, config.units) if config.attention == "rnnt" else None
        if config.attention not in ("ctc", "rnnt"):
            remembers, softly = config.memory or config.attention == "none", config.attention not in ONLINE
            self.speller = Speller(count, config.units, attention(config, steps), remembers)
            self.speller.window = round(train.reach / STEP / SHRINK) if config.window and softly else None
        self.register_buffer("mean", torch.zeros(config.bands))
        self.register_buffer("scale", torch.ones(config.bands))
        if len(train):
            self.measure(train.batch(torch.arange(min(200, len(train))), torch.Generator().manual_seed(0)))

    @property
    def draws(self) -> bool:
        """Whether places are drawn now."""
        hard = self.training and self.config.attention == "hard"
        return hard and not (self.config.soft and self.speller.attention.read.soft)

    def measure(self, batch: Mapping[str, Tensor]) -> None:
        """Takes the mean and the spread of each band from some sounds: nothing need be known of a whole sound."""
        frames = log_mel(batch["sound"], self.rate, self.config.bands)
        frames = frames[rg.padding(frame_count(batch["samples"], self.rate), frames.shape[1])[:, 0]]
        self.mean.copy_(frames.mean(0))
        self.scale.copy_(frames.std(0).clamp(min=1e-3))

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The places of sounds, (B, K, D), and how many each has, (B,)."""
        frames = (log_mel(batch["sound"], self.rate, self.config.bands) - self.mean) / self.scale
        if self.training:
            frames = masked_bands(frames, self.config.masked, widest=8)
        return self.encoder(frames, frame_count(batch["samples"], self.rate))

    def aligned(self, states: Tensor) -> Tensor:
        """The log-probabilities of what each place tells, (B, K, symbols): the first is none."""
        return self.aligning(states).log_softmax(-1)

    def step(self, words: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The log-probabilities (N, symbols) of what follows the words (N,), for `regard.app.text.decoding`."""
        logits, _, out, state = self.speller(words, state)
        return decoding.ending(logits, out).log_softmax(-1), state


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cost of a symbol, that of CTC, and with draws what trains where to look, whose value is zero."""
    given = model.lengths.shortened(batch)
    (states, count), target = model(given), given["target"]
    aligned = by_ctc(model, states, count, target)
    if model.transducer is not None:
        cost = model.transducer.cost(states, model.aligning(states), count, target)
        return cost + model.config.ctc * aligned, {"cost": cost, "ctc": aligned}
    if model.speller is None:
        return aligned, {"ctc": aligned}
    cost, policy = by_spelling(model, model.speller.begin(states, count), target)
    return cost + policy + model.config.ctc * aligned, {"cost": cost, "ctc": aligned}


def by_ctc(model: Model, states: Tensor, count: Tensor, target: Tensor) -> Tensor:
    """The cost of a symbol by alignments of the places with the target; a sound too short for its text has none."""
    mask = rg.padding(count, states.shape[1]).squeeze(1)
    log_z = rg.ctc(target.where(target > 0, -1))(model.aligned(states), mask).log_z
    return -log_z.where(log_z.isfinite(), 0).sum() / (target > 0).sum()


def by_spelling(model: Model, state: Any, target: Tensor) -> tuple[Tensor, Tensor | float]:
    """The mean cost of a symbol and of the end, each given those before; and what trains draws, whose value is zero."""
    after = pad(target, (0, 1))
    after = after.masked_fill(torch.arange(after.shape[1]) == (target > 0).sum(-1, keepdim=True), END)
    before, present = torch.cat((torch.full_like(target[:, :1], BEGIN), target), 1), after > 0
    steps, memory = [], state.memory
    for words in before.unbind(1):
        *made, state = model.speller(words, state)
        steps.append(made)
    logits, queries, looks = zip(*steps, strict=True)
    cost = decoding.costs(torch.stack(logits, 1), after)  # (B, T)
    if not model.draws:
        return cost.sum() / present.sum(), 0.0
    positions = decoding.positions(looks)
    z = torch.cat([look.z for look in looks], -1).unsqueeze(0)
    others = positions.sample((model.config.draws - 1,))  # (S, B, T)
    with torch.no_grad():
        read = model.speller.tell(positions.gather(memory.values, others), torch.stack(queries, 1))
        each = torch.cat((cost.detach().unsqueeze(0), decoding.costs(read, after)))
    policy = rg.leave_one_out(positions.log_prob(torch.cat((z, others))), each).mean(0)
    return cost.sum() / present.sum(), policy[present].mean()


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each sound, (B,), the errors of its greedy transcript: `regard.app.speech.scoring.errors`."""
    return scoring.errors(decoding.greedy(model, batch), batch["target"])


def after_step(model: Model) -> None:
    """Counts the steps in which strings grow, and in which hard attention is trained softly."""
    model.lengths.count()
    if model.config.attention == "hard" and model.config.soft:
        model.speller.attention.read.count()


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """AdamW, its rate rising over a fiftieth of the steps, and its gradients clipped."""
    found = torch.optim.AdamW(model.parameters(), config.learning_rate, fused=True)
    return clipped(found, config.clip), warmup_cosine(found, steps, steps // 50)


def noun(splits: Splits) -> str:
    """What is written down."""
    return "sound"


look, conclude, inputs, READS = pictures, scoring.shares, paths, answering.READS
prepare, predict, written, Prediction = answering.prepare, answering.predict, answering.written, answering.Prediction
