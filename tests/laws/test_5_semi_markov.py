"""Law 5 for the kernels of semi-Markov chains on the CPU: they equal the plain road in values and gradients."""

import math

import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.semi_markov import cpu
from regard.positions.algorithms.semi_markov import log_partition, marginals

SIZES = {
    "no batch": ((), 5, 3, 2),
    "batch": ((2,), 7, 2, 3),
    "two batches": ((2, 3), 4, 5, 1),
    "one position": ((3,), 1, 4, 3),
    "one label": ((2,), 3, 1, 4),
    "long": ((2,), 40, 4, 9),
}
KINDS = {"log_partition": log_partition, "marginals": marginals}
kinds = pytest.mark.parametrize("kind", KINDS)


def scores(size: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[Tensor]:
    batch, length, states, width = SIZES[size]
    shapes = (*batch, length, states), (*batch, states, states), (*batch, width, states)
    return [(scale * torch.randn(shape)).to(dtype) for shape in shapes]


def present(size: str) -> Tensor:
    return torch.rand(*SIZES[size][0], SIZES[size][1]) < 0.9


def check(kind: str, allowed: Tensor, *given: Tensor) -> None:
    """The law; in float64, where the plain road is the truth itself, to eight digits."""
    function = lambda *given: KINDS[kind](*given, allowed)  # noqa: E731
    if given[0].dtype == torch.float64:
        assert_close(answers(function, *given), plain_answers(function, *given), rtol=1e-8, atol=1e-8)
    else:
        check_road(lambda _: function, *given)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@kinds
def test_values_and_gradients(kind: str, size: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    check(kind, present(size), *scores(size, dtype))


@pytest.mark.parametrize("scale", [30.0, 1e4])
@kinds
def test_large_scores(kind: str, scale: float):
    check(kind, present("long"), *scores("long", torch.float64, scale))


@kinds
def test_scores_of_minus_infinity(kind: str):
    nodes, transitions, durations = scores("batch", torch.float64)
    nodes[0, 1, 0] = nodes[1, 3] = transitions[0, 0, 1] = durations[1, 1, 1] = -math.inf
    allowed = torch.ones(2, 7, dtype=torch.bool)
    function = lambda *given: KINDS[kind](*given, allowed)  # noqa: E731
    fast, plain = (each(function, nodes, transitions, durations) for each in (answers, plain_answers))
    assert_close(fast, plain)
    assert fast[0].isneginf().any() == (kind == "log_partition")


@kinds
def test_nan_stays_in_its_row(kind: str):
    nodes, transitions, durations = scores("two batches")
    nodes[0, 1, 2, 3] = durations[1, 0, 0, 1] = torch.nan
    found = KINDS[kind](nodes, transitions, durations, torch.ones(2, 3, 4, dtype=torch.bool))
    assert found.isnan().view(2, 3, -1).any(-1).tolist() == [[False, True, False], [True, False, False]]


@kinds
def test_not_contiguous_and_shared(kind: str):
    nodes, transitions, durations = scores("two batches")
    allowed = present("two batches").transpose(0, 1)
    check(kind, allowed, *(each.transpose(0, 1) for each in (nodes, transitions, durations)))
    shared = lambda nodes, links, spans: KINDS[kind](  # noqa: E731
        nodes, links.expand(3, 2, -1, -1), spans.expand(3, 2, -1, -1), allowed
    )
    check_road(lambda _: shared, nodes.transpose(0, 1), transitions[0, 0], durations[0, 0])


@kinds
def test_no_rows(kind: str):
    given = [each[:0] for each in scores("batch")]
    found = answers(lambda *given: KINDS[kind](*given, torch.ones(0, 7, dtype=torch.bool)), *given)
    assert [each.shape[0] for each in found] == [0, 0, 0, 0]


@kinds
def test_the_second_gradient_is_that_of_the_plain_road(kind: str):
    allowed = present("batch")

    def slopes(*given: Tensor) -> Tensor:
        leaves = [each.requires_grad_() for each in given]
        first = torch.autograd.grad(KINDS[kind](*leaves, allowed).square().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    given = scores("batch", torch.float64)
    assert_close(answers(slopes, *given), plain_answers(slopes, *given))


def test_it_is_taken():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        positions = rg.SemiMarkov(*scores("batch", dtype), present("batch"))
        for kind, call in (("marginals", lambda each: each.mean), ("log_partition", lambda each: each.log_z)):
            assert taken((KINDS[kind],), lambda call=call, positions=positions: call(positions))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "nodes", "transitions", "durations"])
    @kinds
    def test_a_wrong_kernel(self, kind: str, wrong: str):
        right, names = getattr(cpu, f"run_{kind}"), ("nodes", "transitions", "durations")

        def run(part, *given: Tensor) -> Tensor:
            changed = [
                each.detach() + 0.99 * (each - each.detach()) if name == wrong else each
                for name, each in zip(names, given[:3], strict=True)
            ]
            return right(part, *changed, given[3]) * (1.001 if wrong == "value" else 1)

        with replaced((KINDS[kind],), run), pytest.raises(AssertionError):
            check(kind, torch.ones(2, 7, dtype=torch.bool), *scores("batch"))
