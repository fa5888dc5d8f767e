"""Pictures of where an attention looked."""

from typing import Any

import torch
from torch import Tensor

from regard.positions import Coordinate, GaussianGrid

LARGEST = 1 << 22
"""Weights that a notebook draws by itself."""


def plot(out: Any, row: int = 0, queries: Any = (), places: Any = ()) -> Any:
    """A picture of where an attention looked, as a figure of matplotlib: its weights, darker where it looked more, with
    a ring where a place was drawn or chosen; or the locations in an image.

    `out` is what `attend`, an `Attention` or `look` gave. Of its batch dimensions, and heads, one `row` is drawn,
    counted through all of them. `queries` and `places` are the words that stand beside the axes, if any.

    Raises ValueError for a row that there is not, words of another number, or a window of filters, which has its own
    picture in `positions.read`.

    >>> from regard import attend
    >>> out = attend(torch.eye(3), torch.eye(3), torch.eye(3))
    >>> figure = plot(out, queries=["a", "b", "c"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['queries']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 2.4), layout="constrained")
    axes = figure.subplots()
    if isinstance(out.positions, Coordinate):
        _locations(axes, out.positions.mode if out.z is None else out.z)
        return figure
    if isinstance(out.positions, GaussianGrid):
        raise ValueError(
            "plot expected weights or locations, but got a window of filters: show positions.read(images)."
        )
    weights = out.weights.detach().float()
    rows = weights.reshape(-1, *weights.shape[-2:])
    if not -len(rows) <= row < len(rows):
        raise ValueError(f"row expected a number below {len(rows)}, how many there are, but got {row}.")
    axes.imshow(rows[row].cpu().numpy(), cmap="Blues", vmin=0, aspect="auto")
    if isinstance(out.z, Tensor) and out.z.shape == weights.shape[:-1]:
        _rings(axes, out.z.reshape(len(rows), -1)[row])
    axes.set(xlabel="places", ylabel="queries")
    _words(axes.set_xticks, "places", places, rows.shape[-1])
    _words(axes.set_yticks, "queries", queries, rows.shape[-2])
    return figure


def _rings(axes: Any, z: Tensor) -> None:
    """A ring at the place of each query, none where it looked nowhere."""
    query = torch.arange(len(z), device=z.device)[z >= 0]
    axes.scatter(z[z >= 0].cpu(), query.cpu(), facecolors="none", edgecolors="tab:red")


def _locations(axes: Any, z: Tensor) -> None:
    """Locations (*B, 2), as (y, x) in [-1, 1]."""
    y, x = z.detach().float().reshape(-1, 2).cpu().unbind(-1)
    axes.scatter(x.numpy(), y.numpy(), color="tab:red")
    axes.set(xlim=(-1, 1), ylim=(1, -1), aspect="equal", xlabel="x", ylabel="y")


def _words(put: Any, name: str, words: Any, count: int) -> None:
    if len(words) not in (0, count):
        raise ValueError(f"{name} expected {count} words, one for each, but got {len(words)}.")
    if len(words):
        put(range(count), [str(word) for word in words], rotation=45 if name == "places" else 0)


def png(out: Any) -> bytes | None:
    """The picture of `plot` as a notebook shows it; None where there is none, or it would be too large."""
    import io

    try:
        sizes = out.positions.batch_shape
        if torch.Size(sizes).numel() * max(1, getattr(out.positions, "places", 1)) > LARGEST:
            return None
        file = io.BytesIO()
        plot(out).savefig(file, format="png", dpi=90)
        return file.getvalue()
    except ValueError:  # neither weights nor locations
        return None
