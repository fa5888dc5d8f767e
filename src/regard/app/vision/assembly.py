"""Puzzles put together: by how well every two pieces fit, side by side and one below the other."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from regard.app.data.joints import laid

BEAM = 2000
"""Boards that are kept after each piece."""


class Fits(NamedTuple):
    """The log-odds that the second of two pieces belongs right of the first, or below it; a piece with itself: -inf."""

    right: Float[Tensor, "N N"]
    below: Float[Tensor, "N N"]


def fits(pieces: UInt8[Tensor, "N 3 y x"], gap: int, judge: Callable[[Tensor, Tensor], Tensor]) -> Fits:
    """How well all pieces of a puzzle fit each other. `judge` gives the log-odds (B,) of pairs (B, 4, y, x), whose seam
    is in the columns (B,)."""
    return Fits(*(_beside(each, gap, judge) for each in (pieces, pieces.mT)))


def _beside(pieces: UInt8[Tensor, "N 3 y x"], gap: int, judge: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    count, _, height, width = pieces.shape
    first, second = (each.flatten() for each in torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij"))
    between = pieces.new_zeros(len(first), 3, height, gap)
    pairs = torch.cat((pieces[first], between, pieces[second]), 3)[..., gap - gap // 2 : 2 * width + gap - gap // 2]
    seam = torch.full((len(first),), width + gap // 2 - (gap - gap // 2))
    found = judge(laid(pairs, seam, gap), seam).view(count, count)
    return found.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)


def best_board(found: Fits, rows: int, columns: int) -> Int[Tensor, "rows columns"]:
    """The pieces of a puzzle at their places: the board with about the largest sum of log-odds over all neighbours, by
    a beam over the places, row by row.

    >>> right, below = torch.full((4, 4), -5.0), torch.full((4, 4), -5.0)
    >>> right[2, 0] = right[1, 3] = below[2, 1] = below[0, 3] = 5.0
    >>> best_board(Fits(right, below), rows=2, columns=2)
    tensor([[2, 0],
            [1, 3]])
    """
    pieces = rows * columns
    boards, sums = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1)
    for place in range(pieces):
        gain = torch.zeros(len(boards), pieces)
        if place % columns:
            gain = gain + found.right[boards[:, -1]]
        if place >= columns:
            gain = gain + found.below[boards[:, -columns]]
        gain = gain.scatter(1, boards, -torch.inf) + sums.unsqueeze(1)
        sums, best = gain.flatten().topk(min(BEAM, int(gain.isfinite().sum())))
        boards = torch.cat((boards[best // pieces], (best % pieces).unsqueeze(1)), 1)
    return boards[0].view(rows, columns)


def assembled(pieces: UInt8[Tensor, "N 3 y x"], board: Int[Tensor, "rows columns"], gap: int) -> UInt8[Tensor, "3 Y X"]:
    """The picture that a board of pieces is, the gaps between them white."""
    _, _, high, wide = pieces.shape
    rows, columns = board.shape
    picture = pieces.new_full((3, rows * (high + gap) - gap, columns * (wide + gap) - gap), 255)
    for row, numbers in enumerate(board.tolist()):
        for column, number in enumerate(numbers):
            y, x = row * (high + gap), column * (wide + gap)
            picture[:, y : y + high, x : x + wide] = pieces[number]
    return picture


def cut(photograph: UInt8[Tensor, "3 Y X"], y: int, x: int, rows: int, size: int, gap: int) -> UInt8[Tensor, "N 3 s s"]:
    """rows x rows square pieces of a photograph, from its pixel (y, x) on, so many pixels apart; row by row.

    >>> photograph = torch.arange(25, dtype=torch.uint8).view(1, 5, 5).expand(3, 5, 5)
    >>> cut(photograph, 0, 0, rows=2, size=2, gap=1)[:, 0].tolist()
    [[[0, 1], [5, 6]], [[3, 4], [8, 9]], [[15, 16], [20, 21]], [[18, 19], [23, 24]]]
    """
    begins = [n * (size + gap) for n in range(rows)]
    return torch.stack(
        [photograph[:, y + top : y + top + size, x + left : x + left + size] for top in begins for left in begins]
    )
