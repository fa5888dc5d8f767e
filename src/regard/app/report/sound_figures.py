"""What was heard, and where each symbol looked, as a matplotlib figure: as in Chorowski et al. 2015, figure 2."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from regard.app.report.drawings import COLOURS, tint

PER_SECOND, WIDEST = 1.1, 16.0
"""Inches of a second, and of a figure at most."""


def heard(
    bands: Float[Tensor, "T bands"],
    weights: Float[Tensor, "L K"] | None,
    symbols: Sequence[str],
    seconds: float,
    ends: Sequence[float] = (),
) -> Figure:
    """The bands of pitch of a sound of so many seconds, low ones below, and under them how much each symbol looked at
    each place, the first symbol on top. Lines are where symbols end, in seconds, where that is known.

    >>> import torch
    >>> figure = heard(torch.zeros(100, 40), torch.eye(2), ["3", "1"], seconds=1.0, ends=[0.4])
    >>> [text.get_text() for text in figure.axes[1].get_yticklabels()]
    ['3', '1']
    """
    rows = 0 if weights is None else len(symbols)
    heights = [1.6, *([max(0.6, 0.16 * rows)] if rows else [])]
    width = min(WIDEST, max(3.0, PER_SECOND * seconds + 0.6))
    figure = Figure((width, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    axes[0].imshow(bands.mT.cpu().numpy(), aspect="auto", origin="lower", cmap="gray_r", extent=(0, seconds, 0, 1))
    axes[0].set(ylabel="pitch", yticks=[])
    if weights is not None and rows:
        shown = tint(weights.detach().cpu().float(), COLOURS[1][0])
        axes[1].imshow(shown, aspect="auto", extent=(0, seconds, rows, 0), interpolation="nearest")
        axes[1].set_yticks([n + 0.5 for n in range(rows)], symbols, fontsize="x-small", parse_math=False)
        axes[1].set_ylabel("looked at")
    for axis in axes:
        for end in ends:
            axis.axvline(end, color=COLOURS[4][0], linewidth=0.5)
    axes[-1].set(xlabel="seconds", xlim=(0, seconds))
    return figure
