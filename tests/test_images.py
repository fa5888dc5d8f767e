"""The glimpse sensor against a plain one that pads and slices image by image."""

import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import regard
from regard.images import Glimpses, grid

SIZES = [(28, 28, 8, 1), (28, 28, 7, 2), (27, 31, 8, 3), (27, 31, 5, 4), (5, 3, 8, 3), (1, 1, 1, 2), (60, 60, 12, 3)]


def pooled(image: np.ndarray, factor: int) -> np.ndarray:
    """The image (C, Y, X) filled up with zeros and mean-pooled."""
    channels, height, width = image.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    filled = np.zeros((channels, rows * factor, columns * factor), image.dtype)
    filled[:, :height, :width] = image
    return filled.reshape(channels, rows, factor, columns, factor).mean((2, 4))


def window(image: np.ndarray, first: tuple[int, int], size: int) -> np.ndarray:
    """size x size pixels of the image (C, Y, X) from `first` on, pixel by pixel, zero outside."""
    patch = np.zeros((len(image), size, size), image.dtype)
    for row in range(size):
        for column in range(size):
            y, x = first[0] + row, first[1] + column
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                patch[:, row, column] = image[:, y, x]
    return patch


def glimpse(image: np.ndarray, location: np.ndarray, size: int, scales: int) -> np.ndarray:
    """One glimpse (scales, C, size, size) of one image (C, Y, X), by the rule of the docstring."""
    patches = []
    for scale in range(scales):
        centre = [(z + 1) / 2 * extent / 2**scale for z, extent in zip(location.tolist(), image.shape[1:], strict=True)]
        first = [math.floor(c - size / 2 + 1 / 2) for c in centre]
        patches.append(window(pooled(image, 2**scale), (first[0], first[1]), size))
    return np.stack(patches)


def by_hand(images: torch.Tensor, z: torch.Tensor, size: int, scales: int) -> torch.Tensor:
    """`Glimpses(images, size, scales).read(z)` for z (B, 2)."""
    pairs = zip(images.numpy(), z.numpy(), strict=True)
    return torch.from_numpy(np.stack([glimpse(image, location, size, scales) for image, location in pairs]))


def whole_numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Images whose means over 2, 4, 8, ... pixels are exact in floating point."""
    return torch.randint(1, 256, shape).to(dtype)


@pytest.mark.parametrize(("height", "width", "size", "scales"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reads_what_slicing_reads(height: int, width: int, size: int, scales: int, dtype: torch.dtype):
    images = whole_numbers(40, 2, height, width, dtype=dtype)
    z = torch.rand(40, 2, dtype=dtype) * 3 - 1.5  # some beyond the edges
    patches = Glimpses(images, size, scales).read(z)
    assert patches.shape == (40, scales, 2, size, size)
    assert patches.dtype == dtype
    assert torch.equal(patches, by_hand(images, z, size, scales))


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("extent", [8, 16])
def test_ties_go_down_and_right(size: int, extent: int):
    """Locations on a fine grid, exact in floating point, half of which lie between two windows."""
    line = torch.arange(-extent, extent + 1) / extent
    z = torch.cartesian_prod(line, line)
    images = whole_numbers(len(z), 1, extent, extent)
    assert torch.equal(Glimpses(images, size, 3).read(z), by_hand(images, z, size, 3))


def test_corners_and_middle():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    sensor = Glimpses(image, size=2)

    def at(y: float, x: float) -> list:
        return sensor.read(torch.tensor([[y, x]], dtype=torch.float32)).squeeze().tolist()

    assert at(0, 0) == [[5, 6], [9, 10]]
    assert at(-1, -1) == [[0, 0], [0, 0]], "half of the glimpse lies outside on each side"
    assert at(-1, 1) == [[0, 0], [3, 0]]
    assert at(1, -1) == [[0, 12], [0, 0]]
    assert at(-0.5, 0.5) == [[2, 3], [6, 7]], "y comes first"


def test_the_middle_of_an_odd_window_in_an_even_image_is_low_and_right():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert Glimpses(image, size=1).read(torch.zeros(1, 2)).item() == image[0, 0, 2, 2]


def test_draws_share_the_pyramid():
    images, z = whole_numbers(3, 2, 20, 20), torch.rand(5, 4, 3, 2) * 2 - 1
    sensor = Glimpses(images, 6, 2)
    patches = sensor.read(z)
    assert patches.shape == (5, 4, 3, 2, 2, 6, 6)
    assert sensor.pixels == patches.numel()
    assert torch.equal(patches[3, 1], Glimpses(images, 6, 2).read(z[3, 1]))


@pytest.mark.parametrize("from_sources", [False, True])
def test_of_one_scale_is_read_what_all_scales_have_there(from_sources: bool):
    images, z, scale = whole_numbers(3, 2, 27, 31), torch.rand(4, 3, 2) * 2.4 - 1.2, torch.randint(3, (4, 3))
    sensor = Glimpses([regard.open_image(each) for each in images] if from_sources else images, size=5, scales=3)
    seen = sensor.read(z, scale)
    assert seen.shape == (4, 3, 1, 2, 5, 5) and sensor.pixels == seen.numel()
    everything = Glimpses(images, size=5, scales=3).read(z)
    assert torch.equal(seen.squeeze(2), everything[torch.arange(4)[:, None], torch.arange(3), scale])
    assert torch.equal(sensor.read(z[0], scale[0]), seen[0])


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (torch.zeros(3), TypeError, "scale expected integers as a tensor of int64, but got torch.float32."),
        (1, TypeError, "scale expected integers as a tensor of int64, but got int."),
        (torch.zeros(1, 3).long(), ValueError, "scale expected the shape (3,), as z, but got (1, 3)."),
    ],
)
@pytest.mark.unchecked
def test_errors_of_scales(scale, error: type[Exception], message: str):
    with pytest.raises(error, match=re.escape(message)):
        Glimpses(torch.rand(3, 1, 8, 8), 4, 2).read(torch.zeros(3, 2), scale)


@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_a_sensor_of_some_of_the_images(rows: torch.Tensor):
    images, z = whole_numbers(3, 2, 20, 20), torch.rand(3, 2) * 2 - 1
    sensor = Glimpses(images, 6, 2)
    whole = sensor.read(z)
    few = regard.select(sensor, rows)
    assert torch.equal(few.read(z[rows]), whole[rows])
    assert few.pixels == 2 * sensor.pixels // 3, "each counts what it has read"


def test_pixels_add_up():
    sensor = Glimpses(torch.rand(3, 1, 28, 28), 8, 2)
    assert sensor.pixels == 0
    for reads in (1, 2):
        sensor.read(torch.zeros(3, 2))
        assert sensor.pixels == reads * 3 * 2 * 8 * 8
        assert type(sensor.pixels) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38, -1e38, 5.0])
def test_a_location_that_is_nowhere_reads_zeros(value: float):
    sensor = Glimpses(torch.ones(2, 1, 10, 12), 4, 3)
    z = torch.zeros(2, 2)
    z[0, 1] = value
    patches = sensor.read(z)
    assert patches[0].eq(0).all()
    assert patches[1, 0].eq(1).all()


def test_slices_of_a_batch_are_read_as_they_are():
    images = whole_numbers(6, 4, 20, 24).transpose(2, 3)[::2, 1:3]
    z = (torch.rand(2, 3) * 2 - 1).T
    assert torch.equal(Glimpses(images, 5, 2).read(z), by_hand(images.contiguous(), z, 5, 2))


def test_inputs_are_not_changed():
    images, z = torch.rand(3, 1, 9, 9), torch.rand(3, 2)
    before = images.clone(), z.clone()
    Glimpses(images, 4, 2).read(z).zero_()
    assert torch.equal(images, before[0])
    assert torch.equal(z, before[1])


@pytest.mark.parametrize(("height", "width", "size", "scales"), [(4, 4, 2, 2), (5, 3, 4, 3)])
def test_gradients_flow_to_the_images(height: int, width: int, size: int, scales: int):
    images = torch.rand(2, 2, height, width, dtype=torch.float64, requires_grad=True)
    z = torch.rand(3, 2, 2) * 2 - 1

    def read(images: torch.Tensor) -> torch.Tensor:
        return Glimpses(images, size, scales).read(z)

    assert torch.equal(read(images), read(images.detach()))
    assert gradcheck(read, images)
    assert gradgradcheck(lambda images: read(images).square(), images, fast_mode=True)


def test_no_gradient_flows_to_the_location():
    z = torch.zeros(2, 2, requires_grad=True)
    assert not Glimpses(torch.rand(2, 1, 9, 9), 4).read(z).requires_grad


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 8), (27, 31, 5), (60, 60, 12), (4, 9, 8), (7, 7, 7)])
def test_the_grid_covers_every_pixel(height: int, width: int, size: int):
    locations = grid(height, width, size)
    assert len(locations) == math.ceil(height / size) * math.ceil(width / size)
    number = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    seen = Glimpses(number, size).read(locations[:, None])
    assert set(seen.unique().tolist()) - {0.0} == set(number.flatten().tolist())
    if size <= min(height, width):
        assert seen.ne(0).all(), "no patch looks beyond the edge"


def test_the_grid_is_minimal_and_in_order():
    locations = grid(12, 8, 4)
    assert torch.allclose(locations[:, 0], torch.tensor([-2 / 3, -2 / 3, 0, 0, 2 / 3, 2 / 3]))
    assert torch.equal(locations[:, 1], torch.tensor([-0.5, 0.5] * 3))
    seen = Glimpses(torch.arange(96.0).view(1, 1, 12, 8), 4).read(locations[:, None])
    assert sorted(seen.flatten().tolist()) == list(range(96)), "each pixel once"


def test_pickles():
    sensor = Glimpses(torch.rand(2, 1, 9, 9), 4, 2)
    z = torch.rand(2, 2)
    assert torch.equal(pickle.loads(pickle.dumps(sensor)).read(z), sensor.read(z))


@pytest.mark.unchecked
def test_compiles_as_one_graph():
    def glance(images: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        sensor = Glimpses(images, 4, 2)
        return sensor.read(z).sum(0) + sensor.read(-z[0])

    images, z = torch.rand(3, 2, 9, 10), torch.rand(5, 3, 2) * 2 - 1
    compiled = torch.compile(glance, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, z), glance(images, z))


@pytest.mark.unchecked
def test_a_sensor_that_was_made_outside_reads_and_counts_under_compile():
    images, z = torch.rand(3, 1, 9, 9), torch.rand(3, 2)
    sensor, plain = Glimpses(images, 4), Glimpses(images, 4)
    read = torch.compile(lambda sensor, z: sensor.read(z), fullgraph=True, backend="aot_eager")
    for reads in (1, 2, 3):
        assert torch.equal(read(sensor, z), plain.read(z))
        assert sensor.pixels == reads * 3 * 16


IMAGES = torch.rand(2, 1, 9, 9)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("images", "size", "scales", "error", "message"),
    [
        (1.0, 4, 1, TypeError, "images expected a floating point tensor or a list of sources, but got float."),
        (
            IMAGES.to(torch.uint8),
            4,
            1,
            TypeError,
            "images expected a floating point tensor or a list of sources, but got torch.uint8.",
        ),
        (["a.tif"], 4, 1, TypeError, "images expected sources, which open_image gives, but got a list with str."),
        ([], 4, 1, ValueError, "images expected at least one source, but got none."),
        (
            [regard.open_image(torch.zeros(1, 2, 2)), regard.open_image(torch.zeros(3, 2, 2))],
            4,
            1,
            ValueError,
            "images expected one number of channels, but got 1 in tensor and 3 in tensor.",
        ),
        (
            IMAGES[0],
            4,
            1,
            ValueError,
            "images expected the shape (B, C, Y, X), none of them zero, but got (1, 9, 9).",
        ),
        (
            IMAGES[..., :0],
            4,
            1,
            ValueError,
            "images expected the shape (B, C, Y, X), none of them zero, but got (2, 1, 9, 0).",
        ),
        (IMAGES, 0, 1, ValueError, "size expected at least 1, but got 0."),
        (IMAGES, 4, 0, ValueError, "scales expected at least 1, but got 0."),
        (IMAGES, 4.0, 1, TypeError, "size expected an integer, but got float."),
        (IMAGES, 4, True, TypeError, "scales expected an integer, but got bool."),
    ],
)
def test_errors_of_construction(images, size, scales, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        Glimpses(images, size, scales)
    assert str(caught.value) == message


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (None, TypeError, "z expected locations as a floating point tensor, but got NoneType."),
        (torch.zeros(2, 2).long(), TypeError, "z expected locations as a floating point tensor, but got torch.int64."),
        (torch.zeros(2), ValueError, "z expected the shape (*S, 2, 2), one location an image, but got (2,)."),
        (torch.zeros(2, 3), ValueError, "z expected the shape (*S, 2, 2), one location an image, but got (2, 3)."),
        (
            torch.zeros(2, 1, 2),
            ValueError,
            "z expected the shape (*S, 2, 2), one location an image, but got (2, 1, 2).",
        ),
    ],
)
def test_errors_of_reading(z, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        Glimpses(IMAGES, 4).read(z)
    assert str(caught.value) == message


@pytest.mark.unchecked
def test_errors_of_the_grid():
    with pytest.raises(ValueError, match=r"^size expected at least 1, but got 0\.$"):
        grid(4, 4, 0)
    with pytest.raises(TypeError, match=r"^height expected an integer, but got float\.$"):
        grid(4.0, 4, 2)  # pyright: ignore[reportArgumentType]
