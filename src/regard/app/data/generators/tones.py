"""A language of tones: each letter is a melody of two or three pitches, sung higher or lower, faster or slower."""

import math

import torch
from torch import Tensor

from regard.app.speech.strings import Takes

RATE = 8000
MELODIES = ((0,), (7,), (0, 7), (7, 0), (0, 4, 7), (7, 4, 0), (0, 7, 0), (7, 0, 7))
"""Of each letter, in semitones above the voice."""
LETTERS = tuple("abcdefgh")
VOICES = (220.0, 262.0, 311.0)
"""The lowest pitch of each speaker."""


def tones(each: int, seed: int) -> Takes:
    """So many takes of each letter by each voice.

    >>> takes = tones(each=2, seed=0)
    >>> len(takes.sounds), takes.labels.max(), takes.speakers.max()
    (48, tensor(7), tensor(2))
    """
    generator = torch.Generator().manual_seed(seed)
    rows = [(voice, letter) for voice in range(len(VOICES)) for letter in range(len(LETTERS)) for _ in range(each)]
    sounds = [_sung(VOICES[voice], MELODIES[letter], torch.rand(2, generator=generator)) for voice, letter in rows]
    speakers, labels = torch.tensor(rows).T
    return Takes(sounds, labels, speakers, RATE)


def _sung(voice: float, melody: tuple[int, ...], chances: Tensor) -> Tensor:
    """A melody, about a semitone higher or lower, in 0.15 to 0.3 seconds; it swells and fades."""
    higher, seconds = 2 * float(chances[0]) - 1, 0.15 + 0.15 * float(chances[1])
    count = round(RATE * seconds)
    time = torch.arange(count) / count
    steps = torch.tensor(melody, dtype=torch.float)[(time * len(melody)).long()] + higher
    phase = 2 * math.pi * (voice * 2 ** (steps / 12)).cumsum(0) / RATE
    return sum((n * phase).sin() / n for n in (1, 2, 3)) * (math.pi * time).sin()  # pyright: ignore[reportReturnType]
