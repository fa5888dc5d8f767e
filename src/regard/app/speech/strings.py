"""Strings of spoken symbols, made of single takes: one speaker's, one after the other, with gaps and noise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.splits import padded
from regard.app.speech.sounds import Sound, resampled
from regard.app.training.batches import mix

GAP, EDGE = (0.05, 0.35), (0.1, 0.4)
"""Seconds of quiet between two takes, and before the first and after the last, from and to."""
LOUDNESS = 0.1
"""The root of the mean square of a take."""
GAIN, QUIET = (-10.0, 6.0), (15.0, 35.0)
"""Decibels by which a string is made louder, and by which noise lies below the takes, from and to."""
FIRST = 3
"""The number of the first symbol: 0 is none, which for CTC is the blank, and then come begin and end."""


class Takes(NamedTuple):
    """Recordings of single symbols."""

    sounds: Sequence[Float[Tensor, " N"]]
    labels: Int[Tensor, " takes"]
    """Which symbol each says, from 0 on."""
    speakers: Int[Tensor, " takes"]
    rate: int
    """Samples of a second."""

    def of(self, chosen: Tensor) -> "Takes":
        """Those at some indices, or where a mask is True."""
        rows = torch.arange(len(self.labels))[chosen]
        sounds = [self.sounds[n] for n in rows.tolist()]
        return Takes(sounds, self.labels[rows], self.speakers[rows], self.rate)

    def at(self, rate: int) -> "Takes":
        """The same at another rate."""
        sounds = [resampled(Sound(sound, self.rate), rate).samples for sound in self.sounds]
        return Takes(sounds, self.labels, self.speakers, rate)

    @property
    def reach(self) -> float:
        """Seconds from the end of one symbol to the end of the next, at most."""
        return max((len(sound) for sound in self.sounds), default=0) / self.rate + GAP[1]


class Strings:
    """Strings of `shortest` to `longest` symbols, each of the takes of one speaker, as a split.

    With `seed=None` they are drawn afresh for every batch, with the generator that it is given; else fixed by the
    index. How long the string at an index is does not change: `lengths` says it.

    >>> takes = Takes([torch.ones(800)] * 4, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), rate=8000)
    >>> strings = Strings(takes, count=10, shortest=1, longest=5, seed=0)
    >>> batch = strings.batch(torch.tensor([1, 2]))
    >>> strings.lengths, [tuple(each.shape) for each in (batch["target"], batch["ends"])]
    (tensor([1, 2, 3, 4, 5, 1, 2, 3, 4, 5]), [(2, 3), (2, 3)])
    """

    def __init__(self, takes: Takes, count: int, shortest: int, longest: int, seed: int | None = None):
        self.takes, self.count, self.seed = takes, count, seed
        self.rate, self.reach = takes.rate, takes.reach
        self.lengths = shortest + torch.arange(count) % (longest - shortest + 1)
        pairs = torch.stack((takes.speakers, takes.labels), -1)
        self.rows: dict[int, dict[int, Tensor]] = {}
        for speaker, label in pairs.unique(dim=0).tolist():
            same = (pairs == torch.tensor((speaker, label))).all(-1)
            self.rows.setdefault(speaker, {})[label] = same.nonzero().flatten()

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The strings at `indices`: `sound` (B, N), of which each has so many `samples` (B,), the `target` (B, L), its
        symbols from `FIRST` on and 0 behind them, and `ends` (B, L), the sample at which each of them is over."""
        made = [self._string(n, generator) for n in indices.tolist()]
        sounds, targets, ends = zip(*made, strict=True)
        samples, sound = torch.tensor([len(sound) for sound in sounds]), pad_sequence(list(sounds), batch_first=True)
        return {"sound": sound, "samples": samples, "target": padded(list(targets)), "ends": padded(list(ends))}

    def _string(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        if self.seed is not None:
            generator = torch.Generator().manual_seed(mix(self.seed, "string", index))
        count = int(self.lengths[index])
        chances = torch.rand(2 * count + 1, generator=generator).tolist()
        theirs = _one_of(list(self.rows.values()), chances[0])
        labels = [_one_of(list(theirs), chance) for chance in chances[1 : 1 + count]]
        pairs = zip(labels, chances[1 + count :], strict=True)
        sounds = [self.takes.sounds[int(_one_of(theirs[label], chance))] for label, chance in pairs]
        sound, ends = joined(sounds, self.rate, generator)
        return sound, FIRST + torch.tensor(labels), ends


def _one_of(some: Any, chance: float) -> Any:
    """The one that a number from 0 up to 1 stands for."""
    return some[int(chance * len(some))]


def joined(
    sounds: Sequence[Tensor], rate: int, generator: torch.Generator | None
) -> tuple[Float[Tensor, " N"], Int[Tensor, " L"]]:
    """Takes one after the other, equally loud, with gaps between them and noise over all; and where each ends."""
    chances = torch.rand(len(sounds) + 3, generator=generator)
    quiet = [_samples(EDGE, chances[0], rate)]
    quiet += [_samples(GAP, chance, rate) for chance in chances[1 : len(sounds)]] + [_samples(EDGE, chances[-3], rate)]
    pieces, ends = [torch.zeros(quiet[0])], []
    for sound, after in zip(sounds, quiet[1:], strict=True):
        pieces.append(sound * LOUDNESS / sound.square().mean().sqrt().clamp(min=1e-6))
        ends.append(sum(map(len, pieces)))
        pieces.append(torch.zeros(after))
    whole = torch.cat(pieces)
    noise = LOUDNESS * 10 ** (-_between(QUIET, chances[-2]) / 20)
    whole = whole + noise * torch.randn(len(whole), generator=generator)
    return (whole * 10 ** (_between(GAIN, chances[-1]) / 20)).clamp(-1, 1), torch.tensor(ends)


def _between(limits: tuple[float, float], chance: Tensor) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(chance)


def _samples(limits: tuple[float, float], chance: Tensor, rate: int) -> int:
    return round(rate * _between(limits, chance))
