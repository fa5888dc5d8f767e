"""Two digits on a canvas, and a sentence that says which they are and how they lie: "three left of seven".

What is true of the picture is known: the words of the caption, and for each word that names a digit its place. A whole
batch is built at once.
"""

from copy import copy

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from regard.app.data.generators.scatter import ink_box, squares
from regard.app.data.splits import padded
from regard.app.text.vocabulary import END, Words

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = ("left of", "above")
SENTENCES = tuple(f"{one} {relation} {other}" for relation in RELATIONS for one in NAMES for other in NAMES)
SECOND = torch.tensor([3, 2])  # which word names the second digit, for each relation; word 0 names the first
WORDS = Words([*NAMES, "left", "of", "above"])


class Composed:
    """Pairs of digits on canvases of `canvas` x `canvas` pixels with their captions, as a split.

    Along one axis, drawn for each scene, the boxes around the ink of the two digits lie beside each other; along the
    other each lies anywhere. So they never overlap. The caption says "left of" where the centres of the boxes are at
    least as far apart across as down, else "above", and first names the digit that lies left, or above.

    The scene of an index has the digit of that index. With `seed=None` the other digit and both places are drawn afresh
    for every batch with the generator that it is given; with a seed they are fixed by the index.

    images (N, h, w), labels (N,) from 0 to 9. Raises ValueError for other labels, and for a canvas that two digits do
    not fit on.

    >>> images = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    >>> batch = Composed(images, torch.tensor([7, 8, 9]), seed=0).batch(torch.tensor([2, 0]))
    >>> [bytes(text[text > 0].tolist()).decode() for text in batch["text"]], batch["picture"].shape
    (['seven left of nine', 'nine above seven'], torch.Size([2, 1, 60, 60]))
    """

    def __init__(
        self,
        images: UInt8[Tensor, "N h w"],
        labels: Integer[Tensor, " N"],
        canvas: int = 60,
        seed: int | None = None,
        vocabulary: Words = WORDS,
    ):
        self.images, self.sizes = _cut(images)
        self.labels, self.canvas = labels.long(), canvas
        _check(self.labels, self.images, canvas)
        self._spell(vocabulary)
        self.texts = padded([torch.tensor(list(text.encode())) for text in SENTENCES]).byte()  # (200, C)
        self.fixed = None if seed is None else self._draw(len(images), torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The scenes of the digits at `indices`. Captions have up to T words, END included:

            picture (B, 1, Y, X)    in [0, 1]
            caption (B, T)          the number of each word, END last; 0 after it
            text (B, C)             the bytes of the caption; 0 after them
            boxes (B, T, 4)         the edges y0, x0, y1, x1 in pixels of the digit that a word names, y1 and x1 just
                                    beyond its ink; NaN for a word that names none
            index (B,)              the indices

        Without a generator torch's default one is used.
        """
        numbers = self._draw(len(indices), generator) if self.fixed is None else self.fixed[indices]
        other = (indices + 1 + (numbers[:, 0] * (len(self) - 1)).long()) % len(self)
        digits = torch.stack([indices, other], 1)  # (B, 2)
        corners = self._corners(self.sizes[digits], numbers[:, 1:])  # (B, 2, 2)
        boxes = torch.cat([corners, corners + self.sizes[digits]], -1)  # (B, 2, 4)
        relation, order = _relation(boxes)
        boxes = boxes.take_along_dim(order[..., None], 1)
        first, second = self.labels[digits.take_along_dim(order, 1)].unbind(1)
        sentence = (relation * len(NAMES) + first) * len(NAMES) + second
        return {
            "picture": self._painted(digits, corners).unsqueeze(1).float().mul_(1 / 255),  # (B, 1, Y, X)
            "caption": self.captions[sentence],
            "text": self.texts[sentence],
            "boxes": _of_words(boxes.float(), relation, self.captions.shape[1]),
            "index": indices,
        }

    def spelled_by(self, vocabulary: Words) -> "Composed":
        """The same scenes, their captions in the numbers of another vocabulary."""
        other = copy(self)
        other._spell(vocabulary)
        return other

    def _spell(self, vocabulary: Words) -> None:
        self.vocabulary = vocabulary
        self.captions = padded([torch.tensor([*numbers, END]) for numbers in vocabulary.encode(SENTENCES)])  # (200, T)

    def _draw(self, count: int, generator: torch.Generator | None) -> Float[Tensor, "B 7"]:
        """Uniform numbers: the other digit, the axis, who is first on it, and where on it and on the other axis."""
        return torch.rand(count, 7, generator=generator, dtype=torch.float64)

    def _corners(self, sizes: Int[Tensor, "B 2 2"], numbers: Float[Tensor, "B 6"]) -> Int[Tensor, "B 2 2"]:
        """Where the boxes begin, as (y, x), for digits of these heights and widths."""
        axis, swapped = (numbers[:, :2, None, None] < 0.5).long().unbind(1)  # (B, 1, 1)
        along, across = (sizes.take_along_dim(each, 2).squeeze(2) for each in (axis, 1 - axis))  # (B, 2)
        start = (numbers[:, 2:4].sort(1).values * (self.canvas + 1 - along.sum(1, keepdim=True))).long()  # (B, 2)
        start[:, 1] += along.take_along_dim(swapped.squeeze(2), 1).squeeze(1)
        beside = torch.where(swapped.squeeze(2) > 0, start.flip(1), start)
        anywhere = (numbers[:, 4:] * (self.canvas + 1 - across)).long()
        return torch.stack([anywhere, beside], 2).take_along_dim(torch.cat([1 - axis, axis], 2), 2)

    def _painted(self, digits: Int[Tensor, "B 2"], corners: Int[Tensor, "B 2 2"]) -> UInt8[Tensor, "B Y X"]:
        """Canvases with two digits each."""
        height, width = self.images.shape[1:]
        wider = self.canvas + width  # what is right of the ink of a digit may lie outside, as what is below it
        canvas = self.images.new_zeros(len(digits), self.canvas + height, wider)
        places = squares(corners, height, width, wider)  # (B, 2, n)
        canvas.flatten(1).scatter_reduce_(1, places.flatten(1), self.images[digits].flatten(1), "amax")
        return canvas[:, : self.canvas, : self.canvas]


def _cut(images: UInt8[Tensor, "N h w"]) -> tuple[UInt8[Tensor, "N y x"], Int[Tensor, "N 2"]]:
    """The images with their ink in the upper left corner, cut to the largest, and the height and width of the ink."""
    ink = ink_box(images)
    corner, sizes = ink[:, :2], ink[:, 2:] - ink[:, :2]
    _, height, width = images.shape
    wider = images.new_zeros(len(images), 2 * height, 2 * width)
    wider[:, :height, :width] = images
    height, width = sizes.amax(0).tolist()
    pixels = squares(corner, height, width, wider.shape[2])
    return wider.flatten(1).gather(1, pixels).unflatten(1, (height, width)), sizes


def _relation(boxes: Int[Tensor, "B 2 4"]) -> tuple[Int[Tensor, " B"], Int[Tensor, "B 2"]]:
    """How two boxes lie, as a number of RELATIONS, and which of them is first in that, and second."""
    apart = (boxes[:, 1] - boxes[:, 0]).unflatten(1, (2, 2)).sum(1)  # twice how far the centres are, as (y, x)
    relation = (apart[:, 0].abs() > apart[:, 1].abs()).long()
    second = apart.take_along_dim(1 - relation[:, None], 1) > 0  # (B, 1)
    return relation, torch.cat([~second, second], 1).long()


def _of_words(boxes: Float[Tensor, "B 2 4"], relation: Int[Tensor, " B"], words: int) -> Float[Tensor, "B T 4"]:
    """The boxes at the words that name what is in them."""
    placed = torch.full((len(boxes), words, 4), torch.nan)
    placed[:, 0] = boxes[:, 0]
    placed[torch.arange(len(boxes)), SECOND[relation]] = boxes[:, 1]
    return placed


def _check(labels: Int[Tensor, " N"], images: UInt8[Tensor, "N h w"], canvas: int) -> None:
    if len(labels) and int(labels.max()) >= len(NAMES):
        raise ValueError(f"digits have the labels 0 to {len(NAMES) - 1}, but there is a {labels.max()}")
    least = 2 * max(images.shape[1:])
    if canvas < least:
        raise ValueError(f"canvas must be at least {least}, as two digits must fit beside each other, not {canvas}")
