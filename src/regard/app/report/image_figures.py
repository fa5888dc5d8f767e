"""Where it looked, as matplotlib figures: for files, papers and notebooks. `regard.app.report` makes the page.

Every function gives a `Figure` of its own, free of pyplot's global state: `figure.savefig("path.png", dpi=200)`.
Images are (C, Y, X) in [0, 1], locations and grids (y, x) in [-1, 1], boxes the edges y0, x0, y1, x1 in pixels.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from regard.app.report import drawings
from regard.app.report.report import Look, Number

GAP = 0.08  # between the middles of two numbers, as a share of the image's width
COLUMNS = 4  # of a gallery
TOLD = 8  # words in a row


def learning_curves(
    curves: Mapping[str, Sequence[tuple[Number, Number]]],
    x: str = "seconds of training",
    y: str = "error on the validation images",
) -> Figure:
    """A line for each of {model: [(x, error), ...]}, the error as a share of one.

    >>> learning_curves({"soft": [(1.0, 0.9), (2.0, 0.4)]}).axes[0].get_xlabel()
    'seconds of training'
    """
    figure = Figure((7, 4), layout="constrained")
    axes = figure.subplots()
    for i, (model, (colour, _)) in enumerate(drawings.colours(curves).items()):
        dash = drawings.DASHES[i % len(drawings.DASHES)]
        marker = "o" if len(curves[model]) <= 10 else ""  # or the curve of one epoch would not be seen
        line = {"color": colour, "linestyle": (0, dash), "marker": marker, "label": model}
        axes.plot(*np.reshape(curves[model], (-1, 2)).T, **line)
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(frameon=False)
    return figure


def path(
    image: Float[Tensor, "C Y X"],
    locations: Float[Tensor, "T 2"],
    patches: Float[Tensor, "T scales C g g"] | None = None,
    box: Float[Tensor, "4"] | None = None,
    model: str = "hard",
) -> Figure:
    """The image with a numbered path over it, and beside it what each glimpse saw, the sharpest patch on top.

    >>> import torch
    >>> len(path(torch.rand(1, 28, 28), torch.zeros(6, 2), torch.rand(6, 2, 1, 8, 8)).axes)
    7
    """
    stacks = [] if patches is None else [drawings.stack(each) for each in patches]
    figure, large = _beside(stacks)
    _show(large, image, box)
    _draw_path(large, image, locations, model)
    return figure


def heat(
    image: Float[Tensor, "C Y X"],
    weights: Float[Tensor, "T G"],
    grid: Float[Tensor, "G 2"],
    box: Float[Tensor, "4"] | None = None,
    model: str = "soft",
) -> Figure:
    """The image under the weights of places on a grid: their mean over the glimpses, and beside it each glimpse.

    >>> import torch
    >>> len(heat(torch.rand(1, 28, 28), torch.ones(6, 4) / 4, torch.rand(4, 2) - 0.5).axes)
    7
    """
    figure, large = _beside([drawings.picture(image)] * len(weights))
    _show(large, image, box)
    for axes, each in zip(figure.axes, (weights.mean(0), *weights), strict=True):
        _draw_heat(axes, image, each, grid, model)
    return figure


def attended(look: Look, n: int, model: str = "sampled") -> Figure:
    """Image n of a look that chose its locations by weights: under these, with the outlines of what was read of it, and
    beside it what was seen there.

    >>> import torch
    >>> sizes = {"weights": torch.rand(1, 1, 9), "grid": torch.rand(9, 2), "locations": torch.zeros(1, 4, 2)}
    >>> noise, one, seen = torch.rand(1, 1, 60, 60), torch.ones(1, dtype=torch.long), torch.rand(1, 4, 1, 1, 8, 8)
    >>> len(attended(Look(noise, one, one, **sizes, patches=seen, spans=torch.full((1, 4), 8.0)), 0).axes)
    5
    """
    patches = [] if look.patches is None else [drawings.stack(each) for each in look.patches[n]]
    figure = Figure((8 if patches else 4, 4), layout="constrained")
    spread, *beside = figure.subfigures(1, 2 if patches else 1, squeeze=False)[0]
    large = spread.subplots()
    _show(large, look.images[n], None if look.boxes is None else look.boxes[n])
    _draw(large, look, n, model)
    if patches:
        columns = math.isqrt(len(patches) - 1) + 1
        small = beside[0].subplots(-(-len(patches) // columns), columns, squeeze=False)
        _draw_patches(np.ravel(small).tolist(), patches)
    return figure


def word_by_word(
    picture: Float[Tensor, "C Y X"],
    words: Sequence[str],
    weights: Float[Tensor, "T rows columns"],
    places: Int[Tensor, " T"] | None = None,
) -> Figure:
    """The picture once for each word, under the weights of its places, or with a frame around the one that was read.

    >>> import torch
    >>> figure = word_by_word(torch.rand(3, 64, 64), ["a", "dog"], torch.rand(2, 8, 8))
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'dog']
    """
    _, height, width = picture.shape
    rows, columns = -(-max(len(words), 1) // TOLD), min(max(len(words), 1), TOLD)
    figure = Figure((1.6 * columns, 1.6 * rows * height / width + 0.3 * rows))
    figure.subplots_adjust(0.02, 0.02, 0.98, 1 - 0.25 / figure.get_figheight(), wspace=0.06, hspace=0.2)
    for n, word in enumerate(words):
        axes = figure.add_subplot(rows, columns, n + 1)
        axes.set_title(word, fontsize="small", pad=3)
        _show(axes, picture, None)
        if places is None:
            shares = weights[n] / weights[n].amax().clamp_min(1e-9)
            tint = drawings.tint(shares, drawings.colours(["soft"])["soft"][1])
            axes.imshow(tint, extent=axes.images[0].get_extent(), interpolation="bilinear")
        elif places[n] >= 0:
            _draw_place(axes, int(places[n]), weights.shape[1:], (height, width))
    return figure


def _draw_place(axes: Axes, place: int, grid: Sequence[int], sides: Sequence[int]) -> None:
    """A frame round a place of a grid."""
    down, right = (side / count for side, count in zip(sides, grid, strict=True))
    row, column = divmod(place, grid[1])
    line = {"fill": False, "color": drawings.colours(["hard"])["hard"][1], "linewidth": 2}
    axes.add_patch(Rectangle((column * right, row * down), right, down, **line))


def gallery(look: Look, model: str = "hard") -> Figure:
    """All images of a look: where the model looked, and above each what it answered, and the truth if that is another.

    >>> import torch
    >>> figure = gallery(Look(torch.rand(2, 1, 28, 28), torch.tensor([3, 7]), torch.tensor([3, 1])), "cnn")
    >>> [axes.get_title() for axes in figure.axes]
    ['✓ 3', '✗ 1, not 7']
    """
    rows = -(-len(look) // COLUMNS)
    figure = Figure((2.2 * COLUMNS, 2.4 * max(rows, 1)), layout="constrained")
    for n in range(len(look)):
        label, answer = int(look.labels[n]), int(look.predictions[n])
        axes = figure.add_subplot(rows, COLUMNS, n + 1)
        wrong = f"✗ {look.name(answer)}, not {look.name(label)}"
        axes.set_title(f"✓ {look.name(answer)}" if label == answer else wrong)
        _show(axes, look.images[n], None if look.boxes is None else look.boxes[n])
        _draw(axes, look, n, model)
    return figure


def _draw(axes: Axes, look: Look, n: int, model: str) -> None:
    if look.weights is not None and look.grid is not None:
        weights = look.weights[n].mean(0)
        shown = weights if look.locations is None else drawings.relative(weights)
        _draw_heat(axes, look.images[n], shown, look.grid, model)
        if look.locations is not None and look.spans is not None:
            _draw_outlines(axes, look.images[n], look.locations[n], look.spans[n])
    elif look.locations is not None:
        _draw_path(axes, look.images[n], look.locations[n], model)


def _beside(pictures: Sequence[np.ndarray]) -> tuple[Figure, Axes]:
    """A figure with room for a large picture, and the small ones in a row to its right, numbered."""
    figure = Figure((8 if pictures else 4, 4), layout="constrained")
    count = len(pictures)
    large, *small = np.ravel(figure.subplots(1, 1 + count, width_ratios=[max(count, 1), *[1] * count]))
    _draw_patches(small, pictures)
    return figure, large


def _draw_patches(places: Sequence[Axes], pictures: Sequence[np.ndarray]) -> None:
    """Small pictures, numbered, in the first places; the others are left free."""
    for axes in places:
        axes.axis("off")
    for step, (axes, each) in enumerate(zip(places, pictures, strict=False), start=1):
        axes.set_title(str(step), fontsize="small")
        axes.imshow(each, cmap="gray", vmin=0, vmax=255)


def _show(axes: Axes, image: Tensor, box: Tensor | None) -> None:
    *_, height, width = image.shape
    axes.imshow(drawings.picture(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.axis("off")
    if box is not None:
        y0, x0, y1, x1 = box.tolist()
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="white", linestyle="--"))


def _draw_path(axes: Axes, image: Tensor, locations: Tensor, model: str) -> None:
    colour = drawings.colours([model])[model][1]
    *_, height, width = image.shape
    points = drawings.pixels(locations.detach().cpu(), height, width)
    axes.plot(points[:, 1].tolist(), points[:, 0].tolist(), "-o", color=colour, markersize=3)
    for mark in drawings.marks(points, GAP * width, height, width):
        axes.plot(*zip(mark.point[::-1], mark.place[::-1], strict=True), color=colour, linewidth=0.7)
        badge = {"boxstyle": "circle,pad=0.2", "facecolor": colour}
        axes.text(mark.place[1], mark.place[0], mark.text, fontsize="x-small", ha="center", va="center", bbox=badge)


def _draw_outlines(axes: Axes, image: Tensor, locations: Tensor, spans: Tensor) -> None:
    *_, height, width = image.shape
    for (y, x), span in zip(drawings.pixels(locations, height, width).tolist(), spans.tolist(), strict=True):
        axes.add_patch(Rectangle((x - span / 2, y - span / 2), span, span, fill=False, color="white", linewidth=0.8))


def _draw_heat(axes: Axes, image: Tensor, weights: Tensor, grid: Tensor, model: str) -> None:
    *_, height, width = image.shape
    tint = drawings.tint(drawings.heat(weights, grid, height, width), drawings.colours([model])[model][1])
    axes.imshow(tint, extent=axes.images[0].get_extent(), interpolation="nearest")
