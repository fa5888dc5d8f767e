"""Laws of `regard.app.training.schedules`."""

import pytest
import torch

from regard.app.training.schedules import warmup_cosine


def rates(steps: int, warmup: int) -> list[float]:
    """The rate of every step, and the one after the last."""
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = warmup_cosine(adam, steps, warmup)
    found = []
    for _ in range(steps + 1):
        found.append(adam.param_groups[0]["lr"])
        adam.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_rate_rises_to_the_highest_and_falls_to_zero(steps: int):
    found = rates(steps, warmup=steps // 10)
    assert max(found) == pytest.approx(0.3)
    assert steps == 1 or found[-1] == pytest.approx(0, abs=1e-9)


def test_it_is_even_upwards_and_half_way_down_half_as_high():
    found = rates(steps=50, warmup=10)
    assert found[:11] == pytest.approx([0.03 * n for n in range(1, 11)] + [0.3])
    assert found[30] == pytest.approx(0.15)
    assert found[11:] == sorted(found[11:], reverse=True)


def test_each_group_keeps_its_own_share():
    groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in (0.3, 0.1)]
    assert warmup_cosine(torch.optim.Adam(groups), steps=20, warmup=4).get_last_lr() == pytest.approx([0.075, 0.025])
