"""Where things go on a picture: locations, windows, numbers and weights as pixels. For the page and the files alike."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

COLOURS = (  # on a light page; on a dark one and on pictures. Told apart with any kind of colour blindness.
    ("#b8480a", "#ff9a52"),
    ("#0a66a8", "#5cb3f2"),
    ("#0a7d5c", "#3fd0a4"),
    ("#a34a82", "#f0a0d0"),
    ("#66686c", "#b9bcc2"),
    ("#83670b", "#e5c64a"),
    ("#5446a8", "#a9a0fa"),
)
USUAL = ("soft", "hard", "random", "fixed", "cnn")  # they have the same colours wherever they are drawn
DASHES = ((), (7, 3), (2, 3), (9, 3, 2, 3), (1, 4), (5, 2), (3, 5))  # of lines, so that colour is not all that tells
LARGEST = 320  # pixels of an embedded picture each way
FINEST = 96  # pixels of a heat map each way
HEAVY = 4_000  # bytes of a PNG beyond which a picture is a photograph, and JPEG is smaller
OPAQUE = 0.9  # of the tint where all of the weight is


def colours(models: Iterable[str]) -> dict[str, tuple[str, str]]:
    """{model: its colour on a light page, and on a dark one and on pictures}; unusual models get those that are left.

    >>> colours(["hard"]) == {"hard": COLOURS[1]}
    True
    """
    wanted = list(models)
    names = list(dict.fromkeys((*USUAL, *wanted)))
    return {name: COLOURS[names.index(name) % len(COLOURS)] for name in wanted}


def pixels(locations: Float[Tensor, "*N 2"], height: int, width: int) -> Float[Tensor, "*N 2"]:
    """Locations (y, x) in [-1, 1] as pixels from the top and from the left.

    >>> pixels(torch.tensor([[-1.0, 0.0]]), height=10, width=20)
    tensor([[ 0., 10.]])
    """
    return (locations + 1) / 2 * locations.new_tensor([height, width])


def windows(middle: Float[Tensor, "2"], size: int, scales: int) -> list[tuple[float, float, int]]:
    """(top, left, side) in pixels of the window of each scale around a middle in pixels, as the sensor cuts them.

    >>> windows(torch.tensor([30.0, 20.0]), size=12, scales=2)
    [(24.0, 14.0, 12), (18.0, 8.0, 24)]
    """
    corners = [2**s * (middle / 2**s - size / 2 + 1 / 2).floor() for s in range(scales)]
    return [(float(y), float(x), size * 2**s) for s, (y, x) in enumerate(corners)]


def inside(points: Float[Tensor, "*N 2"], box: Float[Tensor, "4"]) -> Bool[Tensor, "*N"]:
    """Which points (y, x) lie in the box y0, x0, y1, x1.

    >>> inside(torch.tensor([[3.0, 3.0], [3.0, 9.0]]), torch.tensor([2.0, 2.0, 6.0, 6.0]))
    tensor([ True, False])
    """
    return ((points >= box[:2]) & (points < box[2:])).all(-1)


def heat(
    weights: Float[Tensor, "*T G"], grid: Float[Tensor, "G 2"], height: int, width: int
) -> Float[Tensor, "*T y x"]:
    """At every pixel the weight of the nearest place of the grid; images above 96 pixels are drawn with 96.

    >>> heat(torch.tensor([0.2, 0.8]), torch.tensor([[0.0, -0.5], [0.0, 0.5]]), height=1, width=4)
    tensor([[0.2000, 0.2000, 0.8000, 0.8000]])
    """
    places = pixels(grid, height, width)
    y, x = (extent * (torch.arange(n) + 0.5) / n for extent, n in ((height, _fine(height)), (width, _fine(width))))
    nearest = torch.cdist(torch.cartesian_prod(y, x).view(-1, 2), places.to(y)).argmin(-1)
    return weights[..., nearest].unflatten(-1, (len(y), len(x)))


def _fine(extent: int) -> int:
    return min(extent, FINEST)


@dataclass(frozen=True)
class Mark:
    """A number on a picture: the glimpses that looked at `point` (y, x), and `place`, where there is room for it."""

    steps: tuple[int, ...]
    point: tuple[float, float]
    place: tuple[float, float]

    @property
    def text(self) -> str:
        """The numbers of the glimpses, those in a row drawn together.

        >>> Mark((1, 2, 3, 6), (0.0, 0.0), (0.0, 0.0)).text
        '1–3 6'
        """
        starts = [step for step in self.steps if step - 1 not in self.steps]
        ends = [step for step in self.steps if step + 1 not in self.steps]
        return " ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def marks(points: Float[Tensor, "T 2"], gap: float, height: float | int, width: float | int) -> list[Mark]:
    """The numbers 1 .. T of a path through points (y, x), moved apart until no two are nearer than `gap`.

    Glimpses at the same point share a number.

    >>> [mark.text for mark in marks(torch.tensor([[5.0, 5.0], [9.0, 9.0], [5.0, 5.0]]), 2.0, 20, 20)]
    ['1 3', '2']
    """
    together: dict[tuple[float, float], list[int]] = {}
    for step, (y, x) in enumerate(points.tolist(), start=1):
        together.setdefault((round(y, 1), round(x, 1)), []).append(step)
    places = _apart(np.array(list(together)), gap, (height, width)).tolist()
    return [Mark(tuple(s), point, (y, x)) for (point, s), (y, x) in zip(together.items(), places, strict=True)]


def _apart(points: np.ndarray, gap: float, extent: tuple[float | int, float | int]) -> np.ndarray:
    """Pushes points that are nearer than `gap` away from each other, a little at a time, within the picture."""
    turn = np.arange(len(points)) * 2.4
    apart = 0.01 * np.stack([np.sin(turn), np.cos(turn)], -1)  # so that no two lie on each other
    places = points
    for _ in range(200):
        away = (places + apart)[:, None] - (places + apart)
        distance = np.linalg.norm(away, axis=-1, keepdims=True)
        push = np.where(distance < gap, (gap - distance) / 2 * away / np.maximum(distance, 1e-6), 0)
        places = np.clip(places + push.sum(1) / 2, gap / 2, np.array(extent) - gap / 2)
    return places


def picture(image: Float[Tensor, "C Y X"]) -> np.ndarray:
    """An image in [0, 1] as bytes (Y, X, C), a grey one as (Y, X).

    >>> picture(torch.ones(1, 2, 2)).tolist()
    [[255, 255], [255, 255]]
    """
    values = (image.nan_to_num().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return values[..., 0] if values.shape[-1] == 1 else values


def stack(patches: Float[Tensor, "scales C g g"]) -> np.ndarray:
    """The patches of one glimpse below each other, finest first, a transparent line between: bytes (Y, g, 4).

    >>> stack(torch.ones(2, 1, 4, 4)).shape
    (9, 4, 4)
    """
    scales, _, size, _ = patches.shape
    line = max(1, size // 16)
    canvas = np.zeros((scales * (size + line) - line, size, 4), np.uint8)
    for s, patch in enumerate(patches):
        rows = slice(s * (size + line), s * (size + line) + size)
        canvas[rows, :, :3] = picture(patch.expand(3, -1, -1))
        canvas[rows, :, 3] = 255
    return canvas


def opacity(weights: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """How opaque a tint of these weights is: as their cube roots, so that 1 % is still seen beside 50 %.

    It depends on nothing else, therefore pictures can be compared with each other.

    >>> opacity(torch.tensor([0.0, 0.01, 0.1, 1.0]))
    tensor([0.0000, 0.1939, 0.4177, 0.9000])
    """
    return OPAQUE * weights.nan_to_num().clamp(0, 1) ** (1 / 3)


def relative(weights: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Weights by the largest of them: of thousands of places each has so little that no tint of it would be seen.

    >>> relative(torch.tensor([0.001, 0.002]))
    tensor([0.5000, 1.0000])
    """
    return weights / weights.amax().clamp(min=1e-9)


def tint(weights: Float[Tensor, "Y X"], colour: str) -> np.ndarray:
    """Weights as bytes (Y, X, 4) of one colour, the more opaque the larger.

    >>> tint(torch.tensor([[0.0, 1.0]]), "#ff0000").tolist()
    [[[255, 0, 0, 0], [255, 0, 0, 230]]]
    """
    values = np.empty((*weights.shape, 4), np.uint8)
    values[..., :3] = tuple(bytes.fromhex(colour.removeprefix("#")))
    values[..., 3] = (255 * opacity(weights)).round().byte().numpy()
    return values


def embed(values: np.ndarray) -> str:
    """A picture of bytes as a data URI: PNG, or JPEG where it is a photograph and PNG would be large; what is seen
    through is no photograph.

    >>> embed(np.zeros((2, 2), np.uint8))[:30]
    'data:image/png;base64,iVBORw0K'
    """
    image = Image.fromarray(values)
    image.thumbnail((LARGEST, LARGEST))
    data, kind = _file(image, "PNG"), "png"
    seen_through = values.ndim == 3 and values.shape[2] == 4 and ((values[..., 3] % 255) > 0).any()
    if len(data) > HEAVY and not seen_through:
        data, kind = _file(image.convert("RGB"), "JPEG"), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, optimize=True, quality=82)
    return file.getvalue()
