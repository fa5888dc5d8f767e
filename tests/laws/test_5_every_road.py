"""Laws 5 and 6 for every road that is registered, above the size from which on it is taken: without gradients it equals
the plain road, as it is and compiled; it is exported as the plain road, and torch.func's transforms are right."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from roads import plain_answers
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.registry import known_roads
from regard.masks import cleared
from regard.over.addressing import Addressed
from regard.over.local import GaussianWindow, MovingWindow
from regard.positions.algorithms import (
    categorical,
    constituency,
    ctc,
    gaussian_filters,
    linear_chain,
    recurrence,
    semi_markov,
    trees,
    windows,
)
from regard.reads import weighed

pytestmark = pytest.mark.unchecked
D = 16
NOISE = torch.linspace(0, 0.99, 24, dtype=torch.float64).view(2, 3, 4)
PLACES = torch.arange(24).view(2, 3, 4)
HIDDEN = torch.arange(64) < torch.tensor([40, 64])[:, None, None]
SCORES: dict[Any, Callable[[], Any]] = {
    rg.dot: lambda: rg.dot,
    rg.scaled_dot: lambda: rg.scaled_dot,
    rg.Cosine: lambda: rg.Cosine(2.0),
    rg.Bilinear: lambda: rg.Bilinear(D, D),
    rg.Additive: lambda: rg.Additive(D, D, D),
}
WINDOWS: dict[Any, Callable[[], Any]] = {
    MovingWindow: lambda: rg.local(1),
    GaussianWindow: lambda: rg.local(1, centre=rg.Predicted(D, D)),
}


class Case(NamedTuple):
    """A call that takes a road: a model, and what it is given."""

    model: nn.Module
    given: tuple[Tensor, ...]


class Attend(nn.Module):
    """query, keys and values to a context, with the weights if they are wanted; of a hard read how far its
    log-probability is from the plain one."""

    def __init__(self, score: Any, over: Any, read: Any = rg.mean):
        super().__init__()
        self.weights = read is weighed
        self.attention = rg.Attention(score, over, rg.mean if self.weights else read)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        out = self.attention(query, self.attention.prepare(keys, values), weights=self.weights)
        if self.weights:
            return torch.cat((out.context, out.weights), -1)
        return out.context if out.log_prob is None else out.log_prob - out.positions.log_prob(out.z)


class Expect(Attend):
    """The same by the distribution alone, of a read that does not ask for its mean."""

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attention(query, self.attention.prepare(keys, values)).positions.expect(values)


class Head(Attend):
    """query and memory to what a head reads that compares what it reads."""

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        return super().forward(query, memory, memory)


class Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given)


def attended(queries: int, places: int, score: Any = rg.dot, over: Any = rg.softmax, read: Any = rg.mean) -> Case:
    return Case(Attend(score, over, read), tuple(torch.randn(2, size, D) for size in (queries, places, places)))


def of_chain(answer: Callable[[rg.Chain], Tensor]) -> Case:
    call = Call(lambda nodes, links: answer(rg.Chain(nodes, links, torch.ones(2, 6, dtype=torch.bool))))
    return Case(call, (torch.randn(2, 6, 3), torch.randn(2, 3, 3)))


def of_runs(answer: Callable[[rg.SemiMarkov], Tensor]) -> Case:
    call = Call(lambda *scores: answer(rg.SemiMarkov(*scores, torch.ones(2, 6, dtype=torch.bool))))
    return Case(call, (torch.randn(2, 6, 3), torch.randn(2, 3, 3), torch.randn(2, 2, 3)))


def of_frames(answer: Callable[[rg.CTC], Tensor]) -> Case:
    return Case(Call(lambda scores: answer(rg.ctc([1, 1, 2])(scores))), (torch.randn(2, 6, 3),))


def window_scores(query: Tensor, keys: Tensor) -> Tensor:
    return windows.window_scores(query, keys, torch.arange(64).sub(8).expand(2, 64), 17)


def window_means(weights: Tensor, values: Tensor) -> Tensor:
    return windows.window_means(weights, values, torch.arange(64).sub(8).expand(2, 64))


def of_grid(answer: Callable[[rg.GaussianGrid, Tensor], Tensor], *shape: int) -> Case:
    call = Call(lambda centre, given: answer(rg.GaussianGrid(centre, 0.2, 0.15, 3, (32, 32)), given))
    return Case(call, (torch.randn(8, 2), torch.randn(8, 1, *shape)))


def written(memory: Tensor, erase: Tensor, add: Tensor, weights: Tensor) -> Tensor:
    return rg.write(memory, rg.OneHot(weights=weights), erase, add)


def of_spans(answer: Callable[[rg.Constituency], Tensor]) -> Case:
    return Case(Call(lambda scores: answer(rg.constituency(2)(scores))), (torch.randn(2, 4, 4, 2),))


def of_tree(answer: Callable[[rg.Tree], Tensor]) -> Case:
    return Case(Call(lambda scores: answer(rg.tree(projective=False)(scores))), (torch.randn(2, 4, 4),))


FUNCTIONS: dict[Any, Callable[[], Case]] = {
    rg.Additive: lambda: attended(64, 64, rg.Additive(D, D, D), rg.sigmoid),
    cleared: lambda: Case(Call(lambda rows: cleared(rows, rg.masks.unread(HIDDEN))), (torch.randn(2, 64, 64),)),
    rg.write: lambda: Case(Call(written), (*(torch.randn(2, size, D) for size in (64, 1, 1)), torch.rand(2, 1, 64))),
    rg.entmax_weights: lambda: Case(Call(lambda scores: rg.entmax_weights(scores, 1.5)), (torch.randn(2, 3, 64),)),
    gaussian_filters.read_through: lambda: of_grid(rg.GaussianGrid.read, 32, 32),
    gaussian_filters.write_through: lambda: of_grid(rg.GaussianGrid.write, 3, 3),
    categorical.sample: lambda: Case(Call(lambda scores: categorical.sample(scores, NOISE)), (torch.randn(2, 3, 64),)),
    categorical.log_prob: lambda: Case(
        Call(lambda scores: categorical.log_prob(scores, PLACES)), (torch.randn(2, 3, 64),)
    ),
    recurrence.expected_alignment: lambda: Case(Call(lambda each: rg.Alignment(each).mean), (torch.randn(2, 3, 9),)),
    linear_chain.log_partition: lambda: of_chain(lambda each: each.log_z),
    linear_chain.marginals: lambda: of_chain(lambda each: each.marginals),
    linear_chain.label_means: lambda: of_chain(lambda each: each.mean),
    linear_chain.segment_means: lambda: Case(Call(lambda scores: rg.segments()(scores).mean), (torch.randn(2, 3, 9),)),
    linear_chain.k_best: lambda: of_chain(lambda each: each.k_best(3)),
    linear_chain.sample: lambda: of_chain(lambda each: each.sample((2,))),
    semi_markov.log_partition: lambda: of_runs(lambda each: each.log_z),
    semi_markov.marginals: lambda: of_runs(lambda each: each.mean),
    semi_markov.k_best: lambda: of_runs(lambda each: each.k_best(3)),
    semi_markov.sample: lambda: of_runs(lambda each: each.log_prob(each.sample((2,))) > -torch.inf),
    ctc.log_partition: lambda: of_frames(lambda each: each.log_z),
    ctc.marginals: lambda: of_frames(lambda each: each.mean),
    ctc.k_best: lambda: of_frames(lambda each: each.k_best(3)),
    ctc.sample: lambda: of_frames(lambda each: each.sample((2,))),
    windows.window_scores: lambda: Case(Call(window_scores), (torch.randn(2, 64, D), torch.randn(2, 64, D))),
    windows.window_means: lambda: Case(Call(window_means), (torch.randn(2, 64, 17), torch.randn(2, 64, D))),
    constituency.of_spans: lambda: of_spans(lambda each: each.log_z),
    constituency.log_partition: lambda: of_spans(lambda each: each.log_z),
    constituency.marginals: lambda: of_spans(lambda each: each.mean),
    constituency.k_best: lambda: of_spans(lambda each: each.k_best(3)),
    constituency.sample: lambda: of_spans(lambda each: each.log_prob(each.sample((2,))) > -torch.inf),
    trees.log_partition: lambda: of_tree(lambda each: each.log_z),
    trees.marginals: lambda: of_tree(lambda each: each.mean),
    trees.k_best: lambda: of_tree(lambda each: each.k_best(3)),
    trees.sample: lambda: of_tree(lambda each: each.log_prob(each.sample((2,))) > -torch.inf),
}


def case_of(parts: tuple) -> Case:
    """A call that takes the road of these parts. A new road that is not of parts above needs a row in FUNCTIONS."""
    if len(parts) == 1:
        return FUNCTIONS[parts[0]]()
    if len(parts) == 2:
        _, given = attended(300, 64)
        return Case(Expect(SCORES[parts[0]](), WINDOWS[parts[1]](), rg.mode), given)
    score, over, read = parts
    if over is Addressed:
        return Case(Head(rg.Content(D, D), rg.addressing(D), read), (torch.randn(2, 1, D), torch.randn(2, 64, D)))
    if over in WINDOWS:
        return attended(64, 64, SCORES[score](), WINDOWS[over](), read)
    queries, places = (1, 128) if read in (rg.mean, weighed) else (2, 1 << 13)
    return attended(queries, places, SCORES[score](), over, read)


def is_here(device: str) -> bool:
    return device == "cpu" or (device == "cuda" and torch.cuda.is_available())


def title(key: tuple) -> str:
    return f"{known_roads()[key].name}: {', '.join(each.__name__ for each in key[:-1])}"


ROADS = {f"{title(key)}, {key[-1]}": key for key in known_roads() if is_here(key[-1])}
KERNELS = {  # one road for each function that roads share, whichever score it is given
    (known_roads()[key].run, key[:-1] if len(key) == 2 else None, key[-1]): road for road, key in ROADS.items()
}
DIFFERENTIABLE = [road for road in KERNELS.values() if not any(name in road for name in ("sample", "mode", "k_best"))]
roads = pytest.mark.parametrize("road", ROADS)
kernels = pytest.mark.parametrize("road", KERNELS.values())
differentiable = pytest.mark.parametrize("road", DIFFERENTIABLE)


def case(road: str) -> Case:
    *parts, device = ROADS[road]
    model, given = case_of(tuple(parts))
    return Case(model.to(device), tuple(each.to(device) for each in given))


def seeded(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    torch.manual_seed(0)
    return function(*given)


def plainly(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    with rg.plain_road():
        return seeded(function, *given)


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


WITHOUT_GRADIENTS = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "frozen": nullcontext}


def test_every_road_has_a_name_of_its_own():
    names = [f"{title(key)}, {key[-1]}" for key in known_roads()]
    print(*sorted(names), sep="\n")
    assert len(names) == len(set(names)) >= 50
    assert {road.name for road in known_roads().values()} >= {"additive.cpu", "chain.events_cpu", "tree.events_cpu"}


@roads
def test_it_is_taken_and_the_plain_road_is_not(road: str):
    model, given = case(road)
    name = known_roads()[ROADS[road]].name
    model = frozen(model)
    assert name in [choice.road for choice in rg.road(model, *given)]
    with rg.plain_road():
        assert {choice.road for choice in rg.road(model, *given)} == {None}


@roads
def test_without_gradients_it_equals_the_plain_road(road: str):
    model, given = case(road)
    model = frozen(model)
    for mode in WITHOUT_GRADIENTS.values():
        with mode():
            assert_close(seeded(model, *given), plainly(model, *given), rtol=1e-4, atol=1e-5)


@kernels
def test_without_gradients_it_is_compiled(road: str):
    torch._dynamo.reset()
    model, given = case(road)
    model = frozen(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    wanted = plainly(model, *given)
    for mode in WITHOUT_GRADIENTS.values():
        with mode():
            assert_close(seeded(compiled, *given), wanted, rtol=1e-4, atol=1e-5)


@differentiable
def test_with_gradients_it_is_compiled(road: str):
    torch._dynamo.reset()
    model, given = case(road)
    leaves = [each.requires_grad_() for each in given]
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(*leaves)
    grads = torch.autograd.grad(out.square().sum(), leaves)
    with rg.plain_road():
        wanted = torch.autograd.grad(model(*leaves).square().sum(), leaves)
    assert_close(grads, wanted, rtol=1e-4, atol=1e-4)


@kernels
def test_it_is_exported_as_the_plain_road(road: str):
    """But where that is a gradient."""
    model, given = case(road)
    program = torch.export.export(frozen(model), given)
    assert ("regard" in str(program.graph)) == known_roads()[ROADS[road]].exports
    assert_close(seeded(program.module(), *given), plainly(model, *given), rtol=1e-4, atol=1e-5)


@differentiable
def test_transforms(road: str):
    model, (first, *others) = case(road)
    model = frozen(model)
    total = lambda first: model(first, *others).square().sum()  # noqa: E731
    grad = torch.func.grad(total)(first)
    leaf = first.clone().requires_grad_()
    assert_close(grad, torch.autograd.grad(total(leaf), leaf)[0], rtol=1e-3, atol=1e-4)
    along = torch.randn_like(first)
    assert_close(torch.func.jvp(total, (first,), (along,))[1], (grad * along).sum(), rtol=1e-3, atol=1e-3)
    batch = torch.stack((first, 0.5 * first))
    found = torch.func.vmap(lambda each: model(each, *others))(batch)
    assert_close(found, torch.stack([model(each, *others) for each in batch]), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, from its fused attention
@differentiable
def test_many_gradients_at_once(road: str):
    model, (first, *others) = case(road)
    leaf = first.requires_grad_()
    out = model(leaf, *others)
    gradient = lambda way: torch.autograd.grad(out, leaf, way, retain_graph=True)[0]  # noqa: E731
    ways = torch.randn(2, *out.shape).to(out)
    wanted = torch.stack([gradient(way) for way in ways])
    assert_close(torch.func.vmap(gradient)(ways), wanted, rtol=1e-3, atol=1e-4)
    found = torch.autograd.grad(out, leaf, ways, is_grads_batched=True)[0]
    assert_close(found, wanted, rtol=1e-3, atol=1e-4)


class TestCompiledTransforms:
    """The transforms of torch.func within torch.compile take the plain road too."""

    scores = torch.linspace(-2, 2, 600).view(2, 300)

    def total(self, scores: Tensor) -> Tensor:
        return rg.entmax_weights(scores, 1.5).cos().sum()

    def compiled(self, function: Callable[..., Any]) -> Any:
        torch._dynamo.reset()
        return torch.compile(function, fullgraph=True, backend="aot_eager")(self.scores)

    def test_grad(self):
        assert_close(self.compiled(torch.func.grad(self.total)), torch.func.grad(self.total)(self.scores))

    def test_vmap(self):
        assert_close(
            self.compiled(torch.func.vmap(rg.sparsemax_weights)), torch.func.vmap(rg.sparsemax_weights)(self.scores)
        )

    def test_jvp(self):
        along = partial(torch.func.jvp, self.total, tangents=(torch.ones(2, 300),))
        assert_close(self.compiled(lambda scores: along((scores,)))[1], along((self.scores,))[1])


def test_a_road_without_its_gradient_is_noticed():
    """The plain measure of the laws is not the road itself."""
    scores = torch.randn(2, 300)
    assert rg.road(rg.sparsemax_weights, scores)[0].road == "sparse.cpu"
    plain_answers(rg.sparsemax_weights, scores)
    with rg.plain_road():
        assert rg.road(rg.sparsemax_weights, scores)[0].road is None
