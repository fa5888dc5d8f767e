"""Law 5 for the kernels of constituency trees on the CPU: they equal the plain road in values and gradients, and in the
trees that they find."""

import math
from collections.abc import Callable

import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.constituency import cpu
from regard.positions.algorithms.constituency import log_partition, marginals, of_spans

SIZES = {
    "no batch": ((), 5),
    "batch": ((3,), 7),
    "two batches": ((2, 3), 4),
    "one word": ((2,), 1),
    "many rows": ((19,), 6),
    "long": ((2,), 30),
}
KINDS = {"log_partition": log_partition, "marginals": marginals}
kinds = pytest.mark.parametrize("kind", KINDS)
Case = tuple[Tensor, Tensor]


def case(size: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Case:
    """Scores, and which words are present: some rows have holes, some nothing."""
    batch, words = SIZES[size]
    return (scale * torch.randn(*batch, words, words)).to(dtype), torch.rand(*batch, words) < 0.8


def check(kind: str, scores: Tensor, present: Tensor) -> None:
    """The law; in float64, where the plain road is the truth itself, to eight digits. A row without a tree has a log Z
    of -inf on both roads."""
    function: Callable[[Tensor], Tensor] = lambda scores: finite(KINDS[kind](scores, present))  # noqa: E731
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
    """Of which the sums of exponentials do not know enough: the plain road does."""
    check(kind, *case("long", torch.float64, scale))


@kinds
def test_sums_too_small_for_a_number(kind: str):
    """What is best for all spans of few words leads to nothing, and the one tree that is possible is far below them."""
    scores = torch.full((1, 12, 12), -800.0, dtype=torch.float64)
    for first in range(12):
        scores[0, first, first + 1 :] = 90.0 if first else -800.0
    scores[0, 0, 3:11] = -math.inf
    check(kind, scores, torch.ones(1, 12, dtype=torch.bool))


@kinds
def test_scores_of_minus_infinity(kind: str):
    scores, present = case("batch", torch.float64)
    present = torch.ones_like(present)
    scores[0, 1, 3:] = scores[0, 0, 2] = scores[1, 2, 2] = scores[2, 0, 6] = -math.inf
    check(kind, scores, present)
    assert log_partition(scores, present).isneginf().tolist() == [False, True, True]
    assert marginals(scores, present).sum((-1, -2)).round().tolist() == [13.0, 0.0, 0.0]


@kinds
def test_nan_stays_in_its_row(kind: str):
    scores, present = case("two batches")
    scores[0, 1, 1, 3] = scores[1, 0, 2, 2] = torch.nan
    found = KINDS[kind](scores, torch.ones_like(present))
    assert found.isnan().view(2, 3, -1).any(-1).tolist() == [[False, True, False], [True, False, False]]


@kinds
def test_what_is_below_the_diagonal_is_not_looked_at(kind: str):
    scores, present = case("batch")
    changed = scores + torch.full_like(scores, 1e3).tril(-1)
    assert torch.equal(KINDS[kind](scores, present), KINDS[kind](changed, present))


@kinds
def test_not_contiguous(kind: str):
    scores, present = case("two batches")
    check(kind, scores.transpose(0, 1), present.transpose(0, 1))


@kinds
def test_no_rows(kind: str):
    scores, present = (each[:0] for each in case("batch"))
    found = answers(lambda scores: KINDS[kind](scores, present), scores)
    assert [each.shape[0] for each in found] == [0, 0]


@kinds
def test_the_buffers_may_hold_anything(kind: str):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(kind, *case("batch"))
        check_road(lambda _: lambda scores: of_spans(scores).triu(), torch.randn(2, 4, 4, 3))
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_second_gradient_is_that_of_the_plain_road():
    scores, present = case("batch", torch.float64)

    def slopes(scores: Tensor) -> Tensor:
        return torch.autograd.grad(marginals(scores, present).square().sum(), scores, create_graph=True)[0]

    assert_close(answers(slopes, scores), plain_answers(slopes, scores))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_labels(dtype: torch.dtype):
    scores = (9 * torch.randn(2, 5, 5, 4)).to(dtype)
    scores[0, 1, 2] = -math.inf
    scores[1, 0, 3, 1:] = -math.inf
    function = lambda scores: finite(of_spans(scores).triu().clamp(min=-1e3))  # noqa: E731
    check_road(lambda _: function, scores)
    assert torch.autograd.grad(of_spans(scores.requires_grad_()).triu().sum(), scores)[0][1, 0, 3, 1:].eq(0).all()


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_the_best_and_the_drawn_trees(size: str, scale: float):
    """By the kernel and, given the same noise, by the plain road."""
    scores, present = case(size, torch.float64, scale)
    labelled = torch.stack((scores, *(scale * torch.randn(2, *scores.shape, dtype=torch.float64))), -1)
    for positions in (rg.Constituency(scores.unsqueeze(-1), present, False), rg.Constituency(labelled, present)):
        for answer in (lambda each: each.mode, lambda each: each.k_best(4), lambda each: each.sample((5,))):
            torch.manual_seed(3)
            fast = answer(positions)
            torch.manual_seed(3)
            with rg.plain_road():
                assert torch.equal(fast, answer(positions))


def test_it_is_taken():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        positions = rg.constituency()(case("batch", dtype)[0])
        for kind, call in (("marginals", lambda each: each.mean), ("log_partition", lambda each: each.log_z)):
            assert taken((KINDS[kind],), lambda call=call, positions=positions: call(positions))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "gradient", "not written"])
    @kinds
    def test_a_wrong_kernel(self, kind: str, wrong: str):
        def run(part, scores: Tensor, present: Tensor) -> Tensor:
            changed = scores.detach() + 0.99 * (scores - scores.detach()) if wrong == "gradient" else scores
            return cpu.run(part, changed, present) * {"value": 1.001, "gradient": 1, "not written": torch.nan}[wrong]

        with replaced((KINDS[kind],), run), pytest.raises(AssertionError):
            check(kind, *case("long"))

    def test_loops_that_are_sure_of_everything(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(cpu, "_unsure", lambda kernel, given, out: RIGHT(kernel, given, out)[:0])
        with pytest.raises(AssertionError):
            test_sums_too_small_for_a_number("marginals")


RIGHT = cpu._unsure
