"""Law 5 for the expected alignment's kernel on the CPU: it equals the plain road in values and gradients."""

import math

import examples
import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.monotonic import cpu as monotonic_numba
from regard.positions.algorithms.recurrence import expected_alignment

SIZES = {
    "no batch": ((), 5, 7),
    "batch": ((2,), 3, 17),
    "heads": ((2, 3), 4, 8),
    "one query": ((3,), 1, 33),
    "one key": ((2,), 3, 1),
    "long": ((2,), 40, 130),
}
CHUNKS = (1, 3, None)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(monotonic_numba, "SMALLEST", 0)


def scores(size: str, dtype: torch.dtype = torch.float32) -> Tensor:
    batch, queries, places = SIZES[size]
    return torch.randn(*batch, queries, places).to(dtype)


def start(size: str, dtype: torch.dtype = torch.float32) -> Tensor:
    batch, _, places = SIZES[size]
    return (0.9 * torch.randn(*batch, places).softmax(-1)).to(dtype)


def weights(scores: Tensor, start: Tensor | None = None, chunk: int | None = 1) -> Tensor:
    if chunk == 1:
        return rg.Alignment(scores, start).mean
    return rg.Chunkwise(scores, start, within=2 * scores, chunk=chunk).mean


def check(*given: Tensor, chunk: int | None = 1) -> None:
    check_road(lambda _: lambda *given: weights(*given, chunk=chunk), *given)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_values_and_gradients(chunk: int | None, size: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    try:
        check(scores(size, dtype), start(size, dtype), chunk=chunk)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("mask", examples.MASKS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_masks(chunk: int | None, mask: str):
    allowed = examples.MASKS[mask]()
    over = rg.monotonic(chunk, bias=-0.5)
    check_road(lambda _: lambda scores: over(scores, allowed).mean, torch.randn(2, 3, 4))


def test_entropy_and_divergence():
    check_road(lambda _: lambda scores: rg.Alignment(scores).entropy(), scores("batch"))
    both = scores("batch"), scores("batch")
    check_road(lambda _: lambda *both: rg.Alignment(both[0]).kl(rg.Alignment(both[1])), *both)


def test_not_contiguous():
    wide = scores("heads").repeat_interleave(2, -1)[..., ::2].transpose(0, 1)
    check(wide)
    check(scores("heads")[:1].expand(5, -1, -1, -1))


def test_draws_stand_in_front():
    query, keys, values = (each.float() for each in examples.inputs())
    function = lambda query, keys, values: rg.attend(query, keys, values, over=rg.monotonic(2)).context  # noqa: E731
    check_road(lambda _: function, torch.stack((query, 2 * query, -query)), keys, values)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_buffers_may_hold_anything(chunk: int | None):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(scores("batch"), start("batch"), chunk=chunk)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("scale", [30.0, 1e4])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_large_scores(chunk: int | None, scale: float):
    check(scale * scores("batch"), chunk=chunk)


@pytest.mark.parametrize(("p", "places"), [(0.5, 100), (0.9, 50), (0.1, 500), (0.5, 3000)])
def test_no_mass_is_lost(p: float, places: int):
    middle = torch.nn.functional.one_hot(torch.tensor(places), 2 * places).float()
    stops = torch.full((1, 2 * places), math.log(p / (1 - p)))
    assert_close(weights(stops, middle).sum(), torch.tensor(1.0))


def test_small_chances_are_as_exact_as_large_ones():
    row = torch.full((2, 400), 1.0)
    fast, plain = weights(row), plain_answers(weights, row)[0]
    counted = plain > 1e-30
    assert_close(fast[counted], plain[counted], rtol=1e-4, atol=0)
    assert counted.any() and not counted.all()


def test_nan_stays_nan_where_it_is():
    given = scores("batch")
    given[0, 1, 5] = torch.nan
    fast, plain = answers(weights, given), plain_answers(weights, given)
    assert_close([each.isnan() for each in fast], [each.isnan() for each in plain])
    assert fast[0].isnan().any() and not fast[0].isnan().all()


def test_no_rows():
    found, grad = answers(weights, scores("batch")[:0])
    assert found.shape == grad.shape == (0, 3, 17)


def test_the_second_gradient_is_that_of_the_plain_road():
    def slopes(*given: Tensor) -> Tensor:
        leaves = [each.requires_grad_() for each in given]
        first = torch.autograd.grad(weights(*leaves).square().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    given = scores("batch"), start("batch")
    for fast, plain in zip(answers(slopes, *given), plain_answers(slopes, *given), strict=True):
        assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_the_law_holds_for_the_arguments_themselves():
    """The chances to stop and to go on need not sum to one, and each has its own gradient."""
    stop, go = torch.rand(2, 2, 5, 11)
    check_road(lambda _: expected_alignment, stop, go, torch.rand(2, 11))


class TestWhichRoad:
    def taken(self, call) -> bool:
        return taken((expected_alignment,), call)

    def test_it_is_taken(self):
        query, keys, values = (each.float() for each in examples.inputs())
        for over in (rg.monotonic(), rg.monotonic(2), rg.monotonic(None)):
            assert self.taken(lambda over=over: rg.attend(query, keys, values, over=over))
        assert self.taken(lambda: weights(scores("batch", torch.bfloat16)))

    def test_not_for_float64_nor_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        assert not self.taken(lambda: weights(scores("batch", torch.float64)))
        monkeypatch.setattr(monotonic_numba, "SMALLEST", 10**9)
        assert not self.taken(lambda: weights(scores("batch")))

    def test_not_under_torch_func(self):
        assert not self.taken(lambda: torch.func.grad(lambda each: weights(each).sum())(scores("batch")))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "stop", "go", "start", "not written"])
    def test_a_wrong_kernel(self, wrong: str):
        def run(part, stop: Tensor, go: Tensor, start: Tensor) -> Tensor:
            given = {"stop": stop, "go": go, "start": start}
            if wrong in given:
                given[wrong] = given[wrong].detach() + 0.99 * (given[wrong] - given[wrong].detach())
            found = monotonic_numba.run(part, *given.values())
            return found * 1.001 if wrong == "value" else found * torch.nan if wrong == "not written" else found

        with replaced((expected_alignment,), run), pytest.raises(AssertionError):
            check(scores("batch"), start("batch"))


class Weights(nn.Module):
    def forward(self, scores: Tensor, start: Tensor) -> Tensor:
        return rg.Chunkwise(scores, start, chunk=3).mean


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    def test_compile_and_its_gradient(self):
        torch._dynamo.reset()
        given = scores("batch"), start("batch")
        fast = answers(torch.compile(Weights(), fullgraph=True, backend="aot_eager"), *given)
        assert_close(fast, answers(Weights(), *given))

    def test_forward_derivatives(self):
        given, step = scores("batch"), 1e-2
        along = torch.func.jvp(weights, (given,), (torch.ones_like(given),))[1]
        assert_close(along, (weights(given + step) - weights(given - step)) / (2 * step), rtol=1e-2, atol=1e-3)
