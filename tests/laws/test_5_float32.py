"""Law 5 for the sums over structures in float32, also of long sequences: on every road, by the kernel or the plain one,
under torch.func, and where gradients are differentiated again, they are as exact as float32 is."""

from collections.abc import Callable

import pytest
import torch
from roads import plain_answers
from torch import Tensor

import regard as rg
from regard.positions.algorithms import recurrence

EPS = torch.finfo(torch.float32).eps
STRUCTURE = 4
LINKS = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
FAMILIES: dict[
    str, tuple[Callable[[Tensor], rg.Positions], Callable[[int], tuple[int, ...]], tuple[int, ...], float]
] = {
    "chain": (lambda x: rg.chain(LINKS.to(x))(x), lambda n: (n, 6), (20, 200, 500), STRUCTURE),
    "chain of few labels": (lambda x: rg.chain(LINKS[:3, :3].to(x))(x), lambda n: (n, 3), (20, 200, 500), STRUCTURE),
    "segments": (lambda x: rg.segments(1.5)(x), lambda n: (1, n), (20, 200, 500), STRUCTURE),
    "semi_markov": (
        lambda x: rg.semi_markov(3, LINKS[:3, :3].to(x), LINKS[3:, :3].to(x))(x),
        lambda n: (n, 3),
        (20, 100),
        STRUCTURE,
    ),
    "ctc": (lambda x: rg.ctc([1, 2, 2, 3, 1])(x), lambda n: (n, 4), (20, 100), STRUCTURE),
    "tree": (lambda x: rg.tree()(x), lambda n: (n, n), (20, 40), STRUCTURE),
    "constituency": (lambda x: rg.constituency()(x), lambda n: (n, n), (20, 40), STRUCTURE),
    "tree, non-projective": (lambda x: rg.tree(projective=False)(x), lambda n: (n, n), (20, 40), STRUCTURE),
    "monotonic": (lambda x: rg.monotonic(bias=-2.0)(x), lambda n: (12, n), (20, 200, 500), 100),
    "monotonic(4)": (lambda x: rg.monotonic(4, bias=-2.0)(x), lambda n: (12, n), (20, 200, 500), 100),
    "monotonic(None)": (lambda x: rg.monotonic(None, bias=-2.0)(x), lambda n: (12, n), (20, 200, 500), 100),
    "subset": (lambda x: rg.subset(5)(x), lambda n: (2, n), (20, 200, 500), 50),
}
"""What makes positions of scores, their shape for a length, lengths, and how many roundings an answer may be away."""
ANSWERS = {
    "mean": lambda p: p.mean.square().sum(),
    "log_prob": lambda p: p.log_prob(p.mode).sum(),
    "entropy": lambda p: p.entropy().sum(),
}


def slope(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    scores = scores.detach().requires_grad_()
    return torch.autograd.grad(function(scores), scores)[0]


def plain_slope(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    return plain_answers(lambda scores: function(scores).view(1), scores)[1]


def curvature(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    scores = scores.detach().requires_grad_()
    (first,) = torch.autograd.grad(function(scores), scores, create_graph=True)
    return torch.autograd.grad(first.square().sum(), scores)[0]


def observed_slope(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    with torch.autograd.detect_anomaly(check_nan=False):
        return slope(function, scores)


def slopes_of_rows(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(function))(scores.expand(2, *scores.shape))[1]


def slope_along(function: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    along = slope(function, scores.double()).sign().to(scores)  # so that nothing cancels
    return torch.func.jvp(function, (scores,), (along,))[1]


ROADS = {
    "kernel": slope,
    "plain": plain_slope,
    "torch.func.grad": lambda function, scores: torch.func.grad(function)(scores),
    "create_graph": curvature,
}
MORE_ROADS = {"anomalies": observed_slope, "vmap": slopes_of_rows, "jvp": slope_along}


def scores(family: str, length: int) -> Tensor:
    return 3 * torch.randn(FAMILIES[family][1](length))


def check_float32(family: str, length: int, road: Callable[..., Tensor], answer: str) -> None:
    """The law: values and gradients in float32 are near those of the same numbers in float64."""
    make, _, _, roundings = FAMILIES[family]
    function = lambda scores: ANSWERS[answer](make(scores))  # noqa: E731
    given = scores(family, length)
    found = function(given), road(function, given)
    exact = function(given.double()), road(function, given.double())
    check_near(found, exact, roundings)


def check_near(found: tuple[Tensor, ...], exact: tuple[Tensor, ...], roundings: float) -> None:
    for each, truth in zip(found, exact, strict=True):
        assert each.dtype == torch.float32
        assert (each - truth).abs().max() <= roundings * EPS * truth.abs().max()


CASES = [(family, length) for family, each in FAMILIES.items() for length in each[2]]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(("family", "length"), CASES)
def test_every_road(family: str, length: int, road: str):
    for answer in ANSWERS if length == 20 and road in ("kernel", "plain") else ("mean",):
        check_float32(family, length, ROADS[road], answer)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:There is a performance drop")
@pytest.mark.parametrize("road", MORE_ROADS)
@pytest.mark.parametrize("family", ["chain of few labels", "segments", "monotonic", "subset"])
def test_transforms_of_short_sequences(family: str, road: str):
    check_float32(family, 20, MORE_ROADS[road], "mean")


LOSING = [each for each in CASES if FAMILIES[each[0]][3] == STRUCTURE and (each[1] == 20 or each[0] == "chain")]


class TestMutants:
    """Law 8: a recursion that loses float32 must fail the law, at every length."""

    @pytest.mark.parametrize(("family", "length"), LOSING)
    def test_sums_in_float32(self, family: str, length: int, monkeypatch: pytest.MonkeyPatch):
        function, given = lambda scores: ANSWERS["mean"](FAMILIES[family][0](scores)), scores(family, length)
        exact = torch.func.grad(function)(given.double())
        check_near((torch.func.grad(function)(given),), (exact,), STRUCTURE)
        monkeypatch.setattr(Tensor, "double", lambda self: self)
        found = torch.func.grad(function)(given)
        with pytest.raises(AssertionError):
            check_near((found,), (exact,), STRUCTURE)

    @pytest.mark.parametrize("length", [200, 500])
    def test_a_recurrence_by_division(self, length: int, monkeypatch: pytest.MonkeyPatch):
        """The closed form of Raffel et al. (2017), by a cumulative product that vanishes."""

        def divided(decay: Tensor, inflow: Tensor) -> Tensor:
            product = decay.clone()
            product = torch.cat((torch.ones_like(product[..., :1]), product[..., 1:]), -1).cumprod(-1)
            return product * (inflow / product.clamp(min=1e-10)).cumsum(-1)

        family = "monotonic"
        make, _, _, roundings = FAMILIES[family]
        function, given = lambda scores: ANSWERS["mean"](make(scores)), scores(family, length)
        exact = torch.func.grad(function)(given.double())
        monkeypatch.setattr(recurrence, "recurrence", divided)
        found = torch.func.grad(function)(given)
        with pytest.raises(AssertionError):
            check_near((found,), (exact,), roundings)
