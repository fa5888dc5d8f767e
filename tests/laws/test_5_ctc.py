"""Law 5 for the kernels of connectionist temporal classification on the CPU: they equal the plain road in values and
gradients, and in the paths that they find."""

import math
from collections.abc import Callable

import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.ctc import cpu
from regard.positions.algorithms.ctc import closed, extended, log_partition, marginals

SIZES = {
    "no batch": ((), 7, 3, 2),
    "batch": ((3,), 9, 4, 3),
    "two batches": ((2, 3), 8, 5, 3),
    "one frame": ((3,), 1, 3, 1),
    "no labels": ((2,), 4, 3, 0),
    "long": ((2,), 40, 4, 12),
}
KINDS = {"log_partition": log_partition, "marginals": marginals}
kinds = pytest.mark.parametrize("kind", KINDS)
Case = tuple[Tensor, Tensor, Tensor]


def case(size: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Case:
    """Scores, states with targets of several lengths, and the frames that are present."""
    batch, length, labels, most = SIZES[size]
    targets = torch.randint(-1, labels, (*batch, most))
    targets = closed(targets, targets > 0).where(closed(targets > 0, targets > 0), -1)
    scores = (scale * torch.randn(*batch, length, labels)).to(dtype)
    return scores, extended(targets, 0), torch.rand(*batch, length) < 0.9


def check(kind: str, scores: Tensor, states: Tensor, present: Tensor) -> None:
    """The law; in float64, where the plain road is the truth itself, to eight digits. A row without a path has a log Z
    of -inf on both roads."""
    function: Callable[[Tensor], Tensor] = lambda scores: finite(KINDS[kind](scores, states, present))  # noqa: E731
    if scores.dtype == torch.float64:
        assert_close(answers(function, scores), plain_answers(function, scores), rtol=1e-8, atol=1e-8)
    else:
        check_road(lambda _: function, scores)


def finite(found: Tensor) -> Tensor:
    return found.masked_fill(found == -math.inf, -1e3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@kinds
def test_values_and_gradients(kind: str, size: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    check(kind, *case(size, dtype))


@pytest.mark.parametrize("scale", [30.0, 1e3, 1e4])
@kinds
def test_large_scores(kind: str, scale: float):
    """Of which the sums of probabilities do not know enough."""
    check(kind, *case("long", torch.float64, scale))


@kinds
def test_probabilities_too_small_for_a_number(kind: str):
    """What is best at first cannot be gone on with: only logarithms can tell."""
    scores = torch.zeros(9, 4, dtype=torch.float64)
    scores[:4, 1], scores[4:, 3] = 900.0, 900.0
    scores[2] -= torch.tensor([0.0, 2000.0, 0.0, 0.0], dtype=torch.float64)
    check(kind, scores, extended(torch.tensor([1, 2, 1, 3]), 0), torch.ones(9, dtype=torch.bool))


@kinds
def test_scores_of_minus_infinity(kind: str):
    scores, states, present = case("batch", torch.float64)
    states, present = extended(torch.tensor([[1, 2, 3], [3, 3, 1], [2, 1, 2]]), 0), torch.ones_like(present)
    scores[0, 2:5, 1] = scores[0, 1, 0] = scores[1, :, 3] = scores[2, 4] = -math.inf
    check(kind, scores, states, present)
    assert log_partition(scores, states, present).isneginf().tolist() == [False, True, True]
    assert marginals(scores, states, present).sum((-1, -2)).round().tolist() == [9.0, 0.0, 0.0]


@kinds
def test_nan_stays_in_its_row(kind: str):
    scores, _, _ = case("two batches")
    scores[0, 1, 2, 3] = scores[1, 0, 7, 0] = torch.nan
    states = extended(torch.tensor([3, 1, 2]), 0).expand(2, 3, -1)
    found = KINDS[kind](scores, states, torch.ones(2, 3, 8, dtype=torch.bool))
    assert found.isnan().view(2, 3, -1).any(-1).tolist() == [[False, True, False], [True, False, False]]


@kinds
def test_not_contiguous_and_shared(kind: str):
    scores, states, present = case("two batches")
    check(kind, *(each.transpose(0, 1) for each in (scores, states, present)))
    check(kind, scores, states[0, 0].expand(2, 3, -1), present)


@kinds
def test_no_rows(kind: str):
    scores, states, present = (each[:0] for each in case("batch"))
    found = answers(lambda scores: KINDS[kind](scores, states, present), scores)
    assert [each.shape[0] for each in found] == [0, 0]


@kinds
def test_the_buffers_may_hold_anything(kind: str):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(kind, *case("batch"))
    finally:
        torch.use_deterministic_algorithms(False)


@kinds
def test_the_second_gradient_is_that_of_the_plain_road(kind: str):
    scores, states, present = case("batch", torch.float64)

    def slopes(scores: Tensor) -> Tensor:
        found = finite(KINDS[kind](scores, states, present))
        return torch.autograd.grad(found.square().sum(), scores, create_graph=True)[0]

    assert_close(answers(slopes, scores), plain_answers(slopes, scores))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_the_best_and_the_drawn_paths(size: str, scale: float):
    """By the kernel and, given the same noise, by the plain road."""
    scores, states, present = case(size, torch.float64, scale)
    positions = rg.CTC(scores, states[..., 1::2], present)
    for answer in (lambda each: each.mode, lambda each: each.k_best(4), lambda each: each.sample((5,))):
        torch.manual_seed(3)
        fast = answer(positions)
        torch.manual_seed(3)
        with rg.plain_road():
            assert torch.equal(fast, answer(positions))


def test_it_is_taken():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        scores, states, present = case("batch", dtype)
        positions = rg.CTC(scores, states[..., 1::2], present)
        for kind, call in (("marginals", lambda each: each.mean), ("log_partition", lambda each: each.log_z)):
            assert taken((KINDS[kind],), lambda call=call, positions=positions: call(positions))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "gradient"])
    @kinds
    def test_a_wrong_kernel(self, kind: str, wrong: str):
        right = getattr(cpu, f"run_{kind}")

        def run(part, scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
            changed = scores if wrong == "value" else scores.detach() + 0.99 * (scores - scores.detach())
            return right(part, changed, states, present) * (1.001 if wrong == "value" else 1)

        with replaced((KINDS[kind],), run), pytest.raises(AssertionError):
            check(kind, *case("long"))
