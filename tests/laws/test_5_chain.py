"""Law 5 for the kernels of linear chains on the CPU: they equal the plain road in values and gradients."""

import math
from collections.abc import Callable

import examples
import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.chain import cpu as chain_numba
from regard.positions.algorithms.linear_chain import label_means, log_partition, marginals, segment_means

SIZES = {
    "no batch": ((), 5, 3),
    "batch": ((2,), 7, 2),
    "two batches": ((2, 3), 4, 5),
    "one position": ((3,), 1, 4),
    "one label": ((2,), 6, 1),
    "long": ((2,), 65, 7),
    "long, two labels": ((3,), 65, 2),
}
KINDS = {"log_partition": log_partition, "marginals": marginals, "label_means": label_means}
ANSWERS = {"mean": lambda each: each.mean, "log_z": lambda each: each.log_z, "entropy": lambda each: each.entropy()}
kinds = pytest.mark.parametrize("kind", KINDS)


def scores(size: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[Tensor]:
    batch, length, states = SIZES[size]
    shapes = (*batch, length, states), (*batch, states, states)
    return [(scale * torch.randn(shape)).to(dtype) for shape in shapes]


def present(size: str) -> Tensor:
    """Some rows with a hole, some without anything."""
    batch, length, _ = SIZES[size]
    return torch.rand(*batch, length) < 0.8


def agree(function: Callable[..., Tensor], *given: Tensor) -> None:
    """The law; in float64, where the plain road is the truth itself, to eight digits."""
    if given[0].dtype == torch.float64:
        assert_close(answers(function, *given), plain_answers(function, *given), rtol=1e-8, atol=1e-8)
    else:
        check_road(lambda _: function, *given)


def agree_at_large_scores(function: Callable[..., Tensor], *given: Tensor) -> None:
    """The law where the plain road in the same precision is no measure: as far from float64 as its numbers are."""
    fast = [each.double() for each in answers(function, *given)]
    exact = plain_answers(function, *(each.double() for each in given))
    allowed = max(8 * torch.finfo(given[0].dtype).eps, 1e-8)
    assert_close(fast, exact, rtol=allowed, atol=allowed)


def check(kind: str, nodes: Tensor, transitions: Tensor, allowed: Tensor) -> None:
    agree(lambda *given: KINDS[kind](*given, allowed), nodes, transitions)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@kinds
def test_values_and_gradients(kind: str, size: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    check(kind, *scores(size, dtype), present(size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_type(answer: str, dtype: torch.dtype):
    allowed = present("batch")
    agree(lambda *given: ANSWERS[answer](rg.Chain(*given, allowed)), *scores("batch", dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_segments(scale: float, dtype: torch.dtype):
    given, stay, allowed = (
        (scale * torch.randn(2, 3, 9)).to(dtype),
        torch.randn(2, 3).to(dtype),
        torch.rand(2, 3, 9) < 0.8,
    )
    agree_at_large_scores(lambda *given: rg.Segments(*given, allowed).mean, given, stay)


@pytest.mark.parametrize("mask", examples.MASKS)
@pytest.mark.parametrize("over", ["segments", "chain", "semi_markov"])
def test_masks(over: str, mask: str):
    allowed, part = examples.MASKS[mask](), examples.OVERS[over]()
    agree(lambda scores: part(scores, allowed).mean, torch.randn(2, 3, 4, dtype=torch.float64))


@kinds
def test_not_contiguous(kind: str):
    nodes, transitions = scores("two batches")
    check(kind, nodes.transpose(0, 1), transitions.transpose(0, 1).mT, present("two batches").transpose(0, 1))
    check(kind, nodes[:, :, ::2], transitions, present("two batches")[:, :, ::2])


@kinds
def test_transitions_that_all_rows_share(kind: str):
    nodes, transitions = scores("two batches")
    allowed, shared = present("two batches"), transitions[0, 0]
    agree(lambda nodes, shared: KINDS[kind](nodes, shared.expand(2, 3, -1, -1), allowed), nodes, shared)


@pytest.mark.parametrize("scale", [30.0, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", ["long", "long, two labels"])
@kinds
def test_large_scores(kind: str, size: str, dtype: torch.dtype, scale: float):
    allowed = present(size)
    agree_at_large_scores(lambda *given: KINDS[kind](*given, allowed), *scores(size, dtype, scale))


@kinds
def test_probabilities_too_small_for_a_number(kind: str):
    """The messages from left and right have their mass on different labels: only logarithms can tell."""
    nodes = torch.tensor([[0.0, 800.0], [0.0, 0.0], [800.0, 0.0]], dtype=torch.float64)
    transitions = torch.tensor([[0.0, -900.0], [-900.0, 0.0]], dtype=torch.float64)
    check(kind, nodes, transitions, torch.ones(3, dtype=torch.bool))
    assert_close(
        rg.Chain(nodes, transitions, torch.ones(3, dtype=torch.bool)).mean[1], torch.tensor([0.5, 0.5]).double()
    )


@kinds
def test_scores_of_minus_infinity(kind: str):
    nodes, transitions = scores("two batches", torch.float64)
    nodes[0, 0, 1, :3] = nodes[1, 2, 2] = transitions[0, 1, 0] = -math.inf
    transitions[1, 1] = -math.inf
    allowed = torch.ones(2, 3, 4, dtype=torch.bool)
    fast, plain = (
        each(KINDS[kind], nodes, transitions, allowed=allowed)
        for each in (with_mask(answers), with_mask(plain_answers))
    )
    assert_close(fast, plain)
    assert fast[0].isneginf().any() == (kind == "log_partition")


def with_mask(measure):
    return lambda function, *given, allowed: measure(lambda *given: function(*given, allowed), *given)


@kinds
def test_nan_stays_in_its_row(kind: str):
    nodes, transitions = scores("two batches")
    nodes[0, 1, 2, 3] = transitions[1, 0, 1, 1] = torch.nan
    allowed = torch.ones(2, 3, 4, dtype=torch.bool)
    fast, plain = (
        each(KINDS[kind], nodes, transitions, allowed=allowed)
        for each in (with_mask(answers), with_mask(plain_answers))
    )
    assert_close(fast[0].isnan().view(2, 3, -1).any(-1), plain[0].isnan().view(2, 3, -1).any(-1))
    assert [each.isnan().flatten(2).any(-1).tolist() for each in fast[1:]] == [
        [[False, True, False], [True, False, False]]
    ] * 2


@kinds
def test_the_buffers_may_hold_anything(kind: str):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(kind, *scores("batch"), present("batch"))
    finally:
        torch.use_deterministic_algorithms(False)


@kinds
def test_no_rows(kind: str):
    nodes, transitions = (each[:0] for each in scores("batch"))
    found = answers(lambda *given: KINDS[kind](*given, torch.ones(0, 7, dtype=torch.bool)), nodes, transitions)
    assert [each.shape[0] for each in found] == [0, 0, 0]


@kinds
def test_the_second_gradient_is_that_of_the_plain_road(kind: str):
    allowed = present("batch")

    def slopes(*given: Tensor) -> Tensor:
        leaves = [each.requires_grad_() for each in given]
        first = torch.autograd.grad(KINDS[kind](*leaves, allowed).square().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    given = scores("batch", torch.float64)
    assert_close(answers(slopes, *given), plain_answers(slopes, *given))


@pytest.mark.parametrize("forbidden", ["nothing", "labels", "transitions"])
@pytest.mark.parametrize("size", SIZES)
def test_the_best_and_the_drawn_labellings(size: str, forbidden: str):
    """By the kernel and, given the same noise, by the plain road."""
    nodes, transitions = scores(size, torch.float64)
    limited = {"labels": nodes, "transitions": transitions}.get(forbidden, nodes[..., :0])
    limited.masked_fill_(torch.rand_like(limited) < 0.5, -math.inf)
    positions = rg.Chain(nodes, transitions, present(size))
    best = positions.k_best(7)
    torch.manual_seed(0)
    drawn = positions.sample((20,))
    torch.manual_seed(0)
    with rg.plain_road():
        assert torch.equal(positions.sample((20,)), drawn)
        assert torch.equal(positions.k_best(7), best)


class TestWhichRoad:
    def taken(self, kind: str, call) -> bool:
        return taken(({**KINDS, "segment_means": segment_means}[kind],), call)

    def test_it_is_taken(self):
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            positions = rg.Chain(*scores("batch", dtype), present("batch"))
            assert self.taken("label_means", lambda positions=positions: positions.mean)
            assert self.taken("marginals", lambda positions=positions: positions.entropy())
            assert self.taken("log_partition", lambda positions=positions: positions.log_z)
            assert self.taken("segment_means", lambda dtype=dtype: rg.segments()(torch.randn(1, 3).to(dtype)).mean)

    def test_not_under_torch_func(self):
        nodes, transitions = scores("batch")
        total = lambda nodes: rg.Chain(nodes, transitions, present("batch")).log_z.sum()  # noqa: E731
        assert not self.taken("log_partition", lambda: torch.func.grad(total)(nodes))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "nodes", "transitions", "not written"])
    @kinds
    def test_a_wrong_kernel(self, kind: str, wrong: str):
        right = getattr(chain_numba, f"run_{kind}")

        def run(part, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
            given = {"nodes": nodes, "transitions": transitions}
            if wrong in given:
                given[wrong] = given[wrong].detach() + 0.99 * (given[wrong] - given[wrong].detach())
            found = right(part, *given.values(), present)
            return found * 1.001 if wrong == "value" else found * torch.nan if wrong == "not written" else found

        with replaced((KINDS[kind],), run), pytest.raises(AssertionError):
            check(kind, *scores("batch"), torch.ones(2, 7, dtype=torch.bool))


class Answers(nn.Module):
    def forward(self, scores: Tensor, transitions: Tensor) -> tuple[Tensor, ...]:
        positions = rg.chain(transitions)(scores)
        return positions.mean, positions.log_z, positions.mode, rg.segments(0.5)(scores).mean


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    def given(self) -> tuple[Tensor, Tensor]:
        return torch.randn(2, 5, 3), torch.randn(3, 3)

    def test_compile_and_its_gradient(self):
        torch._dynamo.reset()
        model, given = Answers(), self.given()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_close(compiled(*given), model(*given))
        for answer in (0, 1, 3):
            fast = answers(lambda *given, answer=answer: compiled(*given)[answer].sum() + 0 * given[1].sum(), *given)
            assert_close(
                fast, answers(lambda *given, answer=answer: model(*given)[answer].sum() + 0 * given[1].sum(), *given)
            )

    def test_vmap(self):
        scores, transitions = torch.randn(3, 2, 5, 3), torch.randn(3, 3, 3)
        found = torch.func.vmap(Answers())(scores, transitions)
        one_by_one = [Answers()(*each) for each in zip(scores, transitions, strict=True)]
        assert_close(found, tuple(torch.stack(each) for each in zip(*one_by_one, strict=True)))
