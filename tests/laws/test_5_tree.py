"""Law 5 for the kernels of dependency trees on the CPU: they equal the plain road in values and gradients."""

from collections.abc import Callable

import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.tree import cpu as tree_numba
from regard.kernels.tree.walks_cpu_loops import walks
from regard.positions.algorithms.trees import log_partition, marginals

SIZES = {"no batch": ((), 5), "batch": ((3,), 7), "two batches": ((2, 3), 4), "one word": ((2,), 1), "long": ((2,), 15)}
KINDS = {"log_partition": log_partition, "marginals": marginals}
ANSWERS = {"mean": lambda each: each.mean, "log_z": lambda each: each.log_z, "entropy": lambda each: each.entropy()}
kinds = pytest.mark.parametrize("kind", KINDS)
projective = pytest.mark.parametrize("projective", [True, False])
single_root = pytest.mark.parametrize("single_root", [True, False])


def scores(size: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    batch, words = SIZES[size]
    return (scale * torch.randn(*batch, words, words)).to(dtype)


def present(size: str) -> Tensor:
    """Some rows with a hole, some without anything."""
    batch, words = SIZES[size]
    return torch.rand(*batch, words) < 0.8


def agree(function: Callable[..., Tensor], given: Tensor) -> None:
    """The law; in float64, where the plain road is the truth itself, to eight digits."""
    if given.dtype == torch.float64:
        assert_close(answers(function, given), plain_answers(function, given), rtol=1e-8, atol=1e-8)
    else:
        check_road(lambda _: function, given)


def exactly(function: Callable[..., Tensor], given: Tensor) -> None:
    """The law where the plain road in float32 is no measure: as near to it in float64 as float32 is."""
    fast = [each.double() for each in answers(function, given)]
    assert_close(fast, plain_answers(function, given.double()), rtol=1e-6, atol=1e-6)


def check(kind: str, given: Tensor, allowed: Tensor, projective: bool = True, single_root: bool = True) -> None:
    agree(lambda scores: KINDS[kind](scores, allowed, projective, single_root), given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@kinds
@projective
@single_root
def test_values_and_gradients(single_root: bool, projective: bool, kind: str, size: str, dtype: torch.dtype):
    check(kind, scores(size, dtype), present(size), projective, single_root)


@kinds
def test_in_two_threads(kind: str):
    torch.set_num_threads(2)
    check(kind, scores("batch"), present("batch"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("answer", ANSWERS)
@projective
def test_every_type(projective: bool, answer: str, dtype: torch.dtype):
    agree(lambda each: ANSWERS[answer](rg.tree(projective)(each)), scores("batch", dtype))


@pytest.mark.parametrize("scale", [30.0, 1e4])
@kinds
@projective
@single_root
def test_large_scores(single_root: bool, projective: bool, kind: str, scale: float):
    """Of which many are computed by the plain road, as their sums are too small for the loops."""
    allowed = present("batch")
    exactly(lambda each: KINDS[kind](each, allowed, projective, single_root), scores("batch", scale=scale))


@kinds
@projective
@single_root
def test_words_that_prefer_each_other(single_root: bool, projective: bool, kind: str):
    given = scores("batch", torch.float64)
    for one, other in ((0, 3), (3, 0), (1, 2), (2, 1), (5, 4), (4, 5)):
        given[..., one, other] = 1e4
    check(kind, given, torch.ones(3, 7, dtype=torch.bool), projective, single_root)


@kinds
@projective
@single_root
def test_forbidden_arcs(single_root: bool, projective: bool, kind: str):
    given = scores("batch", torch.float64)
    given = given.masked_fill(torch.rand_like(given) < 0.4, -torch.inf)
    check(kind, given, present("batch"), projective, single_root)


@kinds
@projective
def test_long_sentences(projective: bool, kind: str):
    """Whose sums are too large for the loops, if they are projective."""
    given = 0.1 * torch.randn(1, 400 if projective and kind == "log_partition" else 60, dtype=torch.float64)
    given = given.unsqueeze(-1) + given.unsqueeze(-2)
    allowed = torch.ones(given.shape[:-1], dtype=torch.bool)
    fast = KINDS[kind](given, allowed, projective, True)
    with rg.plain_road():
        assert_close(fast, KINDS[kind](given, allowed, projective, True), rtol=1e-10, atol=1e-10)
    assert fast.isfinite().all()


@projective
def test_not_contiguous(projective: bool):
    wide = scores("two batches").repeat_interleave(2, -1)[..., ::2].transpose(0, 1)
    check("marginals", wide, present("two batches").transpose(0, 1), projective)
    check("marginals", scores("batch")[:1].expand(5, -1, -1), torch.ones(5, 7, dtype=torch.bool), projective)


@kinds
@projective
def test_the_buffers_may_hold_anything(projective: bool, kind: str):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(kind, scores("batch"), present("batch"), projective)
    finally:
        torch.use_deterministic_algorithms(False)


@projective
def test_nan_stays_in_its_sentence(projective: bool):
    given = scores("batch")
    given[1, 2, 3] = torch.nan
    found = rg.tree(projective)(given)
    assert found.log_z.isnan().tolist() == [False, True, False]
    assert found.mean[1].isnan().any() and not found.mean[::2].isnan().any()


@projective
@single_root
def test_the_second_gradient_is_that_of_the_plain_road(single_root: bool, projective: bool):
    def slopes(given: Tensor) -> Tensor:
        mean = rg.tree(projective, single_root)(given).mean
        return torch.autograd.grad(mean.square().sum(), given, create_graph=True)[0]

    given = scores("two batches", torch.float64)
    assert_close(answers(slopes, given), plain_answers(slopes, given))


def test_no_rows():
    found, grad = answers(lambda each: rg.tree()(each).mean, scores("batch")[:0])
    assert found.shape == grad.shape == (0, 7, 7)


@pytest.mark.parametrize("forbidden", [0.0, 0.5])
@projective
@single_root
def test_the_best_trees(single_root: bool, projective: bool, forbidden: float):
    """By the kernel and by the plain road, where there are holes, and fewer trees than are asked for."""
    given = scores("two batches", torch.float64)
    given = given.masked_fill(torch.rand_like(given) < forbidden, -torch.inf)
    positions = rg.Tree(given, present("two batches"), projective, single_root)
    best = positions.k_best(6)
    with rg.plain_road():
        assert torch.equal(positions.k_best(6), best)


@projective
@single_root
def test_the_plain_road_draws_trees_as_often_as_it_should(single_root: bool, projective: bool):
    """(That the kernel does is law 2.) Five standard deviations."""
    positions = rg.Tree(scores("two batches", torch.float64)[0], present("two batches")[0], projective, single_root)
    with rg.plain_road():
        z = positions.sample((2000,))
    assert (positions.log_prob(z) > -torch.inf).all()
    assert (positions.indicator(z).mean(0) - positions.mean).abs().max() < 5 * 0.5 / 2000**0.5


@pytest.mark.parametrize("circling", [0.0, 30.0])
@single_root
def test_draws_by_walks_and_word_after_word(single_root: bool, circling: float):
    """Where two words prefer each other walks would be long, and none is made. Five standard deviations."""
    given = scores("batch", torch.float64)[:1]
    given[0, 0, 3] = given[0, 3, 0] = circling
    arcs = given[0].numpy()
    assert bool(len(walks(arcs, arcs.diagonal().copy(), -1))) == (circling == 0)
    positions = rg.Tree(given, torch.ones(1, 7, dtype=torch.bool), False, single_root)
    z = positions.sample((2000,))
    assert (positions.log_prob(z) > -torch.inf).all()
    assert (positions.indicator(z).mean(0) - positions.mean).abs().max() < 5 * 0.5 / 2000**0.5


class TestWhichRoad:
    def taken(self, kind: str, call) -> bool:
        return taken((KINDS[kind],), call)

    @kinds
    def test_it_is_taken(self, kind: str):
        answer = {"marginals": "mean", "log_partition": "log_z"}[kind]
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            assert self.taken(kind, lambda dtype=dtype: getattr(rg.tree()(scores("batch", dtype)), answer))

    def test_not_under_torch_func_nor_without_words(self):
        assert not self.taken("marginals", lambda: torch.func.vmap(lambda each: rg.tree()(each).mean)(scores("batch")))
        assert not self.taken("marginals", lambda: rg.tree()(torch.zeros(2, 0, 0)).mean)


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "gradient", "not written"])
    @kinds
    def test_a_wrong_kernel(self, kind: str, wrong: str):
        def run(part, given: Tensor, *others) -> Tensor:
            if wrong == "gradient":
                given = given.detach() + 0.99 * (given - given.detach())
            found = tree_numba.run(part, given, *others)
            return found * {"value": 1.001, "gradient": 1, "not written": torch.nan}[wrong]

        with replaced((KINDS[kind],), run), pytest.raises(AssertionError):
            check(kind, scores("batch"), present("batch"))

    @projective
    def test_loops_that_are_sure_of_everything(self, projective: bool, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tree_numba, "_unsure", lambda kernel, given, out: RIGHT(kernel, given, out)[:0])
        with pytest.raises(AssertionError):
            test_words_that_prefer_each_other(True, projective, "marginals")


RIGHT = tree_numba._unsure


class Means(nn.Module):
    def forward(self, given: Tensor) -> Tensor:
        return rg.tree(projective=False)(given).mean


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    @pytest.mark.parametrize("scale", [1.0, 1e4])  # the plain road within an op
    def test_compile_and_its_gradient(self, scale: float):
        torch._dynamo.reset()
        given = scores("batch", torch.float64, scale)
        fast = answers(torch.compile(Means(), fullgraph=True, backend="aot_eager"), given)
        assert_close(fast, answers(Means(), given))
