"""What a machine did with its memory, step by step, as a matplotlib figure: as in Graves et al. 2014, figure 6."""

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

MARGIN = 2  # cells that are drawn beyond those that were used


def tape(
    shown: Float[Tensor, "T D"],
    answered: Float[Tensor, "T W"],
    writes: Float[Tensor, "T K"] | None = None,
    reads: Float[Tensor, "T K"] | None = None,
) -> Figure:
    """The input and the output of each step, and below them which cells were written and read, from the first to the
    last that was used; a column is a step.

    >>> import torch
    >>> figure = tape(torch.zeros(5, 4), torch.zeros(5, 2), torch.eye(5), torch.eye(5))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['shown', 'answered', 'written', 'read']
    """
    parts = {"shown": shown, "answered": answered}
    if writes is not None and reads is not None:
        parts |= {"written": _used(writes, writes, reads), "read": _used(reads, writes, reads)}
    heights = [max(2.0, min(24.0, part.shape[1])) for part in parts.values()]
    figure = Figure((6.4, 0.09 * sum(heights) + 0.4 * len(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for each, (name, part) in zip(axes, parts.items(), strict=True):
        _draw(each, part, name, signed=name == "shown")
    axes[-1].set_xlabel("step")
    return figure


def _used(cells: Tensor, *both: Tensor) -> Tensor:
    """The cells up to the last that was used, and some more."""
    used = sum(each.amax(0) > 0.05 for each in both).nonzero().flatten()  # pyright: ignore[reportAttributeAccessIssue]
    last = int(used[-1]) if len(used) else 0
    return cells[:, : last + 1 + MARGIN]


def _draw(axes: Axes, part: Tensor, name: str, signed: bool) -> None:
    image = part.mT.cpu().numpy()
    axes.imshow(image, cmap="gray_r", vmin=-1 if signed else 0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set(ylabel=name, yticks=[])
    axes.tick_params(labelsize="small")
