"""Images in files: equal to the array that was written, read no further than looked at, and refused with a sentence."""

import math
import multiprocessing
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import openslide
import pytest
import tifffile
import torch
import zarr
from image_files import KINDS, PYRAMIDS, halved, plain, pyramid, served, tiff
from PIL import Image
from torch import Tensor

import regard as rg
from regard.images import Cache, Glimpses, Level, overview, shrunk

SHAPE = (151, 203, 3)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def image_of(pixels: np.ndarray) -> Tensor:
    """Pixels (Y, X, C) of eight bits, or in floating point, as an image (C, Y, X)."""
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return image if image.is_floating_point() else image.float().mul_(1 / 255)


def locations(*batch: int) -> Tensor:
    """Some of them beyond the edges, far outside, or nowhere."""
    z = torch.rand(*batch, 2) * 3 - 1.5
    z.view(-1)[:4] = torch.tensor([math.nan, 0.5, -math.inf, 1e38])
    return z


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_read_as_the_array_is(kind: str, pixels, tmp_path: Path):
    source = rg.open_image(KINDS[kind](tmp_path, pixels))
    assert source.shape == (3, 151, 203) and source.levels == (Level(151, 203, 1),)
    z = locations(4, 5, 1)
    files, array = Glimpses([source], 9, 5), Glimpses(image_of(pixels)[None], 9, 5)
    assert torch.equal(files.read(z), array.read(z))
    assert files.pixels == array.pixels
    again = pickle.loads(pickle.dumps(source))
    assert again.bytes == again.tiles == 0 < source.bytes
    assert torch.equal(Glimpses([again], 9, 5).read(z[0]), array.read(z[0]))
    assert torch.equal(overview(source, 0), image_of(pixels))


def test_the_comparison_can_fail(pixels, tmp_path: Path):
    source = rg.open_image(tiff(tmp_path, pixels[:, ::-1]))
    z = locations(4, 5, 1)
    assert not torch.equal(Glimpses([source], 9, 5).read(z), Glimpses(image_of(pixels)[None], 9, 5).read(z))


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_a_pyramid_is_read_at_all_levels(kind: str, pixels, tmp_path: Path):
    levels = halved(image_of(pixels).permute(1, 2, 0).numpy(), 3)
    source = rg.open_image(PYRAMIDS[kind](tmp_path, [levels[0], levels[1], levels[3]]))
    assert source.levels == ((151, 203, 1), (76, 102, 2), (19, 26, 8))
    z = locations(6, 1)
    read = Glimpses([source], 9, 5).read(z)
    torch.testing.assert_close(read, Glimpses(image_of(pixels)[None], 9, 5).read(z), rtol=0, atol=0)
    before = source.tiles
    overview(source, 4)
    assert source.tiles - before <= 1, "the smallest level is one tile"


def test_what_is_stored_is_what_is_read(pixels, tmp_path: Path):
    stored = [pixels, np.full((75, 101, 3), 51, np.uint8), np.full((51, 67, 3), 9, np.uint8)]  # the last is a third
    source = rg.open_image(pyramid(tmp_path, stored))
    assert source.levels == ((151, 203, 1), (75, 101, 2)), "a level that is no half is not used"
    half = overview(source, 1)
    torch.testing.assert_close(half[:, :75, :101], torch.full((3, 75, 101), 0.2))
    assert half[:, 75:].eq(0).all() and half[..., 101:].eq(0).all(), "what was rounded away is zero"
    torch.testing.assert_close(shrunk(source, 2, 0, 0, 37, 50), torch.full((3, 37, 50), 0.2))


def test_a_slide_is_read_at_its_levels(pixels, tmp_path: Path):
    levels = [pixels[:150, :202], pixels[75:150, 101:202]]
    path = pyramid(tmp_path, levels, "slide.svs", compression="zlib", description=image_files.APERIO)
    source = rg.open_image(path)
    assert source.levels == ((150, 202, 1), (75, 101, 2))
    assert torch.equal(overview(source, 1), image_of(levels[1]))
    assert torch.equal(shrunk(source, 1, 20, 33, 40, 60), image_of(levels[1])[:, 20:60, 33:93])


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "jpegxl", "lzw", "packbits", "lerc"])
def test_tiles_are_decoded_as_tifffile_decodes_them(compression: str, pixels, tmp_path: Path):
    path = tiff(tmp_path, pixels, tile=(32, 48), compression=compression)
    assert torch.equal(overview(rg.open_image(path), 0), image_of(tifffile.imread(path)))


def test_tiles_that_are_not_there_are_zero(tmp_path: Path):
    tile = np.full((32, 32, 3), 255, np.uint8)
    tiles = (tile if i in (0, 3) else None for i in range(4))
    how = {"shape": (60, 60, 3), "dtype": np.uint8, "tile": (32, 32), "photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "image.tif", tiles, **how)
    image = overview(rg.open_image(tmp_path / "image.tif"), 0)
    assert image[:, :32, :32].eq(1).all() and image[:, 32:, 32:].eq(1).all()
    assert image[:, :32, 32:].eq(0).all() and image[:, 32:, :32].eq(0).all()


def test_a_photograph_is_read_in_part(data_dir: Path, tmp_path: Path):
    file = data_dir / "photos_large" / "harbour.jpg"
    if not file.is_file():
        pytest.skip(f"needs the large photographs, and there is no {file}")
    levels = [np.asarray(Image.open(file).reduce(2**times)) for times in range(3)]
    path = pyramid(tmp_path, levels, tile=(256, 256), compression="jpeg")
    source, picture = rg.open_image(path), rg.open_image(file)
    assert [level.downsample for level in source.levels] == [1, 2, 4]
    z = torch.rand(6, 1, 2) * 2 - 1
    near, exact = (Glimpses([image], 64, 3).read(z) for image in (source, picture))
    assert (near - exact).abs().mean() < 0.02
    assert source.bytes < path.stat().st_size / 5
    slide = openslide.OpenSlide(path)
    region = np.asarray(slide.read_region((1000, 700), 0, (300, 200)))[..., :3]
    slide.close()
    assert torch.equal(source.crop(700, 1000, 200, 300), image_of(region))


def test_images_of_several_sizes_are_one_batch(pixels):
    parts = [pixels, pixels[:40, :30], pixels[5:6]]
    sensor = Glimpses([rg.open_image(part, axes="YXC") for part in parts], 7, 3)
    z = locations(3, 3)
    apart = [Glimpses(image_of(part)[None], 7, 3).read(z[:, i : i + 1]) for i, part in enumerate(parts)]
    assert torch.equal(sensor.read(z), torch.cat(apart, 1))
    assert torch.equal(rg.select(sensor, torch.tensor([2, 0])).read(z[:, [2, 0]]), sensor.read(z)[:, [2, 0]])
    assert len(sensor) == 3


@pytest.mark.parametrize("kind", ["uint16", "int16", "bool", "float16", "float32", "float64", ">f4", ">u2"])
def test_numbers_of_other_types(kind: str, pixels, tmp_path: Path):
    values = (pixels[..., 0] * 120.0).astype(kind)
    np.save(tmp_path / "image.npy", values)
    source = rg.open_image(tmp_path / "image.npy")
    wanted = values.astype(np.dtype(kind).newbyteorder("="))
    if wanted.dtype.kind in "iu":
        wanted = wanted.astype(np.float32) * np.float32(1 / np.iinfo(kind).max)
    elif wanted.dtype.kind == "b":
        wanted = wanted.astype(np.float32)
    read = source.crop(0, 0, 151, 203)
    assert read.dtype == source.dtype == torch.from_numpy(wanted).dtype
    assert torch.equal(read[0], torch.from_numpy(wanted))


def test_tensors_keep_their_values_and_have_axes_of_their_own():
    image = torch.rand(5, 6, 7)
    assert torch.equal(rg.open_image(image).crop(0, 0, 6, 7), image)
    assert torch.equal(rg.open_image(image.bfloat16()).crop(0, 0, 6, 7), image.bfloat16().float())
    assert rg.open_image(image, axes="YXC").shape == (7, 5, 6)
    assert rg.open_image(image[:1], axes="ZYX").shape == (1, 6, 7)
    assert rg.open_image(image[0]).shape == (1, 6, 7)


def test_bits_of_a_tiff_say_what_is_white(tmp_path: Path):
    values = np.arange(0, 4096, 64, np.uint16).reshape(8, 8)
    path = tiff(tmp_path, values, photometric="minisblack", bitspersample=12)
    torch.testing.assert_close(overview(rg.open_image(path), 0)[0], torch.from_numpy(values / np.float32(4095)))


def test_pictures_are_upright_and_on_white(pixels, tmp_path: Path):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # its top is on the right
    image.save(tmp_path / "a.png", exif=exif)
    source = rg.open_image(tmp_path / "a.png")
    assert source.shape == (3, 203, 151)
    assert torch.equal(overview(source, 0), image_of(np.rot90(pixels, -1)))
    image.putalpha(0)
    image.save(tmp_path / "b.png")
    assert overview(rg.open_image(tmp_path / "b.png"), 0).eq(1).all()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "c.png")
    torch.testing.assert_close(overview(rg.open_image(tmp_path / "c.png"), 0), image_of(pixels)[:1])


def test_a_slide_is_white_where_it_is_transparent(pixels, tmp_path: Path):
    from regard.images.slides import _on_white

    half = np.concatenate((pixels, np.full((*pixels.shape[:2], 1), 128, np.uint8)), -1)
    wanted = np.asarray(Image.alpha_composite(Image.new("RGBA", (203, 151), "white"), Image.fromarray(half)))[..., :3]
    assert np.abs(_on_white(half).astype(int) - wanted).max() <= 1


# What is read, and what is kept.


def test_only_the_tiles_under_the_window_are_read(tmp_path: Path):
    with tifffile.TiffFile(plain(tmp_path / "image.tif", 2048)) as file:
        counts = file.pages[0].databytecounts
    source = rg.open_image(tmp_path / "image.tif")
    opening = source.bytes
    assert opening < 5000 and source.tiles == 0
    source.crop(300, 300, 100, 100)
    assert (source.bytes - opening, source.tiles) == (counts[8 + 1], 1)
    source.crop(310, 310, 100, 100)
    assert source.tiles == 1, "it has been kept"
    source.crop(500, 500, 100, 100)
    assert source.tiles == 4
    source.crop(-100, 4000, 100, 100)
    assert source.tiles == 4, "nothing lies outside"


def test_the_cache_is_bounded_and_shared(pixels, tmp_path: Path):
    tile = 32 * 48 * 3
    cache = Cache(size=5 * tile, files=2)
    paths = [tiff(tmp_path, pixels, f"{i}.tif", tile=(32, 48)) for i in range(4)]
    sources = [rg.open_image(path, cache=cache) for path in paths]
    z, sizes = locations(9, 4), []
    for draw in z:
        Glimpses(sources, 16, 2).read(draw)
        sizes.append(cache.tiles.size)
    assert max(sizes) == 5 * tile and len(cache.files.held) == 2
    alone = [rg.open_image(path) for path in paths]
    assert torch.equal(Glimpses(sources, 16, 2).read(z), Glimpses(alone, 16, 2).read(z))
    assert sum(source.tiles for source in sources) > sum(source.tiles for source in alone)


def test_a_file_that_lies_open_is_closed(pixels, tmp_path: Path):
    source: Any = rg.open_image(tiff(tmp_path, pixels, tile=(32, 48)))
    file = source._opened.file
    source.crop(0, 0, 9, 9)
    assert not file.file.closed
    del source
    assert file.file.closed is False
    inner = file.file
    del file
    assert inner.closed


def looks(path: Path) -> tuple[float, float]:
    """What a hundred glimpses of an image take of memory at most, and its tiles a glimpse; a cache of 4 MiB."""
    source = rg.open_image(path, cache=Cache(2**22))
    sensor, z = Glimpses([source], 64), torch.rand(100, 1, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sensor.read(z[:50])
    tracemalloc.start()
    sensor.read(z[50:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.cache.tiles.size <= 2**22
    return peak, source.tiles / 100


def test_memory_is_flat_from_1500_to_100_000_pixels_a_side(tmp_path: Path):
    (small, few), (large, many) = (looks(plain(tmp_path / f"{side}.tif", side)) for side in (1500, 100_000))
    assert large < 1.25 * small < 2**23
    assert few <= many < 2.5, "at most four tiles lie under a window"


def test_the_largest_image_is_read_rightly(tmp_path: Path):
    source = rg.open_image(plain(tmp_path / "image.tif", 100_000))
    z = torch.rand(40, 1, 2) * 2 - 1
    read = Glimpses([source], 1).read(z).flatten(1)[:, 0]
    tile = ((z[:, 0] + 1) / 2 * 100_000).floor().long() // 256
    torch.testing.assert_close(read, (tile[:, 0] * 391 + tile[:, 1]) % 4 * (1 / 255), rtol=0, atol=1e-6)


def test_a_coarse_look_at_a_large_image_is_made_of_blocks(tmp_path: Path):
    source = rg.open_image(plain(tmp_path / "image.tif", 2048, colours=2), cache=Cache(2**20))
    tracemalloc.start()
    whole = overview(source, 11)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    torch.testing.assert_close(whole, torch.full((3, 1, 1), 0.5 / 255))
    assert peak < 2**23 < 3 * 2048 * 2048
    assert source.tiles == 64, "each tile once"


# Other processes, and other machines.


def read_in_a_child(source, z, answer) -> None:
    answer.put((Glimpses([source], 9, 2).read(z).numpy(), source.tiles))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.parametrize("kind", ["tiles", "slide", "zarr"])
def test_each_process_opens_the_file_itself(kind: str, pixels, tmp_path: Path):
    source = rg.open_image(KINDS[kind](tmp_path, pixels))
    z = locations(30, 1)
    half = Glimpses([source], 9, 2).read(z[:15])
    context = multiprocessing.get_context("fork")  # what is pickled opens it too, see above
    answer = context.Queue()
    child = context.Process(target=read_in_a_child, args=(source, z, answer))
    child.start()
    whole = Glimpses([source], 9, 2).read(z)  # at the same time
    found, tiles = answer.get(timeout=60)
    child.join()
    assert np.array_equal(found, whole.numpy()) and torch.equal(whole[:15], half)
    assert tiles > 0


@pytest.mark.parametrize("kind", ["tiles", ".png", "zarr", "zarr of shards"])
def test_what_lies_on_a_server_is_read_in_ranges(kind: str, pixels, tmp_path: Path):
    path = KINDS[kind](tmp_path, pixels)
    with served(tmp_path) as server:
        source = rg.open_image(f"{server.address}/{path.name}")
        z = locations(6, 1)
        assert torch.equal(Glimpses([source], 9, 3).read(z), Glimpses(image_of(pixels)[None], 9, 3).read(z))
        assert 0 < source.bytes <= server.bytes
    if kind in ("tiles", "zarr of shards"):
        assert server.ranges > 0


@pytest.mark.parametrize("kind", ["tiles", "shards"])
def test_of_a_large_file_on_a_server_a_part_is_fetched(kind: str, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    if kind == "tiles":
        path = tiff(tmp_path, pixels, tile=(64, 64))
    else:
        path = image_files.store(tmp_path, pixels, chunks=(64, 64, 3), shards=(1024, 1024, 3))
    with served(tmp_path) as server:
        source = rg.open_image(f"{server.address}/{path.name}")
        z = locations(5, 1)
        assert torch.equal(Glimpses([source], 32).read(z), Glimpses(image_of(pixels)[None], 32).read(z))
        assert source.tiles * 64 * 64 * 3 <= source.bytes <= server.bytes < pixels.nbytes / 10


# What cannot be read.


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def overwritten(path: Path, first: int, data: bytes) -> Path:
    """A file with some of its bytes changed."""
    content = path.read_bytes()
    path.write_bytes(content[:first] + data + content[first + len(data) :])
    return path


def tagged(path: Path, tag: int, value: int) -> Path:
    """A TIFF with another value of a tag."""
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].tags[tag].valueoffset
    return overwritten(path, where, value.to_bytes(2, "little"))


def refusal(*given: Any, **how: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is returned
        rg.open_image(*given, **how)
    return str(caught.value)


@pytest.mark.unchecked
def test_what_opening_refuses_of_a_tiff(pixels, tmp_path: Path):
    how = {"tile": (32, 48), "compression": "zlib"}
    path = tmp_path / "image.tif"
    begin = f"image {path} cannot be read: "
    assert refusal(path) == f"{begin}No such file or directory"
    assert refusal(cut(tiff(tmp_path, pixels, **how), 0.6)).startswith(
        f"{begin}12 of its 25 tiles lie beyond its end, at "
    )
    assert refusal(cut(tiff(tmp_path, pixels, **how), 0.001)).startswith(begin)
    assert refusal(tagged(tiff(tmp_path, pixels, **how), 259, 60000)) == f"{begin}60000 is not a known COMPRESSION"
    palette = np.zeros((3, 256), np.uint16)
    indexed = tiff(tmp_path, pixels[..., 0], photometric="palette", colormap=palette)
    assert refusal(indexed) == f"{begin}its colours are PALETTE, and only MINISBLACK, RGB, YCBCR are read"
    stack = tiff(tmp_path, pixels[None, ..., 0].repeat(2, 0), photometric="minisblack")
    has = f"image {path} expected rows, columns and channels, but has the axes QYX of (2, 151, 203)."
    assert refusal(stack) == has
    path.write_text("a text")
    assert refusal(path).startswith(begin)


@pytest.mark.unchecked
def test_a_damaged_tile_is_named_and_the_others_are_read(pixels, tmp_path: Path):
    path = tiff(tmp_path, pixels, tile=(32, 48), compression="zlib")
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].dataoffsets[6]
    source = rg.open_image(overwritten(path, where, b"damaged"))
    with pytest.raises(ValueError, match=r"image\.tif cannot be read: tile 1, 1 of level 0: .*zlib"):
        source.crop(0, 0, 100, 100)
    assert torch.equal(source.crop(64, 0, 80, 200), image_of(pixels[64:144, :200]))
    changed = rg.open_image(tiff(tmp_path, pixels, tile=(32, 48)))
    cut(path, 0.5)
    with pytest.raises(ValueError, match=r"cannot be read: tile 4, 0 of level 0: it has 0 of its 4,608 bytes$"):
        changed.crop(140, 0, 5, 5)


@pytest.mark.unchecked
def test_a_damaged_slide_is_named_and_the_rest_is_read(pixels, tmp_path: Path):
    path = KINDS["slide"](tmp_path, pixels)
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].dataoffsets[6]
    source = rg.open_image(overwritten(path, where, b"damaged"))
    with pytest.raises(ValueError, match=r"image\.svs cannot be read: tile 1, 1 of level 0: "):
        source.crop(0, 0, 100, 100)
    assert torch.equal(source.crop(64, 0, 80, 200), image_of(pixels[64:144, :200]))
    path.write_text("a text")
    assert refusal(path) == f"image {path} cannot be read: Unsupported or missing image file"


@pytest.mark.unchecked
def test_what_opening_refuses_of_arrays(pixels, tmp_path: Path):
    path = cut(KINDS[".npy"](tmp_path, pixels), 0.9)
    assert refusal(path) == f"image {path} cannot be read: mmap length is greater than file size"
    np.save(path, np.array([[{}]]))
    assert refusal(path).startswith(f"image {path} cannot be read: Array can't be memory-mapped")
    assert refusal(pixels * 1j) == "image array expected numbers, but holds complex128."
    assert refusal(pixels[:0], axes="YXC") == "image array expected pixels, but got the shape (0, 203, 3)."
    named = "expected its axes to be named, such as axes='CYX' or 'YXC'."
    assert refusal(pixels[:3]) == f"image array of shape (3, 203, 3) {named}"
    assert refusal(np.zeros((9, 9, 9))) == f"image array of shape (9, 9, 9) {named}"
    assert refusal(np.zeros(9)) == f"image array of shape (9,) {named}"
    letters = "expected a letter for each axis, Y and X, but got 'YXX'."
    assert refusal(pixels, axes="YXX") == f"image array of shape (151, 203, 3) {letters}"
    times = "expected rows, columns and channels, but has the axes YXT of (151, 203, 3)."
    assert refusal(pixels, axes="YXT") == f"image array {times}"


@pytest.mark.unchecked
def test_what_opening_refuses_of_stores(pixels, tmp_path: Path):
    path = tmp_path / "image.zarr"
    assert refusal(path) == f"image {path} cannot be read: No such file or directory"
    group = zarr.create_group(path)
    group.create_array("b", data=pixels)
    group.create_array("a", data=pixels)
    assert refusal(path) == f"image {path} cannot be read: it is a group of arrays, of which one is to be named: a, b"
    source = rg.open_image(path / "a")
    assert source.shape == (3, 151, 203)
    next(file for file in (path / "a" / "c").rglob("0") if file.is_file()).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"image\.zarr/a cannot be read: tile 0, 0 of level 0: "):
        source.crop(0, 0, 9, 9)


@pytest.mark.unchecked
def test_what_opening_refuses_of_other_things(pixels, tmp_path: Path):
    path = cut(KINDS[".png"](tmp_path, pixels), 0.5)
    assert refusal(path).startswith(f"image {path} cannot be read: image file is truncated")
    Image.fromarray(pixels).save(tmp_path / "image.jpg")
    with pytest.raises(ValueError, match=r"image\.jpg cannot be read: tile 0, 0 of level 0: image file is truncated"):
        rg.open_image(cut(tmp_path / "image.jpg", 0.5)).crop(0, 0, 9, 9)
    path.write_bytes(b"a text")
    assert refusal(path).startswith(f"image {path} cannot be read: cannot identify image file")
    assert refusal("a\x1b.doc").startswith("image a\\x1b.doc expected a name that ends in .png, .jpg, .jpeg, ")
    assert refusal("a.tif", axes="YX") == "axes expected None for a.tif, which names its own, but got 'YX'."
    with pytest.raises(TypeError, match=r"^image expected a tensor, an array or a path, but got int\.$"):
        rg.open_image(3)
    with pytest.raises(ValueError, match=r"^Cache expected a size and files of at least 1, but got 0 and 32\.$"):
        Cache(0)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("name", "package"),
    [("a.tif", "tifffile"), ("a.svs", "openslide"), ("a.zarr", "zarr"), ("http://127.0.0.1/a.tif", "fsspec")],
)
def test_a_missing_package_is_named_with_its_extra(name: str, package: str, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal(name)
    assert message.startswith(f"image {name} needs the extra slides: pip install 'regard[slides]' (")
    assert package in message
