"""What can go wrong with hard attention: rewards that say nothing, locations at the edge, a kill in a save."""

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import ENVIRONMENT, contents
from torch import Tensor

import regard as rg
from regard.app.data import Splits
from regard.app.training.checkpoints import read_checkpoint
from regard.app.training.errors import Failure
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes import glimpse

SMALL = glimpse.Config(
    canvas=28, clutter=0, size=8, scales=1, glimpses=2, hidden=16, draws=2, epochs=2, batch=3000, jitter=0.5
)
QUIET = Fit(accelerator="cpu", progress="none", threads=1)


def policy_gradient(estimate, cost: Tensor) -> Tensor:
    """Of the centre, from four draws of three locations."""
    torch.manual_seed(0)
    centre = torch.zeros(3, 2, requires_grad=True)
    positions = rg.Coordinate(centre, 0.1)
    estimate(positions.log_prob(positions.sample((4,))), cost).mean().backward()
    assert centre.grad is not None
    return centre.grad


class TestRewards:
    @pytest.mark.parametrize("cost", [0.0, 1.0, -3.5])
    def test_a_constant_one_teaches_nothing_where_it_is_expected(self, cost: float):
        costs = torch.full((4, 3), cost)
        average = rg.MovingAverage()
        average(costs)
        for estimate in (rg.leave_one_out, lambda log_prob, cost: rg.reinforce(log_prob, cost, average.eval()(cost))):
            assert policy_gradient(estimate, costs).abs().max() < 1e-5
        assert policy_gradient(rg.reinforce, costs).isfinite().all()

    def test_one_that_is_not_a_number_is_seen_in_the_loss(self):
        log_prob, cost = torch.zeros(2, 3, requires_grad=True), torch.tensor([[0.0, math.nan, 1.0], [1.0, 0.0, 1.0]])
        for surrogate in (
            rg.reinforce(log_prob, cost),
            rg.leave_one_out(log_prob, cost),
            rg.actor_critic(log_prob, cost, cost),
        ):
            assert surrogate.isnan().any(), "a surrogate of zero would hide it"

    def test_one_that_is_not_a_number_stops_training(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        cross_entropy = glimpse._cross_entropy

        def poisoned(logits: Tensor, labels: Tensor) -> Tensor:
            costs = cross_entropy(logits, labels)
            return costs + torch.where(torch.arange(len(labels)) == 5, math.nan, 0.0)[:, None]

        monkeypatch.setattr(glimpse, "_cross_entropy", poisoned)
        with pytest.raises(Failure, match=r"the loss became nan at step 1 of 6 .*no checkpoint had been saved yet"):
            train(glimpse, SMALL, tmp_path, QUIET)


def test_one_path_has_no_others_to_be_compared_with():
    with pytest.raises(ValueError, match="leave_one_out expected at least 2 draws in the first dimension of cost"):
        rg.leave_one_out(torch.zeros(1, 3), torch.zeros(1, 3))


class Noise:
    """Images of one size, of two classes that look alike."""

    def __init__(self, height: int, width: int):
        self.images = torch.rand(20, 3, height, width, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"image": self.images[indices], "label": indices % 2}


@pytest.mark.parametrize("kind", ["hard", "soft", "random", "fixed"])
@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 1), (12, 7)])
def test_images_smaller_than_the_glimpse(kind: str, height: int, width: int):
    split = Noise(height, width)
    splits = Splits(split, split, split, "noise", ("even", "odd"), (3, height, width))
    config = replace(SMALL, attention=kind, size=12, scales=3)
    torch.manual_seed(0)
    model = glimpse.Model(config, splits)
    optimizer, _ = glimpse.optimiser(model, config, 10)
    batch = split.batch(torch.arange(20))
    for _ in range(3):
        optimizer.zero_grad()
        total, _ = glimpse.loss(model, batch)
        total.backward()
        optimizer.step()
        assert total.isfinite()
    assert all(weights.isfinite().all() for weights in model.parameters())
    with torch.no_grad():
        assert all(value.isfinite().all() for value in glimpse.evaluate(model.eval(), batch).values())


@pytest.mark.parametrize("corner", [(-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (40.0, -40.0)])
def test_a_location_at_the_very_edge(corner: tuple[float, float]):
    """It is drawn inside, read, and has a finite log-probability and gradient, wherever the centre lies."""
    centre = torch.tensor([corner] * 64).requires_grad_()
    sensor = rg.Glimpses(torch.rand(64, 1, 28, 28), 8, 2)
    for read in (rg.sample, rg.mode):
        seen = rg.look(centre, lambda centre: rg.Coordinate(centre, 0.1), sensor, read)
        assert seen.z.abs().max() <= 1
        assert seen.log_prob.isfinite().all() and seen.context.isfinite().all()
        (gradient,) = torch.autograd.grad(rg.reinforce(seen.log_prob, torch.rand(64)).sum(), centre)
        assert gradient.isfinite().all()


def test_kill_9_in_a_save_goes_on_from_the_last_good_checkpoint_to_the_last_bit(tmp_path: Path):
    """With all that hard attention keeps: the weights of the learned baseline, the width of the draws."""
    program = f"""if True:
        import os, signal
        from test_faults_hard import QUIET, SMALL, glimpse, train
        replace = os.replace
        def die(draft, path):
            if path.name == "last.ckpt" and path.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            replace(draft, path)
        os.replace = die
        train(glimpse, SMALL, {str(tmp_path / "killed")!r}, QUIET)
    """
    killed = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    saved = read_checkpoint(tmp_path / "killed" / "last.ckpt")
    width = saved["model"]["model.attention.policy.width"].item()
    assert saved["step"] == 3 and SMALL.final_width < width < SMALL.width
    for name in ("killed", "whole"):
        train(glimpse, SMALL, tmp_path / name, QUIET)
    ends = [contents(tmp_path / name) for name in ("killed", "whole")]
    assert ends[0] == ends[1]
    assert any("baseline.network.0.weight" in name for name in ends[0])
