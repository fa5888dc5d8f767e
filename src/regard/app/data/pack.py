"""Make the sample in this package from the full idx files: python -m regard.app.data.pack FOLDER [TARGET].

Every sixth training image and every fifth test image, counted from the first, in their order and without loss: the
10,000 and 2,000 are spread evenly over the writers of the originals. The files are idx files again, gzipped.
"""

import gzip
import sys
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from regard.app.data.mnist import NAMES, SAMPLE, Digits, read_folder


def thin(full: Digits, train: int = 6, test: int = 5) -> Digits:
    """Every `train`-th training and every `test`-th test example.

    >>> import torch
    >>> ten = torch.arange(10, dtype=torch.uint8)
    >>> thin(Digits(ten, ten, ten, ten)).labels
    tensor([0, 6], dtype=torch.uint8)
    """
    return Digits(full.images[::train], full.labels[::train], full.test_images[::test], full.test_labels[::test])


def write_idx(file: Path, values: UInt8[Tensor, "..."]) -> None:
    """Write `values` as a gzipped idx file, without a time stamp, so that the same values give the same file.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx(Path(folder) / "labels.gz", torch.tensor([3, 1], dtype=torch.uint8))
    ...     gzip.decompress((Path(folder) / "labels.gz").read_bytes())
    b'\\x00\\x00\\x08\\x01\\x00\\x00\\x00\\x02\\x03\\x01'
    """
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    data = bytes((0, 0, 8, values.ndim)) + sizes + values.contiguous().numpy().tobytes()
    file.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))


def pack(source: Path, target: Path = SAMPLE) -> None:
    """Thin the idx files of `source` into `target`; raises ValueError where `source` is not MNIST.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pack(SAMPLE, Path(folder))
    ...     read_folder(Path(folder)).images.shape
    torch.Size([1667, 28, 28])
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, thin(read_folder(source)), strict=True):
        write_idx(target / f"{name}.gz", values)


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:]))
