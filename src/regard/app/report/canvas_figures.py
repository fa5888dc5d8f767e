"""How an image was painted, as matplotlib figures: the canvas after each step with the windows over it, and samples."""

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from regard.app.report import drawings

MOST = 12  # steps that are shown
READ, WRITE = drawings.COLOURS[1][1], drawings.COLOURS[0][1]


def painting(
    image: Float[Tensor, "C Y X"],
    canvases: Float[Tensor, "T C Y X"],
    reads: Float[Tensor, "T 4"] | None = None,
    writes: Float[Tensor, "T 4"] | None = None,
) -> Figure:
    """An image, and beside it the canvas after each step, or after twelve of many, with frames round what was read
    before it and what was written in it: their edges y0, x0, y1, x1 in pixels.

    >>> import torch
    >>> figure = painting(torch.rand(1, 8, 8), torch.rand(3, 1, 8, 8), writes=torch.tensor([[2.0, 2.0, 6.0, 6.0]] * 3))
    >>> [axes.get_title() for axes in figure.axes]
    ['image', '1', '2', '3']
    """
    steps = _few(len(canvases))
    figure = Figure((1.1 * (1 + len(steps)), 1.4), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(steps), squeeze=False)[0]
    _show(first, image, "image")
    for axes, step in zip(others, steps, strict=True):
        _show(axes, canvases[step], str(step + 1))
        for frames, colour, line in ((reads, READ, "--"), (writes, WRITE, "-")):
            if frames is not None:
                _frame(axes, frames[step], colour, line)
    return figure


def _few(count: int) -> list[int]:
    """The steps that are shown, the first and the last among them.

    >>> _few(3), _few(64)
    ([0, 1, 2], [0, 6, 11, 17, 23, 29, 34, 40, 46, 52, 57, 63])
    """
    shown = min(count, MOST)
    return [round(n * (count - 1) / max(1, shown - 1)) for n in range(shown)]


def sheet(images: Float[Tensor, "N C Y X"], columns: int = 8) -> Figure:
    """Images in rows.

    >>> import torch
    >>> len(sheet(torch.rand(9, 1, 8, 8)).axes)
    9
    """
    rows = -(-len(images) // columns)
    figure = Figure((0.9 * columns, 0.9 * rows), layout="constrained")
    for n, image in enumerate(images):
        _show(figure.add_subplot(rows, columns, n + 1), image)
    return figure


def _show(axes: Axes, image: Tensor, title: str = "") -> None:
    *_, height, width = image.shape
    axes.imshow(drawings.picture(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.set_title(title, fontsize="small")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")


def _frame(axes: Axes, edges: Tensor, colour: str, line: str) -> None:
    y0, x0, y1, x1 = edges.tolist()
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linestyle=line))
