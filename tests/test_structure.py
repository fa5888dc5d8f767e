"""What all structures answer: gold labels at absent places, labels out of range, empty sequences, large scores."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

B, T, S = 3, 4, 4
LINKS = torch.tensor([[0.3, -0.8, 0.1, 0.6], [-0.5, 0.9, 0.2, -0.1], [0.7, 0.0, -0.6, 0.4], [-0.2, 0.5, 0.8, -0.9]])
OVERS: dict[str, Callable[[], Callable[..., rg.Positions]]] = {
    "chain": lambda: rg.chain(LINKS),
    "segments": lambda: rg.segments(0.7),
    "semi_markov": lambda: rg.semi_markov(2, LINKS, durations=LINKS[:2]),
    "ctc": lambda: rg.ctc([2]),
    "tree": rg.tree,
    "tree, non-projective": lambda: rg.tree(projective=False, single_root=False),
}
overs = pytest.mark.parametrize("over", OVERS)
LENGTHS = torch.tensor([4, 0, 2])


def positions(over: str, batch: tuple[int, ...] = (B,), length: int = T, scale: float = 1.0) -> rg.Positions:
    """Of a batch of random scores, all places of which are present."""
    part = rg.ctc([]) if over == "ctc" and not length else OVERS[over]()  # labels would not fit
    return part(scale * torch.randn(scores_shape(over, batch, length)))


def scores_shape(over: str, batch: tuple[int, ...], length: int) -> tuple[int, ...]:
    last = {"segments": (length,), "chain": (length, S), "semi_markov": (length, S), "ctc": (length, S)}
    return *batch, *last.get(over, (length, length))


def positions_in_float64(each: rg.Positions) -> rg.Positions:
    tensors = {
        name: value.double() for name, value in vars(each).items() if getattr(value, "is_floating_point", bool)()
    }
    return dataclasses.replace(each, **tensors)


def padded(over: str) -> tuple[rg.Positions, Tensor]:
    """A distribution of which some positions are absent, and a labelling of each row, -1 at those."""
    present = torch.arange(T) < LENGTHS.unsqueeze(-1)
    mask = present if over == "segments" else present.unsqueeze(-1)
    found = OVERS[over]()(torch.randn(scores_shape(over, (B,), T)), mask)
    return found, found.sample()


@pytest.mark.parametrize("filling", [0, 1, 3, -1, -100, 4, 10**6])
@overs
def test_what_stands_at_absent_places_is_ignored(over: str, filling: int):
    found, gold = padded(over)
    wanted, given = found.log_prob(gold), gold.where(gold >= 0, filling)
    assert wanted.isfinite().all()
    assert_close(found.log_prob(given), wanted)
    assert_close(found.indicator(given), found.indicator(gold))
    values = torch.randn(T, 2) if over == "segments" else torch.randn(B, found.scores.shape[-1], 2)
    assert_close(found.gather(values, given), found.gather(values, gold))
    assert_close(found.log_prob(given.expand(5, B, T)), wanted.expand(5, B))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32])
@overs
def test_labels_of_any_integer_type(over: str, kind: torch.dtype):
    found = positions(over)
    z = found.sample()
    assert_close(found.log_prob(z.to(kind)), found.log_prob(z))


@overs
def test_the_gradient_is_finite_where_padding_holds_zero(over: str):
    present = torch.arange(T) < torch.tensor([4, 2, 3]).unsqueeze(-1)
    scores = torch.randn(scores_shape(over, (B,), T), requires_grad=True)
    found = OVERS[over]()(scores, present if over == "segments" else present.unsqueeze(-1))
    gold = torch.nn.utils.rnn.pad_sequence([each[each >= 0] for each in found.sample()], batch_first=True)
    (-found.log_prob(gold).mean()).backward()
    assert scores.grad.isfinite().all() and (scores.grad != 0).any()


@pytest.mark.unchecked
@pytest.mark.parametrize("label", [4, -2, -100, 255])
@overs
def test_a_label_out_of_range_is_refused(over: str, label: int):
    found, gold = padded(over)
    most = 1 if over == "segments" else 3
    gold[2, 1] = label
    message = (
        rf"^value expected labels from 0 to {most} where a position is present, or -1 throughout, but got {label}\.$"
    )
    with pytest.raises(ValueError, match=message):
        found.log_prob(gold)


@overs
def test_a_label_that_is_lacking_is_refused_but_not_where_all_are(over: str):
    found = positions(over)
    gold = found.sample()
    assert (found.log_prob(torch.full_like(gold, -1)) == -torch.inf).all()
    gold[1, 2] = -1
    with pytest.raises(ValueError, match="but got -1"):
        found.log_prob(gold)


@pytest.mark.unchecked
@overs
def test_the_check_does_not_stop_what_transforms_functions(over: str):
    """Nor does it happen there: an impossible label has the log-probability -inf."""
    torch._dynamo.reset()
    scores, part = torch.randn(scores_shape(over, (B,), T)), OVERS[over]()
    function = lambda scores, z: part(scores).log_prob(z)  # noqa: E731
    z = part(scores).sample()
    bad = z.clone()
    bad[0, 0] = 7
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(compiled(scores, z), function(scores, z))
    assert compiled(scores, bad)[0] == -torch.inf
    assert_close(torch.func.vmap(function)(scores, z), function(scores, z))
    assert torch.func.vmap(function)(scores, bad)[0] == -torch.inf
    assert torch.func.grad(lambda scores: function(scores, z).sum())(scores).isfinite().all()


@overs
def test_the_support_names_every_event_once(over: str):
    found, _ = padded(over)
    support = found.enumerate_support()
    for row in range(B):
        log_prob = found.log_prob(support)[:, row]
        events = support[log_prob > -torch.inf, row]
        assert len(events.unique(dim=0)) == len(events)
        assert ((events == -1) == (torch.arange(T) >= LENGTHS[row])).all()
        assert_close(log_prob.exp().sum(), torch.ones(()))


@pytest.mark.parametrize("batch", [(1,), (2, 3), (0,)])
@overs
def test_of_no_positions_there_is_one_event(over: str, batch: tuple[int, ...]):
    found = positions(over, batch, 0)
    assert found.log_z.shape == found.entropy().shape == found.kl(found).shape == batch
    for answer in (found.log_z, found.entropy(), found.kl(found), found.log_prob(found.mode)):
        assert (answer == 0).all()
    for z in (found.mode, found.sample(), found.k_best(1)[0], found.enumerate_support()[0]):
        assert z.shape == (*batch, 0)
    assert len(found.enumerate_support()) == 1
    assert found.mean.shape == found.scores.shape


@overs
def test_gradients_of_no_positions(over: str):
    scores = torch.randn(scores_shape(over, (2,), 0), requires_grad=True)
    for answer in (lambda each: each.log_z, lambda each: each.mean, lambda each: each.entropy()):
        total = answer(OVERS[over]()(scores)).sum() + scores.sum()
        (slope,) = torch.autograd.grad(total, scores, create_graph=True)
        assert slope.shape == scores.shape
        total = lambda scores, answer=answer: answer(OVERS[over]()(scores)).sum()  # noqa: E731
        assert torch.func.grad(total)(scores).shape == scores.shape


@overs
def test_one_position(over: str):
    found = positions(over, length=1)
    support = found.enumerate_support()
    probability = found.log_prob(support).exp()
    assert_close(probability.sum(0), torch.ones(B))
    assert_close(found.entropy(), -torch.xlogy(probability, probability).sum(0), atol=1e-6, rtol=1e-5)
    assert (found.log_prob(found.mode) == found.log_prob(support).amax(0)).all()


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
@overs
def test_small_differences_of_large_scores_are_kept(over: str, scale: float):
    """In float32: an even score more for all structures, which changes nothing but log Z."""
    part = rg.segments(scale) if over == "segments" else OVERS[over]()
    scores = torch.randn(scores_shape(over, (B,), T)) + (0 if over == "segments" else scale)
    found, other = part(scores), part(scores.flip(0))
    exact, other_exact = (positions_in_float64(each) for each in (found, other))
    answers = lambda p, q: (p.entropy(), p.log_prob(exact.mode), p.kl(q))  # noqa: E731
    for fast, truth in zip(answers(found, other), answers(exact, other_exact), strict=True):
        assert fast.dtype == torch.float32
        assert_close(fast.double(), truth, rtol=1e-5, atol=1e-6)


def test_segments_that_stay_together():
    """Two events matter, all labels 0 or all 1, and they differ by the sum of the scores."""
    scores = torch.randn(3, 20)
    chance = scores.double().sum(-1).sigmoid()
    entropy = -torch.xlogy(chance, chance) - torch.xlogy(1 - chance, 1 - chance)
    assert_close(rg.segments(800.0)(scores).entropy(), entropy.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("over", "shape"),
    [
        (rg.chain(torch.zeros(20, 20)), (6, 20)),
        (rg.semi_markov(2, LINKS), (6, S)),
        (rg.ctc([2, 1]), (6, S)),
        (rg.monotonic(), (6, 6)),
    ],
    ids=["chain", "semi_markov", "ctc", "monotonic"],
)
def test_a_step_of_the_plain_road_has_no_gradient_of_all_steps(over: Callable[..., rg.Positions], shape: tuple[int]):
    """A tensor that is asked for its steps by their numbers gets, from each, a gradient of its own size: memory in the
    square of the length."""
    with rg.plain_road():
        asked = over(torch.randn(1, *shape, requires_grad=True))
        found = asked.log_z if hasattr(asked, "log_z") else asked.mean
    seen, ahead = set(), [found.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead.extend(each for each, _ in node.next_functions)
    steps = [node for node in seen if node.name() == "SelectBackward0"]
    assert len(steps) <= 2
