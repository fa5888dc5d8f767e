"""Pictures written in every kind of file that `open_image` reads."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
import zarr
from PIL import Image

Writer = Callable[[Path, np.ndarray], Any]
"""Writes pixels (Y, X, 3) of eight bits to a folder; what `open_image` is then given."""
APERIO = "Aperio Image Library v1\n"


def tiff(folder: Path, pixels: np.ndarray, name: str = "image.tif", **how: Any) -> Path:
    tifffile.imwrite(folder / name, pixels, **{"photometric": "rgb", **how})
    return folder / name


def picture(folder: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(folder / "image.png")
    return folder / "image.png"


def mapped(folder: Path, pixels: np.ndarray) -> Path:
    np.save(folder / "image.npy", pixels)
    return folder / "image.npy"


def store(folder: Path, pixels: np.ndarray, **how: Any) -> Path:
    zarr.create_array(folder / "image.zarr", data=pixels, **{"chunks": (32, 32, 3), **how})
    return folder / "image.zarr"


KINDS: dict[str, Writer] = {
    "tensor": lambda folder, pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "array": lambda folder, pixels: pixels,
    ".npy": mapped,
    ".png": picture,
    "tiles": lambda *at: tiff(*at, tile=(32, 48), compression="zlib", predictor=True),
    "tiles without compression": lambda *at: tiff(*at, tile=(32, 48)),
    "strips": lambda *at: tiff(*at, rowsperstrip=7, compression="zstd", byteorder=">"),
    "bare rows": lambda *at: tiff(*at),
    "planes": lambda folder, pixels: tiff(
        folder, pixels.transpose(2, 0, 1), tile=(32, 48), planarconfig="separate", compression="lzw"
    ),
    "bare planes": lambda folder, pixels: tiff(folder, pixels.transpose(2, 0, 1), planarconfig="separate"),
    "OME-TIFF": lambda folder, pixels: tiff(
        folder, pixels.transpose(2, 0, 1), "image.ome.tif", tile=(32, 48), photometric="minisblack",
        metadata={"axes": "CYX"},
    ),
    "slide": lambda *at: tiff(*at, "image.svs", tile=(32, 48), compression="zlib", description=APERIO, metadata=None),
    "zarr": store,
    "zarr of shards": lambda *at: store(*at, shards=(64, 64, 3)),
    "zarr of the second format": lambda *at: store(*at, zarr_format=2),
}  # fmt: skip


def halved(pixels: np.ndarray, times: int) -> list[np.ndarray]:
    """The pixels (Y, X, C) and their means over 2 x 2, 4 x 4, ... pixels, with zeros beyond the edge."""
    levels = [pixels]
    for _ in range(times):
        height, width = levels[-1].shape[:2]
        filled = np.pad(levels[-1], ((0, height % 2), (0, width % 2), (0, 0)))
        rows = filled[::2] + filled[1::2]
        levels.append((rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25))
    return levels


def pyramid(folder: Path, levels: Sequence[np.ndarray], name: str = "pyramid.tif", **how: Any) -> Path:
    """A TIFF of a page for each level."""
    how = {"tile": (32, 48), "photometric": "rgb", "metadata": None, **how}
    with tifffile.TiffWriter(folder / name) as file:
        for i, level in enumerate(levels):
            file.write(level, subfiletype=int(i > 0), **how)
    return folder / name


def sub_pages(folder: Path, levels: Sequence[np.ndarray]) -> Path:
    """An OME-TIFF, whose channels are pages and whose levels lie below these."""
    first, *smaller = (level.transpose(2, 0, 1) for level in levels)
    how = {"tile": (32, 48), "photometric": "minisblack"}
    with tifffile.TiffWriter(folder / "pyramid.ome.tif", ome=True) as file:
        file.write(first, subifds=len(smaller), metadata={"axes": "CYX"}, **how)
        for level in smaller:
            file.write(level, subfiletype=1, **how)
    return folder / "pyramid.ome.tif"


def multiscales(folder: Path, levels: Sequence[np.ndarray]) -> Path:
    """An OME-Zarr, with axes for time and depth."""
    group = zarr.create_group(folder / "pyramid.zarr")
    for i, level in enumerate(levels):
        data = level.transpose(2, 0, 1)[None, :, None]
        group.create_array(str(i), data=data, chunks=(1, 1, 1, 32, 32))
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": str(i)} for i in range(len(levels))]}]}
    return folder / "pyramid.zarr"


PYRAMIDS: dict[str, Callable[[Path, Sequence[np.ndarray]], Path]] = {
    "pages": pyramid, "OME-TIFF": sub_pages, "OME-Zarr": multiscales,
}  # fmt: skip


def plain(path: Path, side: int, tile: int = 256, colours: int = 4) -> Path:
    """A TIFF of side x side pixels, of tiles of one colour each: that of tile n is n modulo `colours`."""
    count, filled = (-(-side // tile)) ** 2, [np.full((tile, tile, 3), colour, np.uint8) for colour in range(colours)]
    coded = [imagecodecs.zlib_encode(each) for each in filled]
    how = {"tile": (tile, tile), "compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, (coded[i % colours] for i in range(count)), shape=(side, side, 3), dtype=np.uint8, **how)
    return path


class Served:
    """What a web server was asked for."""

    def __init__(self, address: str):
        self.address, self.bytes, self.ranges = address, 0, 0


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """The files of a folder by HTTP, also ranges of them; how many bytes were sent, and how many ranges."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, send: bool) -> None:
            file = folder / self.path.lstrip("/")
            data = file.read_bytes() if file.is_file() else None
            part, asked = data or b"", self.headers.get("Range")
            if data is not None and asked and send:
                first, last = asked.removeprefix("bytes=").split("-")
                part = data[int(first) : int(last or len(data)) + 1] if first else data[-int(last) :]
                seen.ranges += 1
            self.send_response(404 if data is None else 206 if part is not data and asked else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            if data is not None and asked and send:
                start = int(first) if first else len(data) - len(part)
                self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
            self.end_headers()
            if send:
                seen.bytes += len(part)
                self.wfile.write(part)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()
