"""One name for every place that labelled images come from."""

from pathlib import Path

from regard.app.data.folder import pictures
from regard.app.data.mnist import digits
from regard.app.data.splits import Splits


def load(
    data: str | Path = "embedded",
    canvas: int | None = None,
    clutter: int = 4,
    jitter: float = 0.0,
    bend: float = 0.0,
) -> Splits:
    """The splits of `data`: "embedded", "hub", a folder of MNIST's idx files, or a folder of pictures.

    A folder that holds a folder `train` is one of pictures, any other one of idx files. `canvas` is the size of the
    square the images lie on: for digits 60 unless given, for pictures from their sizes unless given. `clutter` is the
    number of pieces of other digits, and `jitter` and `bend` how much training digits are warped; pictures have none.
    Raises ValueError where the data are missing or damaged.

    >>> load(canvas=28, clutter=0).shape
    (1, 28, 28)
    """
    if (Path(data) / "train").is_dir():
        return pictures(data, canvas)
    return digits(data, 60 if canvas is None else canvas, clutter, jitter, bend)
