"""What is heard of a sound: the energy in bands of pitch, every hundredth of a second."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

WINDOW, STEP = 0.025, 0.010
"""Seconds of a frame, and from frame to frame."""
FLOOR = 1e-5
"""What is added to the energies, whose logarithms are taken: silence is no minus infinity."""


def frame_count(samples: Int[Tensor, "*B"], rate: int) -> Int[Tensor, "*B"]:
    """How many whole frames lie in so many samples; one at least.

    >>> frame_count(torch.tensor([8000, 10]), rate=8000)
    tensor([98,  1])
    """
    return 1 + ((samples - round(WINDOW * rate)).clamp(min=0) // round(STEP * rate))


def log_mel(sound: Float[Tensor, "B N"], rate: int, bands: int) -> Float[Tensor, "B T bands"]:
    """The logarithm of the energy in `bands` of equal width in mel (Davis and Mermelstein 1980, "Comparison of
    parametric representations"), in frames of 25 ms every 10 ms; a sound that fills no frame is followed by silence.

    >>> sound = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)
    >>> log_mel(sound.unsqueeze(0), rate=8000, bands=40)[0].mean(0).argmax()
    tensor(18)
    """
    window, step = round(WINDOW * rate), round(STEP * rate)
    sound = torch.nn.functional.pad(sound, (0, max(0, window - sound.shape[-1])))
    frames = sound.unfold(-1, window, step) * torch.hann_window(window, device=sound.device)  # (B, T, window)
    size = 2 ** math.ceil(math.log2(window))
    power = torch.view_as_real(torch.fft.rfft(frames, size)).square().sum(-1)
    return (power @ mel_filters(rate, bands, size).to(power) + FLOOR).log()


@lru_cache(maxsize=8)
def mel_filters(rate: int, bands: int, size: int) -> Float[Tensor, "F bands"]:
    """What each band takes of the frequencies of a transform of `size` samples: triangles that begin and end in the
    middle of their neighbours, mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987).

    >>> mel_filters(8000, 40, 256).shape
    torch.Size([129, 40])
    """
    most = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, most, bands + 2) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, size // 2 + 1).unsqueeze(-1)
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def masked_bands(features: Float[Tensor, "B T bands"], masks: int, widest: int) -> Float[Tensor, "B T bands"]:
    """The features without `masks` runs of up to `widest` bands each, drawn for every sound: zero, which is to be the
    mean (Park et al. 2019, "SpecAugment", section 2, frequency masking).

    >>> masked_bands(torch.ones(1, 2, 40), masks=1, widest=8).sum() >= 64
    tensor(True)
    """
    count, _, bands = features.shape
    width = (torch.rand(count, masks, 1, device=features.device) * (widest + 1)).long()
    first = (torch.rand(count, masks, 1, device=features.device) * (bands - width + 1)).long()
    behind = torch.arange(bands, device=features.device) - first  # (B, masks, bands)
    hidden = ((behind >= 0) & (behind < width)).any(1, keepdim=True)
    return features.masked_fill(hidden, 0)
