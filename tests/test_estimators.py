"""What the estimators are beyond their law: shapes, detachment, errors, and statistics that are saved."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import regard as rg


def test_the_value_is_zero_so_that_the_loss_is_the_cost():
    log_prob, cost = torch.randn(5, 3, requires_grad=True), torch.rand(5)
    assert (rg.reinforce(log_prob, cost) == 0).all()
    assert (rg.leave_one_out(log_prob, cost) == 0).all()


def test_the_log_probability_is_summed_over_what_the_cost_lacks():
    log_prob, cost = torch.randn(5, 3, 2, requires_grad=True), torch.rand(5)
    surrogate = rg.reinforce(log_prob, cost, baseline=0.5)
    assert surrogate.shape == (5,)
    (gradient,) = torch.autograd.grad(surrogate.sum(), log_prob)
    assert_close(gradient, (cost - 0.5).view(5, 1, 1).expand(5, 3, 2))


def test_a_baseline_may_differ_from_step_to_step():
    log_prob, cost, baseline = torch.randn(5, 3, requires_grad=True), torch.rand(5), torch.rand(5, 3)
    (gradient,) = torch.autograd.grad(rg.reinforce(log_prob, cost, baseline).sum(), log_prob)
    assert_close(gradient, cost.unsqueeze(-1) - baseline)


def test_no_gradient_reaches_the_cost_or_the_baseline():
    log_prob = torch.randn(5, requires_grad=True)
    cost, baseline = torch.rand(5, requires_grad=True), torch.rand(5, requires_grad=True)
    surrogate = rg.reinforce(log_prob, cost, baseline).sum()
    assert torch.autograd.grad(surrogate, (cost, baseline), allow_unused=True) == (None, None)


def test_leave_one_out_takes_the_mean_of_the_others():
    log_prob, cost = torch.randn(4, 2, 3, requires_grad=True), torch.rand(4, 2)
    (gradient,) = torch.autograd.grad(rg.leave_one_out(log_prob, cost).sum(), log_prob)
    others = torch.stack([cost[[i for i in range(4) if i != s]].mean(0) for s in range(4)])
    assert_close(gradient, (cost - others).unsqueeze(-1).expand(4, 2, 3))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rg.reinforce(torch.ones(5, 3), torch.ones(3)),
            r"cost expected a shape that is a prefix.*\(5, 3\), but got \(3,\)",
        ),
        (
            lambda: rg.reinforce(torch.ones(5), torch.ones(5, 1)),
            r"cost expected a shape that is a prefix.*\(5,\), but got \(5, 1\)",
        ),
        (
            lambda: rg.reinforce(torch.ones(5, 3), torch.ones(5), torch.ones(3)),
            r"baseline expected a shape.*but got \(3,\)",
        ),
        (
            lambda: rg.leave_one_out(torch.ones(1, 3), torch.ones(1, 3)),
            "at least 2 draws in the first dimension of cost, but got 1",
        ),
        (
            lambda: rg.leave_one_out(torch.ones(3), torch.tensor(1.0)),
            "at least 2 draws in the first dimension of cost, but got 0",
        ),
        (lambda: rg.MovingAverage(1.0), "momentum of at least 0 and below 1, but got 1.0"),
        (lambda: rg.relaxed(0.0), "relaxed expected a temperature above zero, but got 0.0"),
        (lambda: rg.to_go(torch.ones(3), 1.5), "discount expected a number from 0 to 1, but got 1.5"),
        (lambda: rg.to_go(torch.tensor(1.0)), "whose last dimension are the steps, but got a single number"),
        (
            lambda: rg.actor_critic(torch.ones(5, 3), torch.ones(5, 3), torch.ones(5, 3), trace=-0.1),
            "trace expected a number from 0 to 1, but got -0.1",
        ),
        (
            lambda: rg.actor_critic(torch.ones(5, 3), torch.ones(5, 2), torch.ones(5, 3)),
            r"cost expected the shape of the log-probability, \(5, 3\), with or without .*, but got \(5, 2\)",
        ),
        (
            lambda: rg.actor_critic(torch.ones(5, 3), torch.ones(4), torch.ones(5, 3)),
            r"cost expected a shape that is a prefix.*\(5, 3\), but got \(4,\)",
        ),
        (
            lambda: rg.actor_critic(torch.ones(5, 3), torch.ones(5), torch.ones(5)),
            r"value expected the shape of the log-probability, \(5, 3\), but got \(5,\)",
        ),
        (
            lambda: rg.rebar(rg.OneHot(weights=torch.ones(1, 1)), lambda places: places.sum(-1), temperature=0.0),
            "temperature expected a number above zero, but got 0.0",
        ),
        (
            lambda: rg.variational(torch.ones(3), *[rg.OneHot(weights=torch.ones(2, 1))] * 2),
            r"cost expected a shape that is a prefix.*\(2,\), but got \(3,\)",
        ),
    ],
)
def test_errors(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_enumeration_of_locations_is_refused():
    with pytest.raises(TypeError, match="expected events that can be enumerated, not Coordinate"):
        rg.enumerate_exactly(rg.Coordinate(torch.zeros(2), 0.1), lambda z: z.sum(-1))


@pytest.mark.unchecked
def test_relax_of_anything_but_places_is_refused():
    with pytest.raises(TypeError, match="positions expected a OneHot, at most one place a query, not Independent"):
        rg.rebar(rg.sigmoid(torch.zeros(1, 3)), lambda places: places.sum(-1))


def test_what_is_to_go():
    cost = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 8.0]])
    assert_close(rg.to_go(cost), torch.tensor([[6.0, 5.0, 3.0], [8.0, 8.0, 8.0]]))
    assert_close(rg.to_go(cost, 0.5)[1], torch.tensor([2.0, 4.0, 8.0]))
    assert_close(rg.to_go(cost, 0.0), cost)
    assert rg.to_go(torch.ones(2, 0)).shape == (2, 0)


def test_no_gradient_reaches_the_cost_or_the_critic():
    log_prob = torch.randn(5, 3, requires_grad=True)
    cost, value = torch.rand(5, 3, requires_grad=True), torch.rand(5, 3, requires_grad=True)
    surrogate = rg.actor_critic(log_prob, cost, value, 0.9, 0.8)
    assert (surrogate == 0).all()
    assert torch.autograd.grad(surrogate.sum(), (cost, value), allow_unused=True) == (None, None)


class TestRelax:
    """What reaches what, for the estimators with a control variate."""

    def test_the_cost_s_own_parameters_get_the_gradient_of_the_draw_alone(self):
        torch.manual_seed(0)
        prices = torch.randn(4, requires_grad=True)
        positions = rg.OneHot(scores=torch.randn(6, 1, 4, requires_grad=True))
        costs = rg.rebar(positions, lambda places: (places @ prices).square())
        drawn = (costs[:, :, None].sqrt() - prices.abs()).abs().argmin(-1)  # which price was paid
        (gradient,) = torch.autograd.grad(costs.sum(), prices)
        assert_close(gradient, 2 * prices.detach() * drawn.flatten().bincount(minlength=4), rtol=1e-4, atol=1e-4)

    def test_the_control_gets_no_gradient_but_that_of_the_variance(self):
        control, scores = nn.Linear(4, 1), torch.randn(6, 1, 4, requires_grad=True)
        estimate = rg.relax(
            rg.OneHot(scores=scores), lambda places: places[..., 0], lambda places: control(places).squeeze(-1)
        )
        (gradient,) = torch.autograd.grad(estimate.sum(), scores, create_graph=True)
        direct = torch.autograd.grad(estimate.sum(), control.weight, retain_graph=True)[0]
        assert (direct == 0).all()
        variance = torch.autograd.grad(gradient.square().sum(), control.weight)[0]
        assert (variance != 0).any()

    def test_a_fitted_control_lowers_the_variance(self):
        torch.manual_seed(0)
        prices, scores = torch.tensor([0.0, 3.0, -1.0]), torch.tensor([0.5, 0.0, -0.5])
        control = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        fit = torch.optim.Adam(control.parameters(), 0.02)

        def gradients(count: int) -> torch.Tensor:
            leaf = scores.expand(count, 1, 3).clone().requires_grad_()
            estimate = rg.relax(
                rg.OneHot(scores=leaf), lambda places: (places @ prices).square(), lambda p: control(p).squeeze(-1)
            )
            return torch.autograd.grad(estimate.sum(), leaf, create_graph=True)[0].flatten(1)

        before = gradients(4000).detach()
        for _ in range(200):
            fit.zero_grad()
            gradients(200).square().sum(-1).mean().backward(inputs=list(control.parameters()))
            fit.step()
        after = gradients(4000).detach()
        assert after.var(0).sum() < 0.5 * before.var(0).sum()
        assert_close(after.mean(0), before.mean(0), rtol=0, atol=0.3)

    @pytest.mark.parametrize("scores", [[[-float("inf")] * 3], [[0.5, -float("inf"), 0.1]], [[1e4, 0.0, -1e4]]])
    def test_finite_where_places_are_impossible(self, scores: list):
        leaf = torch.tensor([scores]).requires_grad_()
        costs = rg.rebar(rg.OneHot(scores=leaf), lambda places: (places @ torch.tensor([1.0, 2.0, 4.0])).square())
        costs.sum().backward()
        assert costs.isfinite().all() and leaf.grad.isfinite().all()

    def test_places_by_weights(self):
        weights = torch.tensor([[[0.2, 0.5, 0.0]]]).requires_grad_()  # nowhere has 0.3
        costs = rg.rebar(rg.OneHot(weights=weights.expand(64, 1, 3)), lambda places: places.sum(-1))
        costs.sum().backward()
        assert set(costs.detach().flatten().tolist()) == {0.0, 1.0}
        assert weights.grad.isfinite().all()


def test_a_moving_average_does_not_contain_the_cost_at_hand():
    average = rg.MovingAverage(0.9)
    seen = [average(torch.tensor([cost, cost])) for cost in (2.0, 4.0, 100.0)]
    assert_close(torch.stack(seen)[:, 0], torch.tensor([0.0, 2.0, (0.9 * 2 + 4) / 1.9]))


def test_a_moving_average_moves_in_training_alone_and_is_saved():
    average, other = rg.MovingAverage(0.5), rg.MovingAverage(0.5)
    average(torch.tensor([3.0]))
    average.eval()
    average(torch.tensor([1000.0]))
    other.load_state_dict(average.state_dict())
    assert other(torch.tensor([0.0])) == 3.0


def test_a_learned_baseline_trains_nothing_but_itself_and_lowers_the_variance():
    features = torch.randn(512, 3, requires_grad=True)
    cost = features.detach() @ torch.tensor([1.0, -2.0, 0.5])
    baseline = rg.Learned(3, 16)
    optimiser = torch.optim.Adam(baseline.parameters(), 0.01)
    for _ in range(300):
        optimiser.zero_grad()
        (baseline(features) - cost).square().mean().backward()
        optimiser.step()
    assert features.grad is None
    assert (cost - baseline(features)).var() < 0.05 * cost.var()


def test_a_self_critical_baseline_is_the_cost_of_the_greedy_choice():
    scores = nn.Parameter(torch.tensor([[0.0, 2.0, 1.0]]))
    prices = torch.tensor([[5.0], [7.0], [9.0]])

    def greedy() -> torch.Tensor:
        return rg.mode(rg.softmax(scores), prices)[0].squeeze(-1)

    baseline = rg.SelfCritical(greedy)()
    assert baseline.item() == 7.0 and not baseline.requires_grad


@pytest.mark.parametrize(
    "estimate", [lambda log_prob, cost: rg.reinforce(log_prob, cost, cost.mean()), rg.leave_one_out]
)
def test_hard_attention_learns_where_the_prize_is(estimate):
    """One more line in the loss, and the policy finds the one key out of eight under which the prize lies."""
    torch.manual_seed(0)
    keys, prize = torch.randn(8, 4), 5
    policy = nn.Linear(1, 4)
    optimiser = torch.optim.Adam(policy.parameters(), 0.1)
    for _ in range(200):
        query = policy(torch.ones(64, 1, 1))
        out = rg.attend(query, keys.expand(64, 8, 4), keys.expand(64, 8, 4), read=rg.hard)
        cost = (out.z.squeeze(-1) != prize).float()
        loss = (cost + estimate(out.log_prob.squeeze(-1), cost)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert cost.mean() < 0.1


INTEGERS = torch.tensor([1, 0, 1, 0])


@pytest.mark.parametrize("cost", [INTEGERS > 0, INTEGERS, INTEGERS.to(torch.uint8)], ids=["bool", "int64", "uint8"])
def test_costs_that_are_no_floating_point_numbers(cost: torch.Tensor):
    """`guess != label` is a cost: all that takes one takes it as the numbers zero and one."""
    real, value = INTEGERS.double(), torch.tensor([0.2, 0.4, 0.1, 0.9], dtype=torch.float64)
    estimates = {
        "reinforce": lambda log_prob, cost: rg.reinforce(log_prob, cost, 0.25),
        "leave_one_out": rg.leave_one_out,
        "actor_critic": lambda log_prob, cost: rg.actor_critic(log_prob, cost, value),
        "moving average": lambda log_prob, cost: rg.reinforce(log_prob, cost, rg.MovingAverage()),
        "constant": lambda log_prob, cost: rg.reinforce(log_prob, cost, rg.Constant(0.25)),
    }
    for name, estimate in estimates.items():
        leaf = torch.randn(4, dtype=torch.float64, requires_grad=True)
        found, wanted = (torch.autograd.grad(estimate(leaf, each).sum(), leaf)[0] for each in (cost, real))
        assert found.dtype == torch.float64 and (found == wanted).all(), name
    assert_close(rg.to_go(cost), rg.to_go(real.float()))
    average = rg.MovingAverage(0.5)
    assert [average(cost).unique().item() for _ in range(2)] == [0.0, 0.5]


def test_a_baseline_may_be_a_function_of_the_cost():
    """As the README writes it: the average of the costs before, asked once for each cost."""
    log_prob, average, other = torch.randn(3, requires_grad=True), rg.MovingAverage(), rg.MovingAverage()
    for cost in (torch.rand(3), torch.rand(3)):
        (found,) = torch.autograd.grad(rg.reinforce(log_prob, cost, average).sum(), log_prob)
        (wanted,) = torch.autograd.grad(rg.reinforce(log_prob, cost, other(cost)).sum(), log_prob)
        assert (found == wanted).all()
    assert average.total == other.total and found.abs().sum() > 0


def test_single_numbers():
    log_prob = torch.tensor(-1.0, requires_grad=True)
    rg.reinforce(log_prob, torch.tensor(3.0), baseline=torch.tensor(1.0)).backward()
    assert log_prob.grad == 2.0
    (gradient,) = torch.autograd.grad(rg.reinforce(log_prob, torch.tensor(True), rg.Constant(0.25)), log_prob)
    assert gradient == 0.75
    many = torch.randn(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(rg.reinforce(many, torch.tensor(2)), many)
    assert_close(gradient, torch.full((4,), 2.0))
    (gradient,) = torch.autograd.grad(rg.leave_one_out(many, many.detach() > 0).sum(), many)
    assert gradient.shape == (4,)


class TestSignalToNoise:
    def test_of_numbers_that_can_be_checked_by_hand(self):
        assert rg.signal_to_noise(torch.tensor([3.0, 5.0])) == 4.0  # mean 4, variance 2 by two estimates
        rows = torch.tensor([[3.0, 0.0], [5.0, 4.0]])  # mean (4, 2), variances 2 and 8
        assert_close(rg.signal_to_noise(rows), torch.tensor((20 / 5) ** 0.5))

    def test_it_does_not_depend_on_the_scale_or_the_shape_of_the_parameters(self):
        rows = torch.randn(6, 12, dtype=torch.float64) + 0.3
        ratio = rg.signal_to_noise(rows)
        assert_close(rg.signal_to_noise(1e3 * rows.view(6, 3, 4)), ratio)

    def test_it_is_one_on_average_where_there_is_no_signal_and_grows_with_the_root_of_the_estimates(self):
        noise = torch.randn(200, 50, 10)
        square = torch.stack([rg.signal_to_noise(each) ** 2 for each in noise]).mean()
        assert_close(square, torch.tensor(1.0), atol=0.1, rtol=0)
        few, many = (rg.signal_to_noise(torch.randn(count, 10) + 5) for count in (100, 10_000))
        assert_close(many / few, torch.tensor(10.0), rtol=0.2, atol=0)

    def test_without_noise_or_without_anything(self):
        assert rg.signal_to_noise(torch.ones(3, 2)) == float("inf")
        assert rg.signal_to_noise(torch.zeros(3, 2)) == 0
        assert rg.signal_to_noise(torch.full((3, 2), float("nan"))).isnan()

    @pytest.mark.unchecked
    @pytest.mark.parametrize("shape", [(1, 4), ()])
    def test_one_estimate_has_no_noise_to_know_of(self, shape: tuple[int, ...]):
        with pytest.raises(ValueError, match="at least 2 estimates in the first dimension, but got"):
            rg.signal_to_noise(torch.ones(shape))
