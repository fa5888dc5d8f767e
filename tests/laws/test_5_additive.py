"""Law 5 for the additive score's kernel on the CPU: it equals the plain road in values and gradients."""

import examples
import pytest
import torch
from roads import Contexts, answers, check_contexts, plain_answers, taken
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import cpu as additive_cpu
from regard.scores import compare

SIZES = {
    "no batch": ((), 5, 7, 9),
    "batch": ((2,), 3, 11, 37),
    "heads": ((2, 3), 4, 5, 64),
    "one query": ((3,), 1, 33, 17),
    "one key": ((2,), 3, 1, 100),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(additive_cpu, "SMALLEST", 0)


def arguments(size: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    batch, queries, places, width = SIZES[size]
    shapes = [(queries, width), (places, width + 1), (places, 3)]
    return [torch.randn(*batch, *shape).to(dtype) for shape in shapes]


def additive_contexts(width: int, mask: Tensor | None = None, over=rg.softmax) -> Contexts:
    return Contexts(rg.Additive(width, width + 1, width + 3), over, mask)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, dtype: torch.dtype, threads: int):
    torch.set_num_threads(threads)
    check_contexts(additive_contexts(SIZES[size][-1]), *arguments(size, dtype))


@pytest.mark.parametrize("mask", examples.MASKS)
@pytest.mark.parametrize("over", [rg.softmax, rg.sparsemax, rg.local(1)])
def test_masks(mask: str, over):
    given = [
        each.float() for each in (*examples.tensors(2, 3, 5), *examples.tensors(2, 4, 6), *examples.tensors(2, 4, 2))
    ]
    check_contexts(additive_contexts(5, examples.MASKS[mask](), over), *given)


def test_not_contiguous():
    query, keys, values = arguments("heads")
    wide = [each.repeat_interleave(2, -1)[..., ::2].transpose(0, 1) for each in (query, keys, values)]
    check_contexts(additive_contexts(SIZES["heads"][-1]), *wide)
    check_contexts(additive_contexts(SIZES["heads"][-1]), query, keys[:1, :1].expand_as(keys), values)


def test_draws_stand_in_front():
    query, keys, values = arguments("batch")
    check_contexts(additive_contexts(SIZES["batch"][-1]), torch.stack((query, 2 * query, -query)), keys, values)


def test_the_buffers_may_hold_anything():
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check_contexts(additive_contexts(SIZES["batch"][-1]), *arguments("batch"))
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_large_sum_is_as_exact_as_the_plain_road_s():
    check_contexts(additive_contexts(24), *(torch.randn(4, *shape) for shape in ((64, 24), (128, 25), (128, 3))))


def test_the_tangent_is_within_a_millionth():
    x = torch.cat((torch.linspace(-12, 12, 200_001), torch.tensor([1e-30, -1e30, float("inf"), -float("inf")])))
    score = rg.Additive(1, 1, 1)
    for layer in (score.query, score.key, score.energy):
        nn.init.ones_(layer.weight)
    found = rg.attend(x.unsqueeze(-1), torch.zeros(1, 1), torch.ones(1, 1), score=score, over=rg.sigmoid).positions
    assert (found.scores.flatten() - x.double().tanh()).abs().max() < 1e-6  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("what", ["query", "keys"])
def test_nan_stays_nan_where_it_is(what: str):
    query, keys, values = arguments("batch")
    (query if what == "query" else keys)[0, 1] = torch.nan
    model = additive_contexts(SIZES["batch"][-1])
    with rg.plain_road():
        wanted = model(query, keys, values).isnan()
    assert_close(model(query, keys, values).isnan(), wanted)
    assert wanted.any() and not wanted.all()


def test_nothing_to_do():
    query, keys, values = arguments("batch")
    for some in (query[:, :0], query[:0]):
        batch = len(some)
        contexts, *grads = answers(additive_contexts(SIZES["batch"][-1]), some, keys[:batch], values[:batch])
        assert contexts.shape == (batch, some.shape[1], 3) and all(grad.isfinite().all() for grad in grads)


def test_the_second_gradient_is_that_of_the_plain_road():
    query, keys, values = arguments("batch")
    model = additive_contexts(SIZES["batch"][-1])

    def slopes(*given: Tensor) -> Tensor:
        leaves = [each.requires_grad_() for each in given]
        first = torch.autograd.grad(model(*leaves).square().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    for fast, plain in zip(
        answers(slopes, query, keys, values), plain_answers(slopes, query, keys, values), strict=True
    ):
        assert_close(fast, plain, rtol=1e-4, atol=1e-5)


class TestWhichRoad:
    query, keys = torch.randn(2, 3, 8), torch.randn(2, 5, 8)

    def score(self) -> rg.Additive:
        return rg.Additive(8, 8, 8)

    def taken(self, score: rg.Additive, query: Tensor | None = None) -> bool:
        query = self.query if query is None else query
        values = torch.ones(2, 5, 1).to(query)
        return taken((rg.Additive,), lambda: rg.attend(query, self.keys.to(query), values, score=score))

    def test_it_is_taken(self):
        assert self.taken(self.score())
        assert self.taken(self.score().bfloat16(), self.query.bfloat16())

    def test_inside_of_another_score(self):
        biased = rg.biased(self.score(), torch.ones(5))
        call = lambda: rg.attend(self.query, self.keys, torch.ones(2, 5, 1), score=biased)  # noqa: E731
        assert taken((rg.Additive,), call)

    def test_not_for_float64(self):
        assert not self.taken(self.score().double(), self.query.double())

    def test_not_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(additive_cpu, "SMALLEST", 10**9)
        assert not self.taken(self.score())

    def test_not_for_a_class_of_its_own(self):
        class Other(rg.Additive):
            def compare(self, query: Tensor, prepared: Tensor) -> Tensor:
                return 2 * super().compare(query, prepared)

        assert not self.taken(Other(8, 8, 8))

    def test_not_with_hooks_or_another_energy(self):
        hooked, inner, other = self.score(), self.score(), self.score()
        hooked.register_forward_hook(lambda *_: None)
        inner.energy.register_forward_hook(lambda *_: None)
        other.energy = nn.Sequential(nn.Linear(8, 1))
        assert not any(self.taken(each) for each in (hooked, inner, other))

    def test_not_under_torch_func(self):
        score = self.score()
        call = lambda query: rg.attend(query, self.keys, self.keys, score=score).context.sum()  # noqa: E731
        assert not taken((rg.Additive,), lambda: torch.func.grad(call)(self.query))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "query", "keys", "energy"])
    def test_a_wrong_kernel(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        right = additive_cpu._scores

        def scores(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
            given = {"query": query, "keys": keys, "energy": energy}
            if wrong in given:
                given[wrong] = given[wrong].detach() + 0.99 * (given[wrong] - given[wrong].detach())
            return right(*given.values()) * (1.001 if wrong == "value" else 1)

        monkeypatch.setattr(additive_cpu, "_scores", scores)
        with pytest.raises(AssertionError):
            check_contexts(additive_contexts(SIZES["batch"][-1]), *arguments("batch"))


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    def test_compile_and_its_gradient(self):
        torch._dynamo.reset()
        model, given = additive_contexts(SIZES["batch"][-1]), arguments("batch")
        for fast, wanted in zip(
            answers(torch.compile(model, fullgraph=True, backend="aot_eager"), *given),
            answers(model, *given),
            strict=True,
        ):
            assert_close(fast, wanted)

    def test_autocast(self):
        model, given = additive_contexts(SIZES["batch"][-1]), arguments("batch")
        with torch.autocast("cpu", torch.bfloat16):
            contexts, *_ = answers(model, *given)
            plain, *_ = plain_answers(model, *given)
        assert contexts.dtype == plain.dtype
        assert_close(contexts, plain, rtol=0.05, atol=0.05)

    def test_forward_derivatives(self):
        model, (query, keys, values) = additive_contexts(SIZES["batch"][-1]), arguments("batch")
        along = torch.func.jvp(lambda query: model(query, keys, values), (query,), (torch.ones_like(query),))[1]
        step = 1e-2
        difference = (model(query + step, keys, values) - model(query - step, keys, values)) / (2 * step)
        assert_close(along, difference, rtol=1e-2, atol=1e-3)


class TestOtherWaysToDerive:
    """What has no rule for the kernel takes the plain road."""

    def test_many_gradients_at_once(self):
        query, keys, values = arguments("batch")
        model = additive_contexts(SIZES["batch"][-1])
        slow, fast = (
            torch.autograd.functional.jacobian(lambda query: model(query, keys, values), query, vectorize=many)
            for many in (False, True)
        )
        assert_close(fast, slow)

    def test_forward_derivatives_outside_of_torch_func(self):
        query, keys, values = arguments("batch")
        model = additive_contexts(SIZES["batch"][-1])
        with forward_ad.dual_level():
            along = forward_ad.unpack_dual(model(forward_ad.make_dual(query, torch.ones_like(query)), keys, values))
        wanted = torch.func.jvp(lambda query: model(query, keys, values), (query,), (torch.ones_like(query),))
        assert_close((along.primal, along.tangent), wanted)

    @pytest.mark.unchecked
    def test_a_batch_that_broadcasts(self):
        score = rg.Additive(4, 4, 64)
        for shapes in (((3, 64, 4), (1, 64, 4)), ((64, 4), (3, 64, 4)), ((1, 64, 4), (3, 64, 4))):
            query, keys = (torch.randn(*shape) for shape in shapes)
            assert compare(score, query, score.prepare(keys)).shape == (3, 64, 64)
