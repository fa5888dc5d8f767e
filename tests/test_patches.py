"""Attention over patches of images: the mean in blocks, and hard reads of nothing but what was chosen."""

import pickle
import tracemalloc
from pathlib import Path

import image_files
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import regard as rg
from regard.images import Cache, Glimpses, Patches, grid

LOCATIONS = grid(40, 30, 10)  # 12 of them


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 40, 30)


def in_blocks(patches: Patches, block: int) -> Patches:
    patches.block = block
    return patches


def all_of(images: Tensor, locations: Tensor = LOCATIONS) -> Tensor:
    """The patches as a tensor of values, (B, K, V)."""
    return Glimpses(images, 10).read(locations[:, None].expand(-1, len(images), 2)).transpose(0, 1).flatten(2)


def test_places_are_read_by_their_numbers(images):
    patches, values = Patches(Glimpses(images, 10), LOCATIONS), all_of(images)
    z = torch.randint(12, (5, 2, 3))
    assert torch.equal(patches.read(z), values[torch.arange(2)[:, None], z])
    assert torch.equal(rg.select(patches, torch.tensor([1])).read(z[:, 1:]), patches.read(z)[:, 1:])
    assert torch.equal(pickle.loads(pickle.dumps(patches)).read(z), patches.read(z))


def test_each_image_may_have_places_of_its_own(images):
    own = torch.stack((LOCATIONS, LOCATIONS.flip(0)))
    z = torch.arange(12).expand(2, 12)
    assert torch.equal(Patches(Glimpses(images, 10), own).read(z)[1], all_of(images).flip(1)[1])


@pytest.mark.parametrize("block", [1, 5, 12, 13])
@pytest.mark.parametrize("read", [rg.mean, rg.straight_through])
def test_a_mean_in_blocks_is_the_mean(block: int, read, images):
    images, keys = images.double(), torch.randn(2, 12, 8, dtype=torch.float64)
    query = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for values in (
        all_of(images),
        in_blocks(Patches(Glimpses(list(map(rg.open_image, images)), 10), LOCATIONS), block),
    ):
        torch.manual_seed(0)
        out = rg.attend(query, keys, values, read=read, weights=read is rg.mean)
        found.append((out.context, *torch.autograd.grad(out.context.square().sum(), query)))
    torch.testing.assert_close(found[1], found[0])


def test_gradients_through_blocks_are_right_to_the_second_order():
    images = torch.rand(1, 1, 40, 30, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(1, 2, 12, dtype=torch.float64, requires_grad=True)

    def mean(scores: Tensor, images: Tensor) -> Tensor:
        return rg.OneHot(scores=scores).expect(in_blocks(Patches(Glimpses(images, 3), LOCATIONS), 5))

    assert gradcheck(mean, (scores, images), fast_mode=True)
    assert gradgradcheck(lambda *given: mean(*given).square(), (scores, images), fast_mode=True)


def test_a_block_is_what_is_read_at_a_time(images):
    asked = []

    class Watched(Patches):
        def read(self, z: Tensor) -> Tensor:
            asked.append(z.shape[-1])
            return super().read(z)

    patches = Watched(Glimpses(images, 10), LOCATIONS)
    assert patches.block > 12
    scores = torch.randn(2, 1, 12)
    rg.OneHot(scores=scores).expect(patches)
    assert asked == [12]
    rg.OneHot(scores=scores).expect(in_blocks(patches, 5))
    assert asked[1:] == [5, 5, 2]
    rg.OneHot(scores=scores.requires_grad_()).expect(patches).sum().backward()
    assert sorted(asked[4:]) == [2, 2, 5, 5, 5, 5], "once more for the gradient"


def test_a_mean_over_a_file_is_bounded_and_right(tmp_path: Path):
    side, tile = 2048, 256
    source = rg.open_image(image_files.plain(tmp_path / "image.tif", side, tile), cache=Cache(2**20))
    patches = in_blocks(Patches(Glimpses([source], tile), grid(side, side, tile)), 16)
    scores = torch.randn(1, 1, (side // tile) ** 2)
    tracemalloc.start()
    mean = rg.OneHot(scores=scores).expect(patches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    colours = torch.arange(scores.numel()) % 4 / 255
    torch.testing.assert_close(mean.unique(), (scores.flatten().softmax(0) @ colours)[None], rtol=1e-4, atol=0)
    assert source.tiles == scores.numel(), "each tile once"
    assert peak < 2**22


def test_hard_attention_reads_what_it_chose(tmp_path: Path):
    source = rg.open_image(image_files.plain(tmp_path / "image.tif", 4096))
    patches = Patches(Glimpses([source], 256), grid(4096, 4096, 256))
    keys, query = torch.randn(1, 256, 8), torch.randn(1, 3, 8)
    before = source.bytes
    out = rg.attend(query, keys, patches, read=rg.sample)
    assert torch.equal(out.context[0, :, 0], out.z[0] % 4 * torch.tensor(1 / 255))
    assert source.tiles == len(out.z.unique())
    assert source.bytes - before < 3000 < (tmp_path / "image.tif").stat().st_size


@pytest.mark.unchecked
def test_errors(images):
    sensor = Glimpses(images, 10)
    for shape in ((12,), (3, 12, 2), (12, 3), (1, 2, 12, 2)):
        with pytest.raises(ValueError, match=r"^locations expected the shape \(K, 2\) or \(2, K, 2\), but got \("):
            Patches(sensor, torch.zeros(shape))
