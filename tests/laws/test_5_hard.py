"""Law 5 for hard reads of a softmax in float32: by the same seed the places, what is read there, the log-probability
and all gradients are those of the plain road, whatever the blocks; and draws have the probabilities of the weights."""

from collections.abc import Callable
from typing import Any

import examples
import pytest
import torch
from roads import taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.categorical import cpu as categorical_cpu
from regard.kernels.categorical import cpu_loops
from regard.kernels.hard import cpu
from regard.positions.algorithms import categorical

READS = [rg.sample, rg.mode]
reads = pytest.mark.parametrize("read", READS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the roads for few scores, a hard read in blocks of forty."""
    monkeypatch.setattr(cpu, "BLOCK", 40)
    for module in (cpu, categorical_cpu):
        monkeypatch.setattr(module, "SMALLEST", 0)


def arguments(*sizes: int, width: int = 5) -> list[Tensor]:
    """Query, keys and values with gradients: of (*B, Q, K)."""
    *batch, queries, places = sizes
    shapes = (*batch, queries, width), (*batch, places, width), (*batch, places, 2)
    return [torch.randn(shape).requires_grad_() for shape in shapes]


def answers(given: list[Tensor], read: Any, score: Any = rg.scaled_dot, mask: Tensor | None = None) -> list[Tensor]:
    """The place, its log-probability, what is read, and the gradients of all that was given."""
    torch.manual_seed(1)
    out = rg.attend(*given, score=score, read=read, mask=mask)
    ways = torch.linspace(-1, 2, out.log_prob.numel()).view(out.log_prob.shape)
    grads = torch.autograd.grad((out.log_prob * ways).sum() + out.context.square().sum(), given)
    return [out.z, out.log_prob, out.context, *grads]


def check(*given: Any, **more: Any) -> None:
    found = answers(*given, **more)
    with rg.plain_road():
        assert_close(found, answers(*given, **more), rtol=1e-4, atol=1e-5)


@reads
@pytest.mark.parametrize("score", [rg.dot, rg.scaled_dot])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 200), (3, 7), (2, 5, 9), (2, 3, 1, 9), (2, 2, 30, 3)])
def test_it_is_the_plain_road(sizes: tuple[int, ...], score: Any, read: Any):
    given = arguments(*sizes)
    assert taken((score, rg.softmax, read), lambda: rg.attend(*given, score=score, read=read))
    check(given, read, score)


@reads
def test_what_is_not_contiguous(read: Any):
    """As heads are, which stand behind the words."""
    apart = [each.detach().transpose(1, 2).contiguous().requires_grad_() for each in arguments(2, 3, 7, 9)]
    torch.manual_seed(1)
    found = rg.attend(*(each.transpose(1, 2) for each in apart), read=read)
    torch.manual_seed(1)
    wanted = rg.attend(*(each.transpose(1, 2).contiguous() for each in apart), read=read)
    for part in ("z", "log_prob", "context"):
        assert torch.equal(getattr(found, part), getattr(wanted, part))
    total = [(each.log_prob.square().sum() + each.context.square().sum()) for each in (found, wanted)]
    assert_close(*(torch.autograd.grad(each, apart) for each in total))


@reads
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, read: Any):
    check(arguments(2, 3, 4), read, mask=examples.MASKS[mask]())


@reads
def test_a_mask_for_all_queries_and_rows_of_nothing(read: Any):
    mask = torch.rand(2, 1, 30) < 0.3
    mask[1] = False
    given = arguments(2, 20, 30)
    check(given, read, mask=mask)
    out = rg.attend(*given, read=read, mask=mask)
    assert (out.z[1] == -1).all() and (out.log_prob[1] == 0).all() and (out.context[1] == 0).all()


@reads
def test_nan_is_seen_in_its_row_alone(read: Any):
    query, keys, values = arguments(3, 9)
    with torch.no_grad():
        query[1] = torch.nan
    out = rg.attend(query, keys, values, read=read)
    assert out.context[1].isnan().all() and out.log_prob[1].isnan()
    assert out.context[[0, 2]].isfinite().all() and out.log_prob[[0, 2]].isfinite().all()


@reads
def test_a_gradient_of_a_gradient(read: Any):
    given = arguments(2, 3, 6)
    twice = []
    for road in (rg.plain_road, torch.enable_grad):
        with road():
            torch.manual_seed(1)
            out = rg.attend(*given, read=read)
            first = torch.autograd.grad(out.log_prob.square().sum(), given[:2], create_graph=True)
            twice.append(torch.autograd.grad(sum(each.square().sum() for each in first), given[:2]))
    assert_close(twice[1], twice[0], rtol=1e-4, atol=1e-5)


def test_values_that_are_read_lazily():
    glimpses = rg.Glimpses(torch.rand(2, 1, 12, 12), size=4, scales=1)
    patches = rg.Patches(glimpses, torch.rand(9, 2) - 0.5)
    out = rg.attend(torch.randn(2, 1, 5), torch.randn(2, 9, 5), patches, read=rg.mode)
    assert out.formed is None and torch.equal(out.context, patches.read(out.z))


def test_it_refuses_what_it_does_not_compute():
    query, keys, values = arguments(2, 3, 4)

    def is_taken(*given: Tensor) -> bool:
        return taken((rg.scaled_dot, rg.softmax, rg.mode), lambda: rg.attend(*given, read=rg.mode))

    assert is_taken(query, keys, values)
    assert not is_taken(query.double(), keys.double(), values)
    assert not is_taken(query.expand(2, 2, 3, 5), keys, values)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_taken(query, keys, values)


@pytest.mark.parametrize("read", ["hard", "distribution"])
def test_draws_have_the_probabilities_of_the_weights(read: str):
    """Pearson's test at a false alarm in 10,000; of places in two parts of the kernel, some of which are impossible."""
    places, count = cpu_loops.PART + 10, 40_000
    scores = torch.full((places,), -torch.inf)
    scores[[0, 3, 7, 60, 120, cpu_loops.PART - 1, cpu_loops.PART, -3, -2, -1]] = torch.linspace(-1, 1, 10)
    if read == "hard":
        query, keys = torch.ones(count, 1), scores.clamp(min=-200).unsqueeze(-1)
        z = rg.attend(query, keys, torch.ones(places, 1), score=rg.dot, read=rg.sample).z
    else:
        z = rg.OneHot(scores=scores.unsqueeze(0)).sample((count,))
    seen, wanted = z.flatten().bincount(minlength=places), count * scores.softmax(-1)
    assert (seen[wanted == 0] == 0).all()
    assert ((seen - wanted).square() / wanted)[wanted > 0].sum() < 33.7  # 9 degrees of freedom


def distributed(answer: Callable[[Tensor], Tensor], scores: Tensor) -> None:
    """The answer about some scores by the kernel and by the plain road, and its gradient."""
    leaf = scores.clone().requires_grad_()
    found = answer(leaf)
    with rg.plain_road():
        wanted = answer(leaf)
    assert_close(found, wanted, equal_nan=True)
    if found.requires_grad:
        total = lambda each: each[each.isfinite()].square().sum()  # noqa: E731
        grads = [torch.autograd.grad(total(each), leaf)[0] for each in (found, wanted)]
        assert_close(*grads, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("places", [1, 5, cpu_loops.PART, 3 * cpu_loops.PART + 1])
def test_places_and_their_log_probability_of_any_scores(places: int, dtype: torch.dtype):
    scores = (3 * torch.randn(6, places)).to(dtype)
    scores[1], scores[2, : places // 2] = -torch.inf, -torch.inf
    noise = torch.rand(6, 50, dtype=torch.float64)
    distributed(lambda each: categorical.sample(each.detach(), noise), scores)
    z = torch.randint(-1, places, (6, 50))
    if dtype is torch.float32:
        scores[3, 0] = torch.nan
        distributed(lambda each: categorical.log_prob(each, z), scores)
    assert categorical.log_prob(scores, z).dtype == dtype


def test_uniform_numbers_at_the_ends():
    scores = torch.tensor([[-torch.inf, 0.0, -200.0, 0.0, -torch.inf]])
    noise = torch.tensor([[0.0, 0.5 - 1e-12, 0.5, 1 - 2**-53]], dtype=torch.float64)
    for road in (rg.plain_road, torch.no_grad):
        with road():
            assert categorical.sample(scores, noise).tolist() == [[1, 1, 3, 3]]


def test_a_place_that_is_not_there():
    with pytest.raises(IndexError, match="below 300, but got 300"):
        rg.OneHot(scores=torch.randn(3, 300)).log_prob(torch.tensor([0, 300, 1]))


def test_the_default_type_of_numbers_does_not_matter():
    given = arguments(2, 3, 7)
    found = answers(given, rg.sample)
    torch.set_default_dtype(torch.float64)
    try:
        assert_close(answers(given, rg.sample)[:3], found[:3])
    finally:
        torch.set_default_dtype(torch.float32)


class TestMutants:
    @pytest.mark.parametrize("read", ["hard", "distribution"])
    def test_a_wrong_draw(self, read: str, monkeypatch: pytest.MonkeyPatch):
        right = torch.rand
        monkeypatch.setattr(torch, "rand", lambda *shape, **more: right(*shape, **more) ** 2)
        with pytest.raises(AssertionError):
            test_draws_have_the_probabilities_of_the_weights(read)
