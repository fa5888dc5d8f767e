"""Puzzles of one's own put together: folders of square pieces, as predictions of the recipe stitch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.app.data.joints import HEIGHT, photographs
from regard.app.text.reading import printable
from regard.app.vision.assembly import assembled, best_board, fits
from regard.recipes.base import paths

READS, inputs = "paths of folders, one a line, each with the square pieces of a puzzle", paths


@dataclass
class Prediction:
    """What may be chosen."""

    picture: str = ""
    """A folder for the assembled pictures, as PNG, named as the folders of the pieces."""


class Puzzle(NamedTuple):
    """The pieces of a puzzle, opened."""

    folder: Path
    names: list[str]
    pieces: Tensor


class Board(NamedTuple):
    """The names of the pieces at their places, row by row."""

    rows: list[list[str]]


def prepare(model: Any, given: str | Path) -> Puzzle:
    """The pieces in a folder. Raises ValueError unless their number is a square, and each has 64 pixels each way."""
    folder = Path(given)
    found = photographs(folder)
    wrong = [name for name, piece in found.items() if tuple(piece.shape) != (3, HEIGHT, HEIGHT)]
    if wrong:
        raise ValueError(f"{wrong[0]} expected {HEIGHT} pixels each way, but has {tuple(found[wrong[0]].shape[1:])}")
    if round(len(found) ** 0.5) ** 2 != len(found):
        raise ValueError(
            f"{printable(folder)} expected the pieces of a square puzzle, 4, 9, 16, ..., but has {len(found)}"
        )
    return Puzzle(folder, [Path(name).name for name in found], torch.stack(list(found.values())))


@torch.no_grad()
def predict(model: Any, prepared: Sequence[Puzzle], options: Prediction) -> list[Board]:
    """The board of each puzzle, and its picture if it is asked for."""
    return [_board(model, puzzle, options) for puzzle in prepared]


def _board(model: Any, puzzle: Puzzle, options: Prediction) -> Board:
    from PIL import Image

    gap, rows = model.config.gap, round(len(puzzle.pieces) ** 0.5)
    board = best_board(fits(puzzle.pieces, gap, lambda pair, seam: model(pair, seam).logits), rows, rows)
    if options.picture:
        Path(options.picture).mkdir(parents=True, exist_ok=True)
        pixels = assembled(puzzle.pieces, board, gap).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(Path(options.picture) / f"{puzzle.folder.name}.png")
    return Board([[puzzle.names[number] for number in row] for row in board.tolist()])


def written(given: Any, prediction: Board) -> str:
    """The names, a line a row."""
    return "\n".join("\t".join(row) for row in prediction.rows)
