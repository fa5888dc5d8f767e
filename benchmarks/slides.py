"""Patches a second from images in files, from four thousand pixels a side to a hundred thousand.

    regard bench slides --out benchmarks/results/slides.json --figure docs/pictures/slides.png

A call reads patches of 256 x 256 pixels at random places, new ones each time: ours through `Glimpses`, the peers in
their own ways. All read one file of tiles of 256 x 256 pixels in JPEG, a few that repeat, which the system holds in
memory; the smallest image is also read whole, and kept in a zarr store. Before anything is timed, all must have read
the same. Caches are small, or they would hold the small images and not the large ones. Memory is what Python and torch
allocate; what OpenSlide allocates is not seen. The limit is to decode as many tiles as lie under the patches.
"""

import tracemalloc
from collections.abc import Callable, Iterator
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
TILE, PATCHES, TEXTURES, SMALL = 256, 8, 16, 1 << 20
LIMIT = "decoding as many tiles as lie under the patches"
Read = Callable[[list[tuple[int, int]]], list[np.ndarray]]
"""Patches (TILE, TILE, 3) by the row and the column where they begin."""


@dataclass(frozen=True)
class Row(harness.Row):
    """A comparison, and how much of the file is read for it."""

    patch_bytes: float
    """Read of the file for a patch."""
    patch_tiles: float
    """Decoded for a patch."""
    file_bytes: int


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


def through_tifffile(path: Path) -> Read:
    """Zarr, to which tifffile shows the file as a store."""
    return through_zarr(tifffile.imread(path, aszarr=True))


def through_zarr(path: Any) -> Read:
    """Slices of zarr's array."""
    array: Any = zarr.open(path, mode="r")
    return lambda corners: [array[row : row + TILE, column : column + TILE] for row, column in corners]


def through_openslide(path: Path) -> Read:
    """OpenSlide, with a small cache."""
    slide = openslide.OpenSlide(path)
    slide.set_cache(openslide.OpenSlideCache(SMALL))
    return lambda corners: [np.asarray(slide.read_region((at[1], at[0]), 0, (TILE, TILE)))[..., :3] for at in corners]


def whole(path: Path) -> Read:
    """All of the image, in each call, and slices of that."""

    def read(corners: list[tuple[int, int]]) -> list[np.ndarray]:
        pixels = tifffile.imread(path)
        return [pixels[row : row + TILE, column : column + TILE] for row, column in corners]

    return read


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


def decode(tiles: list[bytes]) -> None:
    """As many tiles as lie under the patches: under each four, but where it happens to meet an edge of them."""
    for i in range(4 * PATCHES):
        imagecodecs.jpeg_decode(tiles[i % len(tiles)])


def measure(rounds: int) -> Iterator[Row]:
    """All rows, each after its check."""
    torch.manual_seed(0)
    tiles = textures()
    with TemporaryDirectory() as folder:
        paths = [write(Path(folder) / f"{side}.tif", side, tiles) for side in SIDES]
        for side, path in zip(SIDES, paths, strict=True):
            case = f"{PATCHES} patches of a TIFF, {side:,} pixels a side"
            yield compare(case, path, side, "tifffile as a store of zarr's", through_tifffile(path), tiles, rounds)
            yield compare(case, path, side, "OpenSlide", through_openslide(path), tiles, rounds)
        side, path = SIDES[0], paths[0]
        case = f"{PATCHES} patches of a TIFF, {side:,} pixels a side"
        yield compare(case, path, side, "tifffile, all of it in each call", whole(path), tiles, rounds)
        path = store(path)
        case = f"{PATCHES} patches of a zarr store, {side:,} pixels a side"
        yield compare(case, path, side, "zarr", through_zarr(path), tiles, rounds)


def compare(case: str, path: Path, side: int, peer: str, read: Read, tiles: list[bytes], rounds: int) -> Row:
    """Ours beside a peer, which has read the same before."""
    source = rg.open_image(path, cache=Cache(SMALL))
    sensor = rg.Glimpses([source], TILE)
    check(sensor, side, read)
    calls = (lambda: ours(sensor, side, corners(side))), (lambda: theirs(read, corners(side)))
    found = harness.compare(case, peer, *calls, lambda: decode(tiles), LIMIT, PATCHES, rounds)
    before, patches = (source.bytes, source.tiles), 20 * PATCHES
    for _ in range(20):
        calls[0]()
    spent = (source.bytes - before[0]) / patches, (source.tiles - before[1]) / patches
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    peaks = dict(zip(("ours_peak_mb", "peer_peak_mb"), map(peak_mb, calls), strict=True))
    return Row(**{**asdict(found), **peaks}, patch_bytes=spent[0], patch_tiles=spent[1], file_bytes=size)


def check(sensor: rg.Glimpses, side: int, read: Read) -> None:
    """Both sides read the same."""
    at = corners(side)
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
        axes.loglog(*zip(*points, strict=True), "o-", label=peer)
    points = {side(row): PATCHES / row["ours_ms"] * 1e3 for row in tiffs}
    axes.loglog(list(points), list(points.values()), "o-", c="black", label="regard")
    axes.set(xlabel="pixels a side", ylabel="patches of 256 x 256 a second")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def side(row: dict) -> int:
    """Of the image, in pixels."""
    return int(row["case"].split(", ")[1].removesuffix(" pixels a side").replace(",", ""))


if __name__ == "__main__":
    harness.main("slides", measure, draw)
