"""One name for every place that labelled images come from."""

from collections.abc import Sequence
from pathlib import Path

from regard.app.data.folder import pictures, pictures_to_test
from regard.app.data.mnist import digits, digits_to_test
from regard.app.data.splits import Splits


def load(
    data: str | Path = "embedded",
    canvas: int | None = None,
    clutter: int = 4,
    jitter: float | None = None,
    bend: float = 0.0,
    flip: bool = False,
) -> Splits:
    """The splits of `data`: "embedded", "hub", a folder of MNIST's idx files, or a folder of pictures.

    A folder that holds a folder `train` is one of pictures, any other one of idx files. `canvas` is the size of the
    square the images lie on: for digits 60 unless given, for pictures from their sizes unless given. `clutter` is the
    number of pieces of other digits, and `bend` how much training digits are bent; pictures have none. `jitter` is how
    much training images are turned, sheared, stretched and moved, 1 for pictures and 0 for digits if not given; and
    with `flip` half of the training pictures are mirrored.
    Raises ValueError where the data are missing or damaged.

    >>> load(canvas=28, clutter=0).shape
    (1, 28, 28)
    """
    if (Path(data) / "train").is_dir():
        return pictures(data, canvas, jitter=1.0 if jitter is None else jitter, flip=flip)
    return digits(data, 60 if canvas is None else canvas, clutter, jitter or 0.0, bend)


def images_to_test(
    data: str | Path, classes: Sequence[str], shape: tuple[int, int, int], clutter: int = 4, bits: int | None = None
) -> Splits:
    """Images of `data` to test what was trained on others, with its classes, shape and bits; the other parts are empty.

    A folder that has any folders but those of MNIST's files is one of pictures. Raises ValueError where the data are
    missing or damaged, or are not such images.

    >>> images_to_test("embedded", tuple("0123456789"), (1, 60, 60)).describe
    'MNIST, the real digits inside regard: 2,000 test images, on 60x60 pixels with 4 pieces of clutter'
    """
    if data not in ("embedded", "hub") and _has_class_folders(Path(data)):
        return pictures_to_test(data, classes, shape, bits)
    if shape != (1, shape[1], shape[1]):
        raise ValueError(f"digits are grey on a square, but the images that were learned are of {shape}")
    return digits_to_test(data, classes, shape[1], clutter)


def _has_class_folders(folder: Path) -> bool:
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return any(not name.startswith(".") and name not in ("mnist", "MNIST") for name in folders)
