"""GaussianGrid: filters that sum to one, a linear read, the write that is its adjoint, and the narrow limit."""

import pickle

import examples
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import regard as rg
from regard.positions import GaussianGrid

EXTREMES = (0.0, 0.3, -1.0, 1.0000001, -5.0, 1e4, -1e6)
WIDTHS = (1e-30, 1e-4, 1e-3, 0.3, 10.0, 1e30)


def window(shape: tuple[int, int] = (7, 5), size: int = 3, batch: tuple[int, ...] = (2,)) -> GaussianGrid:
    """A window in float64 that leaves gradients."""
    centre, stride, width = examples.tensors(*batch, 2, count=3)
    return GaussianGrid(centre.requires_grad_(), stride, width.abs().requires_grad_(), size, shape)


def equations(grid: GaussianGrid, n: int, axis: int) -> Tensor:
    """A filter bank as the paper's equations have it, each Gaussian divided by its sum: (N, extent) of one window."""
    extent = grid.shape[axis]
    centre, stride, width = (torch.as_tensor(each)[n, axis] for each in (grid.centre, grid.stride, grid.width))
    pixels = (torch.arange(extent, dtype=torch.float64) + 0.5) * 2 / extent - 1
    places = [centre + (i - grid.size / 2 - 0.5) * stride for i in range(1, grid.size + 1)]
    filters = torch.stack([torch.exp(-((pixels - m) ** 2) / (2 * width**2)) for m in places])
    return filters / filters.sum(-1, keepdim=True)


def test_filters_are_those_of_the_equations():
    grid = examples.gaussian_grid(3)
    for axis, filters in enumerate(grid.filters):
        for n in (0, 1):
            assert_close(filters[n], equations(grid, n, axis))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (2, 40)])
def test_read_and_write_are_the_filters_products_and_each_other_s_adjoint(shape: tuple[int, int], channels: int):
    grid, image, patch = window(shape), *examples.tensors(2, channels, *shape), *examples.tensors(2, channels, 3, 3)
    (rows, columns), read, written = grid.filters, grid.read(image), grid.write(patch)
    assert_close(read, torch.einsum("bny,bcyx,bmx->bcnm", rows, image, columns))
    assert_close(written, torch.einsum("bny,bcnm,bmx->bcyx", rows, patch, columns))
    assert_close((read * patch).sum(), (image * written).sum())


def test_a_write_that_is_not_normalised_is_no_adjoint():
    grid, image, patch = window(), *examples.tensors(2, 1, 7, 5), *examples.tensors(2, 1, 3, 3)
    rows, columns = grid.filters
    other = (rows / rows.sum(-2, keepdim=True)).mT.unsqueeze(1) @ patch @ columns.unsqueeze(1)
    with pytest.raises(AssertionError):
        assert_close((grid.read(image) * patch).sum(), (image * other).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("centre", EXTREMES)
def test_every_filter_sums_to_one_and_all_is_finite(centre: float, width: float, dtype: torch.dtype):
    place = torch.full((1, 2), centre, dtype=dtype, requires_grad=True)
    spread = torch.full((1, 2), width, dtype=dtype, requires_grad=True)
    grid = GaussianGrid(place, 0.5, spread, 4, (6, 9))
    for filters in grid.filters:
        assert_close(filters.sum(-1), torch.ones(1, 4, dtype=dtype))
    value = grid.read(torch.rand(1, 2, 6, 9, dtype=dtype)).square().sum() + grid.entropy().sum()
    first = torch.autograd.grad(value, (place, spread), create_graph=True)
    second = torch.autograd.grad(sum(each.sum() for each in first), (place, spread))
    assert all(each.isfinite().all() for each in (value, *first, *second))


@pytest.mark.parametrize(("centre", "edge"), [(3.0, -1), (-40.0, 0), (1e10, -1)])
def test_a_grid_that_is_outside_looks_at_the_edge(centre: float, edge: int):
    grid = GaussianGrid(torch.full((1, 2), centre), 0.01, 0.02, 2, (6, 6))
    for filters in grid.filters:
        assert_close(filters[..., edge], torch.ones(1, 2))


def test_a_filter_without_logarithms_would_be_nan_there():
    pixels = (2 * torch.arange(6.0) + 1) / 6 - 1
    plain = torch.exp(-((pixels - 3.0) ** 2) / (2 * 0.02**2))
    assert (plain / plain.sum()).isnan().all()


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [(12, 12), (13, 9)])
def test_a_narrow_grid_is_a_glimpse(shape: tuple[int, int], size: int):
    """Of a stride of one pixel, where the window is inside of the image and no filter between two pixels."""
    image, pixel = torch.rand(50, 2, *shape, dtype=torch.float64), 2 / torch.tensor(shape, dtype=torch.float64)
    centre = (torch.rand(50, 2, dtype=torch.float64) * 2 - 1) * (1 - size * pixel / 2)
    glimpses = rg.Glimpses(image, size).read(centre).squeeze(1)
    assert_close(GaussianGrid(centre, pixel, 1e-6, size, shape).read(image), glimpses)
    with pytest.raises(AssertionError):
        assert_close(GaussianGrid(centre, pixel, pixel / 2, size, shape).read(image), glimpses)


def test_between_two_pixels_a_narrow_grid_reads_their_mean():
    image = torch.tensor([0.0, 1.0, 5.0, 7.0]).view(1, 1, 1, 4)
    assert_close(GaussianGrid(torch.zeros(1, 2), 1.0, 1e-5, 1, (1, 4)).read(image).item(), 3.0)


def test_gradients():
    centre, stride, width = examples.tensors(2, 2, count=3)
    image, patch = *examples.tensors(2, 2, 4, 3), *examples.tensors(2, 1, 2, 2)
    leaves = [each.requires_grad_() for each in (centre, stride, width.abs() + 0.1, image, patch)]

    def answers(centre: Tensor, stride: Tensor, width: Tensor, image: Tensor, patch: Tensor) -> tuple[Tensor, ...]:
        grid = GaussianGrid(centre, stride, width, 2, (4, 3))
        z = grid.enumerate_support()[[0, 7, 11]]
        return grid.read(image), grid.write(patch), grid.entropy(), grid.log_prob(z), grid.mean

    assert gradcheck(answers, leaves)
    assert gradgradcheck(answers, leaves)


def test_the_gradient_leads_a_window_to_what_is_bright():
    centre = torch.tensor([[0.0, 0.0]], requires_grad=True)
    image = torch.zeros(1, 1, 20, 20)
    image[..., 12, 7] = 1
    for _ in range(60):
        value = GaussianGrid(centre, 0.1, 0.15, 3, (20, 20)).read(image).sum().log()
        (slope,) = torch.autograd.grad(value, centre)
        centre = (centre + 0.005 * slope).detach().requires_grad_()
    assert_close(centre, torch.tensor([[0.25, -0.25]]), atol=0.02, rtol=0)


def test_draws_of_the_window_are_in_front():
    image, grid = torch.rand(2, 3, 7, 5, dtype=torch.float64), window(batch=(4, 2))
    read = grid.read(image)
    assert read.shape == (4, 2, 3, 3, 3) and grid.write(read).shape == (4, 2, 3, 7, 5)
    stride, width = (torch.as_tensor(each)[3] for each in (grid.stride, grid.width))
    one = GaussianGrid(grid.centre[3], stride, width, 3, (7, 5))
    assert_close(one.read(image), read[3])


def test_several_images_are_read_as_one_that_has_the_channels_of_all():
    grid, images = window(), examples.tensors(2, 3, 7, 5, count=2)
    assert_close(grid.read(*images), torch.cat([grid.read(each) for each in images], 1))
    assert_close(grid.read(images[0], images[1][:, :1]), grid.read(*images)[:, :4])


def test_the_mean_of_what_is_read_is_the_read():
    grid, image = window(), *examples.tensors(2, 3, 7, 5)
    seen = rg.look(None, lambda _: grid, image.flatten(-2).mT, rg.mean)
    assert_close(seen.context, grid.read(image).flatten(-2).mT)
    assert_close(seen.weights @ image.flatten(-2).mT, seen.context)


def test_a_reader_is_read_pixel_by_pixel():
    class Reader:
        def read(self, z: Tensor) -> Tensor:
            return z.unsqueeze(-1).double()

    grid, pixels = window(), torch.arange(35.0, dtype=torch.float64).view(1, 35, 1).expand(2, -1, -1)
    assert_close(grid.expect(Reader()), grid.expect(pixels))
    assert_close(grid.gather(Reader(), grid.mode), grid.gather(pixels, grid.mode))


def test_nowhere_is_impossible():
    assert (window().log_prob(torch.full((2, 9), -1)) == -torch.inf).all()


def test_rows_can_be_selected_and_pickled():
    grid, image = examples.gaussian_grid(2), *examples.tensors(2, 1, 4, 5)
    rows = torch.tensor([1, 1, 0])
    assert_close(rg.select(grid, rows).read(image[rows]), grid.read(image)[rows])
    assert_close(pickle.loads(pickle.dumps(grid)).read(image), grid.read(image))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_that_of_the_image(dtype: torch.dtype):
    grid, image = examples.gaussian_grid(3), torch.rand(2, 1, 4, 5)
    low = GaussianGrid(*(each.to(dtype) for each in (grid.centre, grid.stride, grid.width)), 3, (4, 5))
    read = low.read(image.to(dtype))
    assert read.dtype == dtype and low.filters[0].dtype == torch.float32
    assert_close(read.float(), grid.read(image), atol=0.05, rtol=0)


class Look(torch.nn.Module):
    """What is read, and the grid."""

    def forward(self, centre: Tensor, width: Tensor, image: Tensor) -> tuple[Tensor, GaussianGrid]:
        grid = GaussianGrid(centre, 0.3, width, 3, (7, 5))
        return grid.read(image), grid


@pytest.mark.unchecked
class TestTransforms:
    def answers(self, centre: Tensor, width: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        grid = GaussianGrid(centre, 0.3, width, 3, (7, 5))
        return grid.read(image), grid.write(grid.read(image)), grid.entropy(), grid.mode, grid.mean

    def given(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.randn(4, 2), torch.rand(4, 1) + 0.1, torch.rand(4, 2, 7, 5)

    def test_compile(self):
        torch._dynamo.reset()
        compiled = torch.compile(self.answers, fullgraph=True, backend="aot_eager")
        given = self.given()
        assert_close(compiled(*given), self.answers(*given))

    def test_compiled_draws(self):
        torch._dynamo.reset()
        draw = torch.compile(lambda c, w: GaussianGrid(c, 0.3, w, 3, (7, 5)).sample((6,)), backend="eager")
        z = draw(*self.given()[:2])
        assert z.shape == (6, 4, 9) and (z >= 0).all() and (z < 35).all()

    def test_export(self):
        given = self.given()
        read, grid = torch.export.export(Look(), given).module()(*given)
        assert isinstance(grid, GaussianGrid)
        assert_close((read, grid.mean), (Look()(*given)[0], self.answers(*given)[-1]))

    def test_vmap_and_grad_and_jvp(self):
        centre, width, image = given = self.given()
        assert_close(torch.vmap(self.answers)(*given), self.answers(*given))
        total = lambda centre: self.answers(centre, width, image)[1].square().sum()  # noqa: E731
        leaf = centre.clone().requires_grad_()
        assert_close(torch.func.grad(total)(centre), torch.autograd.grad(total(leaf), leaf)[0])
        direction = torch.randn_like(centre)
        along = torch.func.jvp(total, (centre,), (direction,))[1]
        assert_close(along, (torch.func.grad(total)(centre) * direction).sum(), rtol=1e-4, atol=1e-4)

    def test_inference_mode_and_autocast(self):
        given = self.given()
        wanted = self.answers(*given)
        with torch.inference_mode():
            assert_close(self.answers(*given), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            read = self.answers(*given)[0]
        assert read.dtype == torch.bfloat16
        assert_close(read.float(), wanted[0], atol=0.02, rtol=0.02)


@pytest.mark.unchecked
class TestErrors:
    def test_a_centre_of_three_numbers(self):
        with pytest.raises(
            ValueError, match=r"^GaussianGrid expected a centre of shape \(\*B, 2\), but got \(4, 3\)\.$"
        ):
            GaussianGrid(torch.zeros(4, 3), 0.1, 0.1, 3, (7, 5))

    @pytest.mark.parametrize("name", ["stride", "width"])
    def test_a_stride_or_width_that_does_not_fit(self, name: str):
        given = {"stride": 0.1, "width": 0.1} | {name: torch.ones(4)}
        with pytest.raises(
            ValueError, match=rf"^GaussianGrid expected a {name} that broadcasts to its centre, \(4, 2\), but"
        ):
            GaussianGrid(torch.zeros(4, 2), **given, size=3, shape=(7, 5))

    @pytest.mark.parametrize(("size", "shape"), [(0, (7, 5)), (3, (0, 5)), (3, (7, -1))])
    def test_sizes_below_one(self, size: int, shape: tuple[int, int]):
        with pytest.raises(ValueError, match=r"^GaussianGrid expected sizes of at least 1, but got "):
            GaussianGrid(torch.zeros(4, 2), 0.1, 0.1, size, shape)

    def test_an_image_or_a_patch_of_another_size(self):
        with pytest.raises(ValueError, match=r"^image expected the shape \(\*B, C, 7, 5\), but got \(2, 1, 5, 7\)\.$"):
            window().read(torch.rand(2, 1, 5, 7).double())
        with pytest.raises(ValueError, match=r"^image expected the shape \(\*B, C, 7, 5\), but got \(2, 1, 5, 7\)\.$"):
            window().read(torch.rand(2, 1, 7, 5).double(), torch.rand(2, 1, 5, 7).double())
        with pytest.raises(ValueError, match=r"^patch expected the shape \(\*B, C, 3, 3\), but got \(3, 3\)\.$"):
            window().write(torch.rand(3, 3).double())

    def test_a_divergence_from_a_grid_of_another_size(self):
        with pytest.raises(
            ValueError, match=r"^kl expected two grids of one size on one shape, but got GaussianGrid\("
        ):
            window().kl(window(size=2))
