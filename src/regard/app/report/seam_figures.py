"""Two pieces side by side, and where a model looked for their seam, as a matplotlib figure."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from regard.app.report.drawings import COLOURS
from regard.app.vision.seams import starts

INCH = 45
"""Pixels of a pair on an inch."""


def pair_figure(
    pair: Float[Tensor, "4 y x"], framed: tuple[int, int] | None = None, weights: Float[Tensor, " K"] | None = None
) -> Figure:
    """A pair of pieces, the strip that was read in a frame, (its first column, how many), and above it how likely the
    seam is in each strip, at the middle of that.

    >>> import torch
    >>> figure = pair_figure(torch.ones(4, 64, 128), framed=(56, 16), weights=torch.full((57,), 1 / 57))
    >>> [len(axes.lines) for axes in figure.axes], len(figure.axes[1].patches)
    ([1, 0], 1)
    """
    _, high, wide = pair.shape
    curve = weights is not None
    figure = Figure((wide / INCH, (high + 24 * curve) / INCH), layout="constrained")
    axes = figure.subplots(1 + curve, 1, squeeze=False, height_ratios=[24, high][1 - curve :])[:, 0]
    if weights is not None and framed is not None:
        middles = starts(wide, framed[1]) + framed[1] / 2
        axes[0].plot(middles.numpy(), weights.cpu().numpy(), color=COLOURS[0][0])
        axes[0].set(xlim=(-0.5, wide - 0.5), ylim=(0, None))
        axes[0].axis("off")
    colours = np.where(pair[3, ..., None].cpu() > 0, (pair[:3].permute(1, 2, 0).cpu() + 1) / 2, 1.0)
    axes[-1].imshow(colours.clip(0, 1))
    axes[-1].axis("off")
    if framed is not None:
        begin, size = framed
        box = Rectangle(
            (begin - 0.5, -0.5), size, high, fill=False, edgecolor=COLOURS[1][0], linewidth=2, clip_on=False
        )
        axes[-1].add_patch(box)
    return figure
