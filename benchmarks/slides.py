"""Patches a second from images in files, from four thousand pixels a side to a hundred thousand.

    regard bench slides --out benchmarks/results/slides.json --figure docs/pictures/slides.png

A call reads patches of 256 x 256 pixels at random places, new ones each time: ours through `Glimpses`, the peers in
their own ways. All read one file of tiles of 256 x 256 pixels in JPEG, a few that repeat, which the system holds in
memory; the smallest image is also read whole, and kept in a zarr store. Before anything is timed, all must have read
the same. Caches are small, or they would hold the small images and not the large ones. Memory is what Python and torch
allocate; what OpenSlide allocates is not seen. The limit is to decode as many tiles as lie under the patches.
"""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
import imagecodecs
import numpy as np
import openslide
import tifffile
import torch
import zarr
from matplotlib.figure import Figure
from torch import Tensor

import regard as rg
from regard.images import Cache

SIDES = (4096, 16_384, 102_400)
TILE, PATCHES, TEXTURES, SMALL, COUNTED = 256, 8, 16, 1 << 20, 20
LIMIT = "decoding as many tiles as lie under the patches"
Read = Callable[[Sequence[tuple[int, int]]], list[np.ndarray]]
"""Patches (TILE, TILE, 3) by the row and the column where they begin."""
Through = Callable[[Path], AbstractContextManager[Read]]
"""Opens a file for such reads."""


@dataclass(frozen=True)
class Row(harness.Row):
    """A comparison, and how much of the file is read for it."""

    patch_bytes: float
    """Read of the file for a patch."""
    patch_tiles: float
    """Decoded for a patch."""
    image_bytes: int
    """Of all its tiles."""


def textures() -> list[bytes]:
    """Tiles in JPEG that are about as hard to decode as those of a photograph."""
    random, sizes = np.random.default_rng(0), (2, 4, 8, 16, 32, 64)
    coded = []
    for _ in range(TEXTURES):
        waves = [np.kron(random.normal(size=(TILE // n, TILE // n, 3)) * n, np.ones((n, n, 1))) for n in sizes]
        coded.append(imagecodecs.jpeg_encode((128 + 1.2 * np.sum(waves, 0)).clip(0, 255).astype(np.uint8), level=85))
    return coded


def write(path: Path, side: int, tiles: list[bytes]) -> Path:
    """An image of side x side pixels, of the tiles in turn; each lies in the file once."""
    count = (side // TILE) ** 2
    how = {"tile": (TILE, TILE), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, (b"0" for _ in range(count)), shape=(side, side, 3), dtype=np.uint8, **how)
    with tifffile.TiffFile(path) as file:
        tags = [file.pages.first.tags[code] for code in (324, 325)]  # where the tiles are, and of how many bytes
        places = [(tag.valueoffset, f"<u{2 if tag.dtype == 3 else 4}") for tag in tags]
    sizes = np.array([len(tile) for tile in tiles])
    starts = path.stat().st_size + sizes.cumsum() - sizes
    with path.open("r+b") as file:
        for (place, kind), values in zip(places, (starts, sizes), strict=True):
            file.seek(place)
            file.write(values[np.arange(count) % len(tiles)].astype(kind).tobytes())
        file.seek(0, 2)
        file.write(b"".join(tiles))
    return path


def store(path: Path) -> Path:
    """The same image in a store."""
    target = path.with_suffix(".zarr")
    zarr.create_array(target, data=tifffile.imread(path), chunks=(TILE, TILE, 3))
    return target


@contextmanager
def through_tifffile(path: Path) -> Iterator[Read]:
    """Zarr, to which tifffile shows the file as a store."""
    with closing(tifffile.imread(path, aszarr=True)) as shown, through_zarr(shown) as read:
        yield read


@contextmanager
def through_zarr(path: Any) -> Iterator[Read]:
    """Slices of zarr's array."""
    array: Any = zarr.open(path, mode="r")
    yield lambda corners: [array[row : row + TILE, column : column + TILE] for row, column in corners]


@contextmanager
def through_openslide(path: Path) -> Iterator[Read]:
    """OpenSlide, with a small cache."""
    with openslide.OpenSlide(path) as slide:
        slide.set_cache(openslide.OpenSlideCache(SMALL))
        yield lambda corners: [
            np.asarray(slide.read_region((at[1], at[0]), 0, (TILE, TILE)))[..., :3] for at in corners
        ]


@contextmanager
def whole(path: Path) -> Iterator[Read]:
    """All of the image, in each call, and slices of that."""

    def read(corners: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        pixels = tifffile.imread(path)
        return [pixels[row : row + TILE, column : column + TILE] for row, column in corners]

    yield read


def corners(side: int) -> list[tuple[int, int]]:
    """Where patches begin, all of them inside."""
    return [(row, column) for row, column in torch.randint(side - TILE + 1, (PATCHES, 2)).tolist()]


def ours(sensor: rg.Glimpses, side: int, at: list[tuple[int, int]]) -> Tensor:
    """The patches as images (PATCHES, 3, TILE, TILE) in [0, 1]."""
    z = (2 * torch.tensor(at, dtype=torch.float64) + TILE) / side - 1
    return sensor.read(z[:, None])[:, 0, 0]


def theirs(read: Read, at: list[tuple[int, int]]) -> Tensor:
    """The same."""
    return torch.from_numpy(np.stack(read(at))).permute(0, 3, 1, 2).float().mul_(1 / 255)


def bound(coded: Sequence[bytes], decode: Callable[[bytes], object]) -> harness.Call:
    """Decodes as many tiles as lie under the patches: under each four, but where it happens to meet an edge of them."""
    return lambda: [decode(coded[i % len(coded)]) for i in range(4 * PATCHES)]


def measure(rounds: int) -> Iterator[Row]:
    """All rows, each after its check."""
    torch.manual_seed(0)
    tiles = textures()
    jpeg = bound(tiles, imagecodecs.jpeg_decode)
    with TemporaryDirectory() as folder:
        paths = [write(Path(folder) / f"{side}.tif", side, tiles) for side in SIDES]
        for side, path in zip(SIDES, paths, strict=True):
            yield compare(path, side, "tifffile as a store of zarr's", through_tifffile, jpeg, rounds)
            yield compare(path, side, "OpenSlide", through_openslide, jpeg, rounds)
        yield compare(paths[0], SIDES[0], "tifffile, all of it in each call", whole, jpeg, rounds)
        path = store(paths[0])
        chunks = [file.read_bytes() for file in path.glob("c/*/*/*")][:TEXTURES]
        yield compare(path, SIDES[0], "zarr", through_zarr, bound(chunks, imagecodecs.zstd_decode), rounds)


def compare(path: Path, side: int, peer: str, through: Through, bound: harness.Call, rounds: int) -> Row:
    """Ours beside a peer, which has read the same before."""
    source = rg.open_image(path, cache=Cache(SMALL))
    sensor = rg.Glimpses([source], TILE)
    check(sensor, side, path, through)
    case = f"{PATCHES} patches of a {'TIFF' if path.suffix == '.tif' else 'zarr store'}, {side:,} pixels a side"
    with through(path) as read:
        calls = (lambda: ours(sensor, side, corners(side))), (lambda: theirs(read, corners(side)))
        found = asdict(harness.compare(case, peer, *calls, bound, LIMIT, PATCHES, rounds))
        found["ours_peak_mb"], found["peer_peak_mb"] = map(peak_mb, calls)
        return Row(**found, **spent(source, calls[0]), image_bytes=size(path))


def spent(source: Any, call: harness.Call) -> dict[str, Any]:
    """What a patch takes: bytes that are read, tiles that are decoded."""
    before = source.bytes, source.tiles
    for _ in range(COUNTED):
        call()
    read, decoded = (source.bytes - before[0], source.tiles - before[1])
    return {"patch_bytes": read / (COUNTED * PATCHES), "patch_tiles": decoded / (COUNTED * PATCHES)}


def size(path: Path) -> int:
    """The bytes of all tiles of an image, each counted as often as it is one."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    with tifffile.TiffFile(path) as file:
        return sum(file.pages.first.databytecounts)


def check(sensor: rg.Glimpses, side: int, path: Path, through: Through) -> None:
    """Both sides read the same."""
    at = corners(side)
    with through(path) as read:
        torch.testing.assert_close(ours(sensor, side, at), theirs(read, at), rtol=0, atol=0)


def peak_mb(call: harness.Call) -> float:
    """The most memory that torch, and the most that Python, holds at once of what is allocated during a call."""
    tracemalloc.start()
    try:
        call()
        return harness.peak_mb(call) + tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def draw(rows: list[dict]) -> Figure:
    """Patches a second by the side of the image, ours and the peers'."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    tiffs = [row for row in rows if "TIFF" in row["case"]]
    for peer in dict.fromkeys(row["peer"] for row in tiffs):
        points = [(side(row), PATCHES / row["peer_ms"] * 1e3) for row in tiffs if row["peer"] == peer]
        axes.semilogx(*zip(*points, strict=True), "o-", label=peer)
    points = {side(row): PATCHES / row["ours_ms"] * 1e3 for row in tiffs}
    axes.semilogx(list(points), list(points.values()), "o-", c="black", label="regard")
    axes.set(xlabel="pixels a side", ylabel="patches of 256 x 256 a second", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def side(row: dict) -> int:
    """Of the image, in pixels."""
    return int(row["case"].split(", ")[1].removesuffix(" pixels a side").replace(",", ""))


if __name__ == "__main__":
    harness.main("slides", measure, draw)
