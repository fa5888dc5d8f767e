"""Law 5 for hard reads that stream the keys: the mode is that of the plain road, draws have its probabilities, and
either has its log-probability."""

import examples
import pytest
import torch
from roads import taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.streamed import cpu_cuda as streamed

SCORES = {"dot": lambda: rg.dot, "scaled_dot": lambda: rg.scaled_dot, "additive": lambda: rg.Additive(5, 5, 6)}
scores = pytest.mark.parametrize("score", SCORES)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for few keys, in blocks of eight and parts of four."""
    for name, size in {"SMALLEST": 0, "BLOCK": 8, "PART": 4}.items():
        monkeypatch.setattr(streamed, name, size)


def arguments(places: int = 19, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 3, 5, dtype=dtype), torch.randn(2, places, 5, dtype=dtype), torch.randn(2, places, 2)


@torch.no_grad()
def both(score, read, query: Tensor, keys: Tensor, values, mask: Tensor | None = None) -> list[rg.Attended]:
    """What the road gives, and the plain one."""
    fast = rg.attend(query, keys, values, score=score, read=read, mask=mask)
    assert fast.formed is None, "the road was taken"
    with rg.plain_road():
        return [fast, rg.attend(query, keys, values, score=score, read=read, mask=mask)]


def check(fast: rg.Attended, plain: rg.Attended, values: Tensor) -> None:
    """The context and the log-probability are those of the place."""
    assert_close(fast.context, plain.positions.gather(values, fast.z))
    assert_close(fast.log_prob, plain.positions.log_prob(fast.z), check_dtype=True)


@scores
@pytest.mark.parametrize("places", [1, 4, 7, 8, 19, 40])
@pytest.mark.parametrize("read", [rg.mode, rg.sample])
def test_places_and_their_log_probability(score: str, places: int, read):
    query, keys, values = arguments(places)
    model = SCORES[score]()
    model = model.double() if isinstance(model, nn.Module) else model
    fast, plain = both(model, read, query, keys, values)
    check(fast, plain, values)
    if read is rg.mode:
        assert_close(fast.z, plain.z)


@pytest.mark.parametrize("read", [rg.mode, rg.sample])
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, read):
    query, keys, values = arguments(4)
    fast, plain = both(rg.dot, read, query, keys, values, examples.MASKS[mask]())
    check(fast, plain, values)
    assert (fast.log_prob > -torch.inf).all()
    if read is rg.mode:
        assert_close(fast.z, plain.z)


def test_a_draw_for_each_query_and_draw_in_front():
    query, keys, values = arguments()
    fast, plain = both(rg.dot, rg.sample, query.expand(7, *query.shape), keys, values)
    assert fast.z.shape == (7, 2, 3)
    check(fast, plain, values)


@pytest.mark.parametrize("masked", [False, True])
def test_draws_have_the_probabilities_of_the_weights(masked: bool):
    """Pearson's test at a false alarm in 10,000."""
    query, keys, values = arguments(10)
    query, keys, values = query[:1, :1], keys[:1], values[:1]
    mask = torch.arange(10) % 4 != 1 if masked else torch.ones(10, dtype=torch.bool)
    count = 40_000
    fast, plain = both(rg.dot, rg.sample, query.expand(count, 1, 1, 5), keys, values, mask.view(1, 10))
    wanted = count * plain.positions.mean[0, 0, 0]
    seen = fast.z.flatten().bincount(minlength=10)
    assert (seen[~mask] == 0).all()
    assert ((seen - wanted).square() / wanted)[mask].sum() < 33.7  # 9 degrees of freedom


def test_a_seed_repeats_the_draw():
    query, keys, values = arguments()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(both(rg.dot, rg.sample, query.expand(20, *query.shape), keys, values)[0].z)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype):
    query, keys, values = arguments(dtype=dtype)
    fast, plain = both(rg.dot, rg.mode, query, keys, values)
    assert_close(fast.log_prob, plain.positions.log_prob(fast.z), rtol=0.02, atol=0.05)
    assert fast.log_prob.dtype == dtype


def test_values_that_are_read_lazily_and_their_gradient():
    query, keys, values = arguments()
    leaf = values.requires_grad_()
    out = rg.attend(query, keys, leaf, score=rg.dot, read=rg.mode)
    assert out.formed is None
    out.context.sum().backward()
    assert leaf.grad is not None and leaf.grad.sum() == out.context.numel()
    assert_close(out.weights.sum(-1), torch.ones(2, 3).double())


def test_it_is_taken_where_no_gradient_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    query, keys, values = arguments()

    def is_taken(query: Tensor, score=rg.dot, read=rg.hard, **more) -> bool:
        over, resolved = more.get("over", rg.softmax), rg.sample if more.get("training", True) else rg.mode
        kind = score if score is rg.dot else type(score)
        parts = (kind, rg.softmax, resolved if read is rg.hard else read)
        return taken(parts, lambda: rg.attend(query, keys, values, score=score, read=read, over=over))

    assert is_taken(query)
    assert not is_taken(query.clone().requires_grad_())
    assert not is_taken(query, score=rg.Additive(5, 5, 6).double())
    assert is_taken(query, score=rg.Additive(5, 5, 6).double().requires_grad_(False))
    assert not is_taken(query, over=rg.sparsemax)
    monkeypatch.setattr(streamed, "SMALLEST", 100)
    assert not is_taken(query)


class TestMutants:
    @pytest.mark.parametrize("wrong", ["sums", "place"])
    def test_a_wrong_draw(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        right = getattr(streamed, name := {"sums": "_sums", "place": "_draw"}[wrong])

        def other(*given):
            return right(*given) * 0.5 if wrong == "sums" else tuple(each.clamp(max=3) for each in right(*given))

        monkeypatch.setattr(streamed, name, other)
        with pytest.raises(AssertionError):
            test_draws_have_the_probabilities_of_the_weights(False)


def test_under_autocast():
    query, keys, values = (each.float() for each in arguments())
    with torch.autocast("cpu", torch.bfloat16):
        fast, plain = both(rg.dot, rg.mode, query, keys, values)
    assert fast.log_prob.dtype == plain.log_prob.dtype == torch.bfloat16
