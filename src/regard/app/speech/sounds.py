"""The one way in for sounds, and out: files become samples of one channel, and samples a file that a browser plays."""

import io
import math
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.app.data.files import contents
from regard.app.text.reading import printable

LONGEST = 300
"""Seconds of a sound, at most."""
RATES = 2_000, 400_000
"""Samples of a second, from and to."""
AT_THE_LIMIT, CLIPPED = 0.999, 0.01
"""From where on a sample is as large as can be, and which share of such samples a sound has that is clipped."""
TAPS = 1 << 20
"""Products of a resampling that are formed at a time."""


class Sound(NamedTuple):
    """A sound of one channel, in [-1, 1]."""

    samples: Float[Tensor, " N"]
    rate: int
    """Samples of a second."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    @property
    def note(self) -> str:
        """What should be said of it, if anything.

        >>> Sound(torch.ones(100), 8000).note
        'clipped: 100 % of the samples are as large as can be'
        """
        share = float((self.samples.abs() >= AT_THE_LIMIT).float().mean())
        return f"clipped: {100 * share:.0f} % of the samples are as large as can be" if share > CLIPPED else ""


def read_sound(file: str | Path) -> Sound:
    """The sound of a file; several channels become their mean.

    WAV of whole numbers is read as it is; FLAC, WAV of floating point and what else soundfile reads needs that package,
    `pip install regard[speech]`. Raises ValueError for a file that is missing, damaged, of another kind or too long, or
    has no samples.

    >>> read_sound("nowhere.wav")
    Traceback (most recent call last):
    ValueError: nowhere.wav cannot be read: No such file or directory
    """
    return sound_in(contents(Path(file)), printable(file))


def sound_in(data: bytes, name: str) -> Sound:
    """The sound in the bytes of a file of that name; raises as `read_sound` does.

    >>> sound_in(wav(torch.zeros(80), 8000), "quiet.wav").seconds
    0.01
    """
    found = _of_wave(data, name)
    samples, rate = _of_soundfile(data, name) if found is None else found
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{name} expected a rate from {RATES[0]:,} to {RATES[1]:,} samples a second, but has {rate:,}")
    if samples.size == 0:
        raise ValueError(f"{name} holds no sound: it has 0 samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} is damaged: it has samples that are no numbers")
    return Sound(torch.from_numpy(samples.mean(1, dtype=np.float32)), rate)


def _of_wave(data: bytes, name: str) -> tuple[np.ndarray, int] | None:
    """Samples (N, channels) and rate of a WAV file of whole numbers; None of another file."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, count, channels, width = (
                file.getframerate(), file.getnframes(), file.getnchannels(), file.getsampwidth()
            )  # fmt: skip
            _check_length(count, rate, name)
            found = file.readframes(count)
    except (wave.Error, EOFError):
        return None
    if len(found) < count * channels * width:
        raise ValueError(f"{name} is damaged: it ends after {len(found) // (channels * width):,} of {count:,} samples")
    return _whole_numbers(found, width).reshape(-1, channels), rate


def _whole_numbers(data: bytes, width: int) -> np.ndarray:
    """Samples of so many bytes as numbers in [-1, 1]."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    bytes_of = np.frombuffer(data, np.uint8).reshape(-1, width)
    whole = np.zeros((len(bytes_of), 4), np.uint8)
    whole[:, 4 - width :] = bytes_of
    return (whole.view("<i4")[:, 0] / 2**31).astype(np.float32)


def _of_soundfile(data: bytes, name: str) -> tuple[np.ndarray, int]:
    try:
        import soundfile  # pyright: ignore[reportMissingImports]
    except ImportError:
        kind = "no WAV file of whole numbers"
        raise ValueError(f"{name} is {kind}: to read others, `pip install regard[speech]`") from None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_length(file.frames, file.samplerate, name)
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ValueError(f"{name} is no whole file of sound: {str(error).strip().removesuffix('.')}") from error


def _check_length(count: int, rate: int, name: str) -> None:
    if rate > 0 and count > LONGEST * rate:
        raise ValueError(f"{name} expected at most {LONGEST} seconds, but has {count / rate:,.0f}: cut it at a pause")


def resampled(sound: Sound, rate: int, width: int = 16) -> Sound:
    """The sound at another rate: what lies below half of both rates stays, by a sinc under a window of `width` zero
    crossings each way (Smith 1984, "Digital audio resampling").

    >>> tone = lambda rate: Sound(torch.sin(2 * math.pi * 440 * torch.arange(rate) / rate), rate)
    >>> bool((resampled(tone(44100), 8000).samples - tone(8000).samples)[100:-100].abs().max() < 2e-3)
    True
    """
    if rate == sound.rate:
        return sound
    ratio, count = sound.rate / rate, max(1, len(sound.samples) * rate // sound.rate)
    cutoff = 0.95 * min(1.0, 1 / ratio)
    half = math.ceil(width / cutoff)
    padded = torch.nn.functional.pad(sound.samples, (half, half + math.ceil(ratio)))
    taps, made = torch.arange(2 * half), []
    for first in range(0, count, size := max(1, TAPS // (2 * half))):
        at = torch.arange(first, min(count, first + size), dtype=torch.float64) * ratio
        begin = at.floor().long() - half + 1
        distance = (at - begin).unsqueeze(-1).sub(taps)
        weights = cutoff * torch.sinc(cutoff * distance) * (math.pi * distance / (2 * half)).cos().square()
        made.append((padded[(begin + half).unsqueeze(-1) + taps] * weights.float()).sum(-1))
    return Sound(torch.cat(made), rate)


def wav(samples: Float[Tensor, " N"], rate: int) -> bytes:
    """A WAV file of one channel and 16 bits.

    >>> wav(torch.zeros(80), 8000)[:4]
    b'RIFF'
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples.clamp(-1, 1) * 32767).round().short().numpy().tobytes())
    return file.getvalue()
