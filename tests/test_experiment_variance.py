"""The experiment variance, on a small model: what it says of estimators that are known to be right or wrong."""

import importlib
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import Tensor

import regard as rg

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SMALL = {"units": (1, 2, 4), "draws": (1, 2, 4), "steps": (1, 2, 4)}


@pytest.fixture(scope="module")
def variance() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        patch.setenv("KINETO_LOG_LEVEL", "99")
        module = importlib.import_module("variance")
        patch.setattr(importlib.import_module("gradients.model"), "STEPS", 60)
        for name, value in {"UNITS": 2, "BATCH": 4, "ELEMENTS": 2**14, "GROWING": SMALL}.items():
            patch.setattr(module, name, value)
        patch.setattr(module, "interleave", partial(module.interleave, round_ms=0))
        yield module


@pytest.fixture(scope="module")
def results(variance) -> dict:
    return variance.rounded(variance.measure(16))


@pytest.fixture
def scene(variance):
    split = variance.digits(canvas=28, clutter=0).valid
    network = variance.Network().double().requires_grad_(False)
    return variance.Scene(network, split, torch.arange(4), torch.arange(2))


def by_name(results: dict) -> dict[str, dict]:
    return {row["estimator"]: row for row in results["rows"]}


def test_the_exact_gradient_has_no_variance_and_no_bias(results):
    row = by_name(results)["enumerate_exactly"]
    assert row["variance"] == row["bias"] == row["bias_error"] == 0
    assert row["signal_to_noise"] is None
    assert row["cost_evaluations"] == 17**2, "all places and nowhere, of each unit"


def test_the_exact_gradient_is_that_of_all_events(variance, scene):
    scores = scene.scores.clone().requires_grad_()
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16)).unsqueeze(1).expand(-1, 4, -1)  # (256, B, N)
    positions = rg.softmax(scores)
    cost = scene.together(positions.gather(scene.values, pairs))
    (gradient,) = torch.autograd.grad((positions.log_prob(pairs).sum(-1).exp() * cost).sum(0).mean(), scores)
    found = variance.gradients(scene, partial(variance.exactly, scene), 1)
    torch.testing.assert_close(found[0], gradient.flatten(), rtol=1e-9, atol=1e-12)


def test_the_unbiased_are_within_their_error_and_the_biased_are_not(results):
    """The bias is the square root of what is compared: four standard errors of that are two of its."""
    rows = by_name(results)
    biased = {name for name, row in rows.items() if not row["unbiased"]}
    assert biased == {"straight_through", "relaxed(0.5)", "relaxed(1)", "actor_critic, trace 0.5"}
    for name in biased - {"relaxed(0.5)"}:
        assert rows[name]["bias"] > 2 * rows[name]["bias_error"], name
    assert rows["relaxed(0.5)"]["bias"] < rows["relaxed(1)"]["bias"]
    for name in rows.keys() - biased:
        assert rows[name]["bias"] <= 2 * rows[name]["bias_error"], name


def test_a_baseline_that_has_seen_the_draw_is_noticed(variance, scene):
    """Half of the cost as a baseline halves the gradient."""
    truth = variance.gradients(scene, partial(variance.exactly, scene), 1)
    loss = partial(variance.leave_one_out, scene, lambda context: scene.together(context) / 2, 4)
    missed, error = variance.squared_length(variance.moments(scene, loss, 16, 4).means - truth)
    assert missed > 4 * error
    assert math.sqrt(missed) == pytest.approx(truth.norm().item() / 2, rel=0.1)


def test_a_baseline_has_less_variance(results):
    rows = by_name(results)
    plain = rows["reinforce, no baseline"]
    for draws in (2, 4, 8):
        row = rows[f"leave_one_out, {draws} draws"]
        assert row["cost_evaluations"] == draws
        assert row["variance"] * draws < plain["variance"], "at the same number of evaluations"
        assert row["signal_to_noise_for_budget"] > plain["signal_to_noise_for_budget"]
    for name in ("Constant", "MovingAverage", "Learned", "SelfCritical"):
        assert rows[f"reinforce, {name}"]["variance"] < plain["variance"]


def test_evaluations_are_counted(results):
    counted = {name: row["cost_evaluations"] for name, row in by_name(results).items()}
    assert counted["reinforce, Learned"] == counted["relax(0.5)"] == counted["straight_through"] == 1
    assert counted["reinforce, SelfCritical"] == 2
    assert counted["rebar(0.5)"] == 5


def test_growth_with_draws_falls_as_it_must(results):
    rows = {row["case"]: row for row in results["growth"] if row["with"] == "draws"}
    for case in ("no baseline", "expected cost"):
        assert rows[case]["exponent"] == pytest.approx(-1, abs=0.1)
    assert rows["leave_one_out"]["values"] == [2, 4]
    at_two = rows["leave_one_out"]["variance"][0] / rows["expected cost"]["variance"][1]
    assert at_two == pytest.approx(2, abs=0.3), "S / (S - 1)"


def test_growth_holds_every_case(results):
    assert {row["with"] for row in results["growth"]} == set(SMALL)
    for row in results["growth"]:
        lengths = {len(row[name]) for name in ("values", "variance", "signal", "signal_error")}
        assert lengths == {len(row["values"])}
        assert all(map(math.isfinite, (row["exponent"], row["exponent_error"])))


def test_the_variance_is_that_of_the_cost_times_that_of_the_score(variance, scene):
    """E (cost - b)^2 times sum_n (1 - sum_k p_nk^2), as the docstring says."""
    weights = scene.scores.softmax(-1)
    expected = variance.exactly(scene, scene.scores.unsqueeze(0))
    with torch.no_grad():
        cost = scene.together(scene.draw(scene.scores.expand(5000, -1, -1, -1))[0])

    def predicted(off: Tensor) -> float:
        return (off.square().mean(0) * (1 - weights.square().sum(-1)).sum(-1)).sum().item() / 4**2

    for baseline, off in ((variance.nothing, cost), (expected.expand_as, cost - expected)):
        found = variance.moments(scene, partial(variance.reinforce, scene, scene.together, baseline), 8)
        assert found.variance == pytest.approx(predicted(off), rel=0.15)


def test_squared_length_has_no_bias(variance):
    noise = torch.randn(400, 100, dtype=torch.float64)
    for length in (0.0, 3.0):
        means = noise + torch.full((100,), length / 10)
        square, error = variance.squared_length(means)
        assert abs(square - length**2) < 4 * error
        assert error < 1
        assert means.mean(0).square().sum() > length**2 / 2 + square / 2, "the plain square is too long"


def test_exponent_is_that_of_a_power(variance):
    assert variance.exponent((1, 2, 4), (3, 12, 48)) == pytest.approx((2, 0), abs=1e-9)
    slope, error = variance.exponent((1, 2, 4), (1, 8, 16))
    assert (slope, error) == pytest.approx((2, 1 / math.sqrt(3)))


@pytest.mark.parametrize("flags", [["--json"], []])
def test_prints_and_writes(variance, results, monkeypatch, capsys, tmp_path: Path, flags):
    out, picture = tmp_path / "results" / "variance.json", tmp_path / "docs" / "variance.png"
    monkeypatch.setattr(variance, "measure", lambda rounds: results)
    monkeypatch.setenv("COLUMNS", "160")
    argv = ["variance.py", *flags, "--rounds", "3", "--out", str(out), "--figure", str(picture)]
    monkeypatch.setattr("sys.argv", argv)
    variance.main()
    printed = capsys.readouterr().out
    if flags:
        assert json.loads(printed) == results
    else:
        for words in ("leave_one_out, 8 draws", "SNR for 8", "one cost, no baseline", "1 to 4 units", "1 thread"):
            assert words in printed
    assert json.loads(out.read_text()) == results
    with Image.open(picture) as drawn:
        assert drawn.width > 900
    assert [*out.parent.iterdir(), *picture.parent.iterdir()] == [out, picture], "no draft is left"


def test_refuses_too_few_rounds(variance, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["variance.py", "--rounds", "2"])
    with pytest.raises(SystemExit):
        variance.main()
    assert "argument --rounds: expected at least 3, but got 2." in capsys.readouterr().err
