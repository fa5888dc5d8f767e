"""Features of pictures from a network that others have trained, and that stays as it is: computed once, and kept."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from regard.app.data.splits import Splits
from regard.app.text.reading import printable
from regard.app.training.errors import Failure
from regard.app.training.progress import now_and_then, say
from regard.app.training.weights import digest
from regard.app.vision.squeezenet import SIDE, squeezenet
from regard.app.vision.vision_models import vision_model

BATCH = 8  # pictures at a time
CHECKED = 4  # pictures whose kept features are computed again
LARGEST = torch.finfo(torch.float16).max

Images = UInt8[Tensor, "B C Y X"] | Float[Tensor, "B C Y X"]


@runtime_checkable
class ByIndex(Protocol):
    """Pictures by their indices, as `regard.app.data.pixels.Pixels` are."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Int[Tensor, " B"], /) -> Images: ...


class Frozen:
    """A network that finds features (B, D, rows, columns) in pictures (B, 3, `side`, `side`) in [0, 1], and is not
    trained.

    `grid` is (rows, columns), `size` is D, and `digest` is one of all its weights.

    >>> frozen = Frozen(nn.Conv2d(3, 8, 4, stride=4), side=32, name="a convolution")
    >>> frozen.grid, frozen.size, frozen.of(torch.rand(2, 1, 60, 60)).shape
    ((8, 8), 8, torch.Size([2, 64, 8]))
    """

    def __init__(self, network: nn.Module, side: int, name: str):
        self.network, self.side, self.name = network.eval().requires_grad_(False), side, name
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - a convolution's half time
        self.digest = digest(network.state_dict())
        _, self.size, *grid = self._maps(torch.zeros(1, 3, side, side)).shape
        self.grid = (grid[0], grid[1])

    @torch.no_grad()
    def of(self, pictures: Images) -> Float[Tensor, "B K D"]:
        """The features of pictures of any size, grey or in red, green and blue, bytes or in [0, 1]; of the places row
        by row."""
        pictures = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
        pictures = pictures.expand(-1, 3, -1, -1)
        if pictures.shape[2:] != (self.side, self.side):
            pictures = interpolate(pictures, (self.side, self.side), mode="bilinear", antialias=True)
        return self._maps(pictures).flatten(2).transpose(1, 2)

    def require(self, digest: str) -> None:
        """Raises ValueError unless the network is the one of that digest."""
        if digest != self.digest:
            raise ValueError(f"{self.name} is another network than the one whose features the run has learned from")

    @torch.no_grad()
    def _maps(self, pictures: Float[Tensor, "B 3 Y Y"]) -> Float[Tensor, "B D y x"]:
        return self.network(pictures)


def open_features(name: str) -> Frozen:
    """The network of a name: "squeezenet:PATH", SqueezeNet 1.0 by its weights in PATH, an .npz file or the folder of
    squeezenet_v1.npz; or "hf:NAME", any vision model of Hugging Face by its folder, or its name on the hub.

    Raises ValueError where there is no such network, or the extra `huggingface` that it needs is missing.

    >>> open_features("vgg:here")
    Traceback (most recent call last):
    ValueError: features are squeezenet:PATH or hf:FOLDER_OR_NAME, not 'vgg:here'
    """
    kind, _, path = name.partition(":")
    if not path or kind not in ("squeezenet", "hf"):
        raise ValueError(f"features are squeezenet:PATH or hf:FOLDER_OR_NAME, not {name!r}")
    network, side = (squeezenet(Path(path)), SIDE) if kind == "squeezenet" else vision_model(path)
    try:
        return Frozen(network, side, printable(name))
    except Exception as error:  # whatever a model raises that takes no pictures
        raise ValueError(f"{printable(name)} finds no features in a picture of {side}x{side} pixels") from error


def kept_features(network: Frozen, pictures: ByIndex, file: Path) -> "Float16[Any, 'N K D']":
    """The features of all pictures as an array that lies in `file`, of which only what is asked for is read.

    They are computed where there is no such file, or it is not whole, or it is of another network or other pictures: of
    another number, or with other features, which is tried on a few. A file is written whole or not at all. It is one of
    NumPy's, .npy, with the digest of the network after its last value.

    Raises Failure where it cannot be written, and ValueError for a picture that cannot be read.
    """
    import numpy as np

    shape = (len(pictures), network.grid[0] * network.grid[1], network.size)
    if not len(pictures):
        return np.zeros(shape, np.float16)
    found = _opened(file, network.digest, shape)
    if found is None or not _same(found, network, pictures):
        _write(network, pictures, file, shape)
        found = _opened(file, network.digest, shape)
    if found is None:
        raise Failure(f"{file} was written, but does not hold what was written.")
    return found


def with_features(splits: Splits, network: Frozen, folder: Path) -> Splits:
    """Splits of pictures with the features of these, each part's in a file of the folder: see `kept_features`.

    Raises ValueError where the pictures are made anew each time.
    """
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    if not hasattr(splits.train, "pixels"):
        raise ValueError(
            f"{network.name} expected pictures that stay as they are, but these are composed anew each time"
        )
    return splits._replace(
        **{
            name: part.with_features(kept_features(network, part.pixels, folder / f"features-{name}.npy"))
            for name, part in cast(Any, parts).items()
        }
    )


def _opened(file: Path, digest: str, shape: tuple[int, ...]) -> Any:
    """The array in a file, if it is of this network and this shape."""
    import numpy as np

    try:
        with open(file, "rb") as handle:
            handle.seek(-len(digest), os.SEEK_END)
            if handle.read() != digest.encode():
                return None
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float16 else None


def _same(found: Any, network: Frozen, pictures: ByIndex) -> bool:
    """Whether these are the features of these pictures, as far as a few of them tell."""
    some = torch.linspace(0, len(pictures) - 1, min(CHECKED, len(pictures))).long()
    kept, new = torch.from_numpy(found[some.numpy()]).float(), network.of(pictures[some])
    return bool(torch.allclose(kept, new, rtol=0.01, atol=0.01 * float(new.abs().max())))


def _write(network: Frozen, pictures: ByIndex, file: Path, shape: tuple[int, ...]) -> None:
    """Writes a draft beside the file, which then takes its name."""
    from numpy.lib import format as npy

    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    due = now_and_then()
    try:
        with open(draft, "wb") as handle:
            npy.write_array_header_1_0(handle, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for indices in torch.arange(len(pictures)).split(BATCH):
                features = network.of(pictures[indices]).clamp(-LARGEST, LARGEST).half()
                handle.write(features.contiguous().numpy().data)
                if due():
                    say(f"{network.name}: features of {int(indices[-1]) + 1:,} of {len(pictures):,} pictures")
            handle.write(network.digest.encode())
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, file)
    except OSError as error:
        raise Failure(f"{file} could not be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
