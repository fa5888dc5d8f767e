"""Where models looked, what they got right and what it cost: one page of HTML that needs nothing but itself.

A recipe says where its model looked as a `Look`; a `Report` holds what was compared; `layout.write_report` makes the
page. It has no script, asks for no network, and every picture on it has words beside it. The same looks as files of
PNG are drawn by `regard.app.report.image_figures`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from regard.app.report.matrix import Matrix

Number = float | int


@dataclass
class Look:
    """Where one model looked on N images, and what it answered.

    A model that looks at locations gives `locations` and `patches`, one that weighs a grid of places gives `weights`
    and `grid`, one that chooses its locations by such weights, of all glimpses together, gives all four, and one that
    does neither none of them. Letters: N images, T glimpses, G places of the grid, g pixels of a patch each way;
    patches are finest first, each next one covering twice as much.

    Args:
        images: (N, C, Y, X) in [0, 1]; grey (C = 1) or red, green, blue (C = 3).
        labels: (N,) the truth.
        predictions: (N,) the answers.
        locations: (N, T, 2) as (y, x) in [-1, 1], the image's outer edges.
        patches: (N, T, scales, C, g, g) what was seen there.
        spans: (N, T) how many pixels of the image a patch reaches over, if not its own size.
        weights: (N, T, G) the share of each place of the grid in a glimpse; beside locations (N, 1, G).
        grid: (G, 2) the places as (y, x) in [-1, 1].
        boxes: (N, 4) the edges y0, x0, y1, x1 in pixels of what is to be recognised.
        classes: the names of the labels 0, 1, ...; without them the numbers are shown.

    Raises:
        ValueError: sizes that do not fit each other, images that are neither grey nor colour, weights without a grid.

    >>> import torch
    >>> look = Look(torch.rand(2, 1, 28, 28), torch.tensor([3, 7]), torch.tensor([3, 1]), torch.zeros(2, 6, 2))
    >>> len(look), look.steps, look.name(7)
    (2, 6, '7')
    """

    images: Float[Tensor, "N C Y X"]
    labels: Int[Tensor, " N"]
    predictions: Int[Tensor, " N"]
    locations: Float[Tensor, "N T 2"] | None = None
    patches: Float[Tensor, "N T scales C g g"] | None = None
    weights: Float[Tensor, "N maps G"] | None = None
    grid: Float[Tensor, "G 2"] | None = None
    boxes: Float[Tensor, "N 4"] | None = None
    spans: Float[Tensor, "N T"] | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("images", "labels", "predictions", "locations", "patches", "weights", "grid", "boxes", "spans"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, value.detach().cpu().float() if value.is_floating_point() else value.cpu())
        _check(self)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def steps(self) -> int:
        """The number of glimpses T; 0 where the model does not look at places."""
        looked = self.locations if self.locations is not None else self.weights
        return 0 if looked is None else looked.shape[1]

    def name(self, label: int) -> str:
        """What a label is called."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def _check(look: Look) -> None:
    if look.images.ndim != 4 or look.images.shape[1] not in (1, 3):
        raise ValueError(f"expected images (N, 1 or 3, Y, X), got {tuple(look.images.shape)}")
    if (look.weights is None) != (look.grid is None):
        raise ValueError("expected weights and the grid that they are of, got one without the other")
    count, glimpses = len(look), (len(look), look.steps)
    shapes = {"labels": (count,), "predictions": (count,), "boxes": (count, 4)}
    shapes |= {"locations": (*glimpses, 2), "patches": glimpses}
    shapes |= {"weights": glimpses if look.locations is None else (len(look), 1)}
    shapes |= {} if look.weights is None else {"grid": (look.weights.shape[-1], 2)}
    for name, shape in shapes.items():
        value = getattr(look, name)
        if value is not None and value.shape[: len(shape)] != shape:
            raise ValueError(f"expected {name} to begin with the sizes {shape}, got {tuple(value.shape)}")


@dataclass
class Picture:
    """A picture as the bytes of a PNG, with a title and what it shows in words: of what a `Look` cannot hold. If it is
    of a sound, the report plays that: the bytes of a WAV file.

    If it is of a matrix of weights, the report has that as a table in its place, below the title and the words.

    >>> Picture("Time flies.", "The head of time is flies.", png=b"").title
    'Time flies.'
    """

    title: str
    text: str
    png: bytes
    matrix: Matrix | None = None
    sound: bytes = b""

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def sound_uri(self) -> str:
        """The sound as an address that holds it."""
        return f"data:audio/wav;base64,{base64.b64encode(self.sound).decode()}"


@dataclass
class Column:
    """A column of the table: its name, the unit (or nothing), what it means and how it was measured.

    >>> Column("error", "%", "Share of test images answered wrongly.").unit
    '%'
    """

    name: str
    unit: str
    meaning: str


@dataclass
class Report:
    """What was compared and what came out. Only the title, the question and the data must be given.

    Args:
        title: of the page.
        question: what was asked, and how, in a few sentences.
        data: a sentence that says which data were used.
        answer: what came out, in a sentence or two.
        models: {model: a sentence saying what it is}.
        columns: of the table.
        rows: {model: a cell for each column}; numbers are rounded to three digits, None is shown as a dash.
        curves: {model: [(x, error), ...]}, the error as a share of one.
        curves_x, curves_y: what the axes of the curves are.
        looks: {model: where it looked}, all on the same images.
        failures: {model: images that it answered wrongly}.
        command, config: how to run this again.
        pictures: {heading: pictures}, of models that look at something else than images.
        learning: {model: {epoch: its weights on one example then}}.
        curves_unit: what the curves count, such as nats, if not a share of one.
        mattered: {model: whether it mattered where it looked}, as `regard.app.explaining.figures`.

    Raises:
        ValueError: a row that does not fit the columns, or looks at different numbers of images.

    >>> Report("Soft and hard", "Which errs less?", "Digits.", curves={"soft": [(1.0, 0.9), (2.0, 0.4)]}).names
    ['soft']
    >>> Report("Soft and hard", "Which errs less?", "Digits.", rows={"soft": [3.1]})
    Traceback (most recent call last):
    ValueError: expected 0 cells in the row of 'soft', one for each column, got 1
    """

    title: str
    question: str
    data: str
    answer: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[Column] = ()
    rows: Mapping[str, Sequence[str | Number | None]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[Number, Number]]] = field(default_factory=dict)
    curves_x: str = "seconds of training"
    curves_y: str = "error on the validation images"
    looks: Mapping[str, Look] = field(default_factory=dict)
    failures: Mapping[str, Look] = field(default_factory=dict)
    command: str = ""
    config: str = ""
    pictures: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    learning: Mapping[str, Mapping[int, Matrix]] = field(default_factory=dict)
    curves_unit: str = ""
    mattered: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model, row in self.rows.items():
            if len(row) != len(self.columns):
                expected = f"expected {len(self.columns)} cells in the row of {model!r}, one for each column"
                raise ValueError(f"{expected}, got {len(row)}")
        sizes = {model: len(look) for model, look in self.looks.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"expected looks at the same images, got different numbers of images: {sizes}")

    @property
    def names(self) -> list[str]:
        """Every model that the report mentions, once."""
        parts = (self.models, self.rows, self.curves, self.looks, self.failures, self.learning, self.mattered)
        return list(dict.fromkeys(model for part in parts for model in part))
