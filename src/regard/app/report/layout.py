"""What a report's template draws, laid out: the pictures, the paths and weights over them, the learning curves."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from regard.app.explaining import MEANINGS
from regard.app.report.drawings import (
    DASHES,
    Mark,
    colours,
    embed,
    heat,
    inside,
    marks,
    opacity,
    picture,
    pixels,
    relative,
    stack,
    tint,
    windows,
)
from regard.app.report.glances import few
from regard.app.report.matrix import INK, Matrix
from regard.app.report.report import Look, Number, Picture, Report
from regard.app.results import printed
from regard.app.text.reading import printable
from regard.app.training.files import make_folder, write

WIDTH = 200.0  # of a picture in the units of its drawing
MARK = 17.0  # between the middles of two numbers on a picture, in the same units
ORDERS = {"given": "where it looked", "random": "a random order", "oracle": "the truth"}
SHARP = 128  # pixels: a picture up to this wide is enlarged with its pixels visible


def page(report: Report) -> str:
    """The page as text of HTML.

    >>> "<h1>1 &lt; 2</h1>" in page(Report("1 < 2", "Is it so?", "Digits."))
    True
    """
    palette, album = colours(report.names), _Album()
    looks = {model: _views(look, palette[model][1], album) for model, look in report.looks.items()}
    failures = {model: _views(look, palette[model][1], album) for model, look in report.failures.items()}
    learned = {model: _last(matrices) for model, matrices in report.learning.items()}
    groups = (*report.pictures.values(), learned.values())
    loader = PackageLoader("regard.app.report")
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_without_controls
    )
    return template.get_template("report.html.j2").render(
        report=report,
        colours=palette,
        rows={model: [_cell(value) for value in row] for model, row in report.rows.items()},
        chart=chart(report.curves, "{:.3g}".format if report.curves_unit else percent),
        looks=looks,
        images=list(zip(*looks.values(), strict=True)),
        failures=failures,
        steps=max((look.steps for look in (*report.looks.values(), *report.failures.values())), default=0),
        pictures=album.pictures,
        learning={model: few(matrices) for model, matrices in report.learning.items()},
        learned=learned,
        breadth=chart({model: _breadths(matrices) for model, matrices in report.learning.items()}, "{:.3g}".format),
        mattered=_mattered(report.mattered),
        meanings={name: MEANINGS[name] for each in report.mattered.values() for name in each},
        drawn=[each.matrix for pictures in groups for each in pictures if each.matrix],
        matrix_ink=INK,
        width=WIDTH,
        opacity=lambda share: float(opacity(torch.tensor(share))),
    )


def write_report(path: str | Path, report: Report) -> Path:
    """Writes the page, whole or not at all: what stood at `path` stays until the new page is safely on the disk.

    Raises Failure where it cannot be written, or its folder is a link; then `path` is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(f"{folder}/report.html", Report("Soft and hard", "Which errs less?", "Digits.")).name
    'report.html'
    """
    make_folder(Path(path).parent)
    write(Path(path), page(report).encode())
    return Path(path)


def _without_controls(value: object) -> object:
    """Text without what a browser or a terminal would obey: controls are spelled out, but for the ends of lines."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _mattered(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[tuple[str, str, list[str]]]:
    """The rows of the table: a model, an order of its places, and a cell for each metric of any model."""
    metrics = dict.fromkeys(name for each in figures.values() for name in each)
    return [
        (model, words, [_cell(each.get(name, {}).get(order)) for name in metrics])
        for model, each in figures.items()
        for order, words in ORDERS.items()
        if any(order in values for values in each.values())
    ]


def _last(matrices: Mapping[int, Matrix]) -> Picture:
    """Where a model looked after its last epoch."""
    epoch, matrix = max(matrices.items())
    return Picture(f"After epoch {epoch}", f"Each target word looked at {matrix.breadth:.1f} words.", b"", matrix)


def _breadths(matrices: Mapping[int, Matrix]) -> list[tuple[Number, Number]]:
    """How many words a word looked at on average, after each epoch."""
    return [(epoch, matrix.breadth) for epoch, matrix in matrices.items()]


class _Album:
    """The pictures of a page: each is kept once, however often it is shown."""

    def __init__(self) -> None:
        self.pictures: dict[str, dict[str, object]] = {}

    def add(self, values: np.ndarray) -> str:
        """Keeps a picture of bytes and gives its name on the page."""
        height, width = values.shape[:2]
        new = {"name": f"picture-{len(self.pictures)}", "height": height, "width": width, "sharp": width <= SHARP}
        return str(self.pictures.setdefault(embed(values), new)["name"])


def _cell(value: str | Number | None) -> str:
    """A cell of the table, with a minus and a dash as they are printed."""
    if value is None or isinstance(value, str):
        return value or "–"
    return printed(value).replace("-", "−")


@dataclass
class _View:
    """What the template draws of one image; lengths are in units of a picture that is `WIDTH` wide."""

    number: int
    truth: str
    answer: str
    right: bool
    picture: str
    height: float
    box: dict[str, float] | None = None
    note: str = ""
    path: list[tuple[float, float]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    frames: list[list[dict[str, float]]] = field(default_factory=list)
    patches: list[str] = field(default_factory=list)
    heats: list[str] = field(default_factory=list)
    alts: list[str] = field(default_factory=list)

    def alt(self, model: str) -> str:
        """The picture in words."""
        verdict = f"answered {self.answer}, which is {'right' if self.right else 'wrong'}"
        parts = (f"Image {self.number}, truth {self.truth}: {model}", self.note, verdict)
        return ", ".join(filter(None, parts)) + "."


def _views(look: Look, colour: str, album: _Album) -> list[_View]:
    return [_view(look, n, colour, album) for n in range(len(look))]


def _view(look: Look, n: int, colour: str, album: _Album) -> _View:
    label, answer = int(look.labels[n]), int(look.predictions[n])
    height, width = look.images.shape[-2:]
    image = album.add(picture(look.images[n]))
    view = _View(n + 1, look.name(label), look.name(answer), label == answer, image, WIDTH * height / width)
    if look.boxes is not None:
        y0, x0, y1, x1 = (look.boxes[n] * WIDTH / width).tolist()
        view.box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    if look.weights is not None and look.grid is not None:
        _describe(view, look, n, look.weights[n], pixels(look.grid, height, width))
        maps = heat(look.weights[n], look.grid, height, width)  # (T, y, x)
        shown = (maps.mean(0), *maps) if look.locations is None else (relative(maps[0]),)
        view.heats = [album.add(tint(each, colour)) for each in shown]
    if look.locations is not None:
        _add_path(view, look, n, pixels(look.locations[n].nan_to_num().clamp(-1, 1), height, width))
    return view


def _add_path(view: _View, look: Look, n: int, points: Float[Tensor, "T 2"]) -> None:
    """The patches that were read, beside the image, and on it the numbered path of glimpses, or its weights."""
    unit, view.alts = WIDTH / look.images.shape[-1], []
    if not view.heats:
        view.note = f"{len(points)} glimpses"
        if look.boxes is not None:
            view.note = f"in the box: {int(inside(points, look.boxes[n]).sum())} of {len(points)}"
        view.path = [(x * unit, y * unit) for y, x in points.tolist()]
        view.marks = marks(points * unit, MARK, view.height, WIDTH)
    if look.patches is not None:
        view.frames = [_frames(point, look.patches, unit) for point in points]
        if look.spans is not None:
            spans = zip(points.tolist(), look.spans[n].tolist(), strict=True)
            view.frames = [[_square(y - span / 2, x - span / 2, span, unit)] for (y, x), span in spans]
        view.patches = [embed(stack(patches)) for patches in look.patches[n]]
        view.alts = [f"What glimpse {t} saw at row {y:.0f}, column {x:.0f}." for t, (y, x) in enumerate(points, 1)]


def _frames(point: Float[Tensor, "2"], patches: Tensor, unit: float) -> list[dict[str, float]]:
    """The outlines of what one glimpse read."""
    *_, scales, _, _, size = patches.shape
    return [_square(*window, unit) for window in windows(point, size, scales)]


def _square(y: Number, x: Number, side: Number, unit: Number) -> dict[str, float]:
    return {"x": x * unit, "y": y * unit, "side": side * unit}


def _describe(view: _View, look: Look, n: int, weights: Float[Tensor, "T G"], places: Float[Tensor, "G 2"]) -> None:
    """The weights in words."""
    view.note = f"weights over {len(places)} places"
    if look.boxes is not None:
        view.note = f"in the box: {float(weights[:, inside(places, look.boxes[n])].sum(-1).mean()):.0%}"
    largest = weights.amax(-1).tolist()
    view.alts = [f"Weights of glimpse {t}: at most {peak:.0%} at a place." for t, peak in enumerate(largest, 1)]


@dataclass
class Line:
    """A curve in a square of 100 by 100 with its origin at the top left, and where its name stands."""

    model: str
    points: list[tuple[float, float]]
    dash: str
    last: str
    best: str
    label: float = 0.0


@dataclass
class Chart:
    """Learning curves: the lines, and the ticks {text: place} across and up."""

    lines: list[Line]
    across: dict[str, float]
    up: dict[str, float]


def percent(share: Number) -> str:
    """A share of one in words.

    >>> percent(0.125)
    '12.5%'
    """
    return f"{100 * share:.3g}%"


def chart(
    curves: Mapping[str, Sequence[tuple[Number, Number]]], written: Callable[[Number], str] = percent
) -> Chart | None:
    """Curves {model: [(x, error), ...]} laid out, and the errors as they are written; None where there is nothing to
    draw.

    Points that are not finite are left out.

    >>> drawn = chart({"soft": [(0.0, 0.9), (10.0, 0.1)]})
    >>> drawn.lines[0].last, drawn.across
    ('10%', {'0': 0.0, '2': 20.0, '4': 40.0, '6': 60.0, '8': 80.0, '10': 100.0})
    """
    known = {model: [p for p in points if all(map(math.isfinite, p))] for model, points in curves.items()}
    known = {model: points for model, points in known.items() if points}
    if not known:
        return None
    right = max(x for points in known.values() for x, _ in points) or 1.0
    top = 1.05 * max(y for points in known.values() for _, y in points) or 1.0
    lines = [_line(i, model, points, right, top, written) for i, (model, points) in enumerate(known.items())]
    _separate(lines)
    across = {f"{x:,.0f}" if right >= 5 else f"{x:g}": 100 * x / right for x in ticks(right)}
    return Chart(lines, across, {written(y): 100 - 100 * y / top for y in ticks(top)})


def _line(
    i: int,
    model: str,
    points: Sequence[tuple[Number, Number]],
    right: Number,
    top: Number,
    written: Callable[[Number], str],
) -> Line:
    places = [(100 * x / right, 100 - 100 * y / top) for x, y in points]
    errors = [y for _, y in points]
    dash = " ".join(map(str, DASHES[i % len(DASHES)]))
    return Line(model, places, dash, written(errors[-1]), written(min(errors)), places[-1][1])


def _separate(lines: list[Line], gap: float = 6.0) -> None:
    """Moves the names of the lines apart: down where they are too near, and up again where the chart ends."""
    order = sorted(lines, key=lambda line: line.label)
    for above, line in itertools.pairwise(order):
        line.label = max(line.label, above.label + gap)
    order[-1].label = min(order[-1].label, 100.0)
    for below, line in itertools.pairwise(reversed(order)):
        line.label = min(line.label, below.label - gap)


def ticks(top: Number, count: int = 5) -> list[float]:
    """At most `count` + 1 round numbers from 0 to `top`.

    >>> ticks(0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if top <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(top / count))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power * count >= top * (1 - 1e-9))
    return [round(i * step, 12) for i in range(int(top / step + 1e-9) + 1)]
