"""Pictures with what is said of them: of pairs of digits that are composed on the fly, or of a folder of pictures."""

from pathlib import Path

from regard.app.data import mnist
from regard.app.data.generators.composed import Composed
from regard.app.data.splits import Splits, hold_out


def captioned(data: str = "digits", pictures: str | None = None, canvas: int | None = None, least: int = 1) -> Splits:
    """The splits of `data`.

    >>> splits = captioned()
    >>> splits.describe
    'pairs of digits composed of MNIST, the real digits inside regard: 9,000 training, 1,000 validation and 2,000 test scenes on 60x60 pixels'
    """
    return _composed("embedded" if data == "digits" else Path(data), canvas or 60)


def _composed(data: str | Path, canvas: int) -> Splits:
    found, source = mnist.find(data)
    train, valid = hold_out(found.labels)
    parts = (
        Composed(found.images[train], found.labels[train], canvas),
        Composed(found.images[valid], found.labels[valid], canvas, seed=1),
        Composed(found.test_images, found.test_labels, canvas, seed=2),
    )
    counts = "{:,} training, {:,} validation and {:,} test scenes".format(*map(len, parts))
    return Splits(
        *parts, f"pairs of digits composed of {source}: {counts} on {canvas}x{canvas} pixels", (), (1, canvas, canvas)
    )
