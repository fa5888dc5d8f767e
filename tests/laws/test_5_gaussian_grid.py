"""Law 5 for reading and writing through Gaussian filters: the kernel equals the plain road in values and gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.gaussian_grid import cpu
from regard.positions.algorithms.gaussian_filters import read_through, write_through

WAYS = {"read": read_through, "write": write_through}
ways = pytest.mark.parametrize("way", WAYS)


class Case(NamedTuple):
    """Draws S, a batch B, channels C, N filters each way and an image of Y by X."""

    draws: tuple[int, ...]
    batch: tuple[int, ...]
    channels: int
    size: int
    shape: tuple[int, int]


CASES = {
    "no batch": Case((), (), 1, 2, (5, 6)),
    "one filter": Case((), (3,), 2, 1, (9, 4)),
    "odd sizes": Case((), (2, 3), 3, 5, (13, 29)),
    "square": Case((), (4,), 1, 6, (28, 28)),
    "draws": Case((3,), (2,), 2, 3, (11, 7)),
    "one pixel": Case((), (3,), 1, 4, (1, 1)),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(cpu, "SMALLEST", 0)


def function(way: str, case: Case) -> Callable[..., Tensor]:
    """Centre, stride, width and an image or a patch to what is read or written."""

    def through(centre: Tensor, stride: Tensor, width: Tensor, *given: Tensor) -> Tensor:
        grid = rg.GaussianGrid(centre, stride, width, case.size, case.shape)
        return grid.read(*given) if way == "read" else grid.write(*given)

    return through


def given(way: str, case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    windows, one = (*case.draws, *case.batch), partial(torch.rand, dtype=dtype)
    shape = case.shape if way == "read" else 2 * (case.size,)
    place = 2 * one(*windows, 2) - 1, one(*windows, 1) / 2, one(*windows, 2) / 2 + 0.1
    return [*place, torch.randn(*case.batch, case.channels, *shape, dtype=dtype)]


def check(way: str, case: Case, inputs: Sequence[Tensor]) -> None:
    """The law, by this road: float64 is compared with the plain road as it is."""
    call = function(way, case)
    assert taken((WAYS[way],), lambda: call(*inputs))
    if inputs[0].dtype == torch.float64:
        assert_close(answers(call, *inputs), plain_answers(call, *inputs), rtol=1e-9, atol=1e-9)
    else:
        check_road(lambda _: call, *inputs)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
@ways
def test_values_and_gradients(way: str, case: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    check(way, CASES[case], given(way, CASES[case], dtype))


@ways
def test_what_is_not_contiguous(way: str):
    case = CASES["square"]
    centre, stride, width, lines = given(way, case)
    centre, width = torch.stack((centre, width), -1).unbind(-1)
    check(way, case, (centre, stride[:1], width, lines.mT))


@ways
def test_the_buffers_may_hold_anything(way: str):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(way, CASES["draws"], given(way, CASES["draws"]))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("width", [1e-30, 1e-4, 1e-3, 0.03, 1.0, 1e3, 1e30])
@pytest.mark.parametrize("centre", [0.31, -1.0, 1.0000001, -5.0, 1e4, -1e6])
@ways
def test_far_outside_and_narrow_and_wide(way: str, centre: float, width: float):
    """In float64, where a narrow window's gradient is not lost in rounding."""
    case, dtype = Case((), (2,), 1, 4, (6, 9)), torch.float64
    place = torch.full((2, 2), centre, dtype=dtype), torch.full((2, 2), 0.4, dtype=dtype)
    lines = given(way, case, dtype)[-1]
    inputs = *place, torch.full((2, 2), width, dtype=dtype), lines
    call = function(way, case)
    for fast, plain in zip(answers(call, *inputs), plain_answers(call, *inputs), strict=True):
        assert_close(fast, plain, rtol=1e-6, atol=1e-9 * max(1, plain.abs().max().item()))
    single = [each.float() for each in inputs]
    assert_close(call(*single), plain_answers(call, *single)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("learnt", [(), (0,), (1,), (0, 2), (0, 1, 2)])
def test_several_images_are_read_as_one(learnt: tuple[int, ...]):
    case = CASES["odd sizes"]
    *place, one = given("read", case)
    images = [torch.randn_like(one)[..., :channels, :, :] for channels in (1, 3, 2)]
    images = [each.requires_grad_(n in learnt) for n, each in enumerate(images)]
    leaves = [each.requires_grad_() for each in (*place, *(images[n] for n in learnt))]
    grid = rg.GaussianGrid(*place, case.size, case.shape)
    assert taken((read_through,), lambda: grid.read(*images))
    read, joined = grid.read(*images), grid.read(torch.cat(images, -3))
    assert_close(read, joined)
    with rg.plain_road():
        assert_close(read, grid.read(*images))
    way = torch.randn_like(read)
    assert_close(torch.autograd.grad(read, leaves, way), torch.autograd.grad(joined, leaves, way), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("which", range(4))
@ways
def test_nan_stays_nan_in_its_image(way: str, which: int):
    call, inputs = function(way, CASES["square"]), given(way, CASES["square"])
    inputs[which].view(len(inputs[which]), -1)[1, 0] = torch.nan
    for fast, plain in zip(answers(call, *inputs), plain_answers(call, *inputs), strict=True):
        assert torch.equal(fast.isnan(), plain.isnan())
        assert_close(fast, plain, rtol=1e-3, atol=1e-3, equal_nan=True)


@ways
def test_the_gradient_of_the_gradient(way: str):
    call, inputs = function(way, CASES["odd sizes"]), given(way, CASES["odd sizes"], torch.float64)

    def slopes(*leaves: Tensor) -> Tensor:
        first = torch.autograd.grad(call(*leaves).cos().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    assert_close(answers(slopes, *inputs), plain_answers(slopes, *inputs))


@ways
def test_a_window_of_less_precision_than_the_image(way: str):
    call, inputs = function(way, CASES["square"]), given(way, CASES["square"])
    inputs[-1] = inputs[-1].double()
    found, wanted = answers(call, *inputs), plain_answers(call, *inputs)
    assert [each.dtype for each in found] == [each.dtype for each in wanted]
    assert_close(found, wanted, rtol=1e-3, atol=1e-4)


class TestWhichRoad:
    def taken(self, *inputs: Tensor, size: int = 6) -> bool:
        grid = rg.GaussianGrid(*inputs[:3], size, (28, 28))
        return taken((read_through,), lambda: grid.read(*inputs[3:]))

    def test_not_for_low_precision_nor_filters_that_are_wider_than_the_image(self):
        inputs = given("read", CASES["square"])
        assert self.taken(*inputs) and self.taken(*(each.double() for each in inputs))
        assert not self.taken(*(each.bfloat16() for each in inputs))
        assert not self.taken(*(each.double() for each in inputs[:3]), inputs[3])
        with torch.autocast("cpu", torch.bfloat16):
            assert not self.taken(*inputs)

    def test_not_for_one_window_over_many_images(self):
        centre, stride, width, image = given("read", CASES["square"])
        assert not self.taken(centre[0], stride[0], width[0], image)
        assert not self.taken(centre, stride, width, image[:1])
        reason = cpu.refuses_read(read_through, centre, stride, width, 6, image, image[:1])
        assert reason == "the images are of several types or batches"

    def test_not_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        inputs = given("read", CASES["square"])
        assert self.taken(*inputs, size=cpu.MOST) and not self.taken(*inputs, size=cpu.MOST + 1)
        monkeypatch.setattr(cpu, "SMALLEST", inputs[-1].numel())
        assert self.taken(*inputs)
        monkeypatch.setattr(cpu, "SMALLEST", inputs[-1].numel() + 1)
        assert not self.taken(*inputs)


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["axes", "value", "centre", "stride", "width", "image", "not written"])
    @ways
    def test_a_wrong_kernel(self, way: str, wrong: str):
        names = "centre", "stride", "width", "", "image"
        run = cpu.run_read if way == "read" else cpu.run_write

        def mutant(function: object, *inputs) -> Tensor:
            partly = lambda tensor: tensor.detach() + 0.99 * (tensor - tensor.detach())  # noqa: E731
            inputs = [partly(each) if name == wrong else each for name, each in zip(names, inputs, strict=True)]
            inputs[:3] = [each.flip(-1) if wrong == "axes" else each for each in inputs[:3]]
            out = run(function, *inputs) * (1.001 if wrong == "value" else 1)
            return out + torch.full_like(out, torch.nan) if wrong == "not written" else out

        inputs = given(way, CASES["square"])
        check(way, CASES["square"], inputs)
        with replaced((WAYS[way],), mutant), pytest.raises(AssertionError):
            check(way, CASES["square"], inputs)
