"""A GRU by our loops, against torch's: states, gradients, and where the loops are not taken."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from regard.app.text import recurrent
from regard.app.text.recurrent import GRU


def both(size: int = 5, hidden: int = 8) -> tuple[GRU, nn.GRU]:
    mine, torchs = GRU(size, hidden, batch_first=True), nn.GRU(size, hidden, batch_first=True)
    mine.load_state_dict(torchs.state_dict())
    return mine, torchs


def learned(layer: nn.GRU, words: torch.Tensor) -> list[torch.Tensor]:
    """States, the last one, and all gradients of something of both."""
    words = words.clone().requires_grad_()
    states, last = layer(words)
    loss = (states * torch.linspace(-1, 1, states.numel()).view(states.shape)).sum() + last.square().sum()
    return [states, last, *torch.autograd.grad(loss, [words, *layer.parameters()])]


@pytest.mark.parametrize(("examples", "steps", "hidden"), [(1, 1, 4), (3, 7, 8), (33, 40, 20)])
def test_states_and_gradients_are_those_of_torch(examples: int, steps: int, hidden: int):
    mine, torchs = both(hidden=hidden)
    words = 2 * torch.randn(examples, steps, 5)
    for one, other in zip(learned(mine, words), learned(torchs, words), strict=True):
        assert_close(one, other, rtol=1e-4, atol=2e-5)


def test_the_loops_are_what_is_compared(monkeypatch: pytest.MonkeyPatch):
    mine, torchs = both()
    words = torch.randn(2, 3, 5)
    monkeypatch.setattr(recurrent._Steps, "apply", lambda given, *_: given[:, :8] * 0)
    assert not torch.allclose(mine(words)[0], torchs(words)[0])


@pytest.mark.parametrize(
    "words", [torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 0, 5)], ids=["wide", "none"]
)
def test_other_numbers_take_the_way_of_torch(words: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recurrent._Steps, "apply", lambda *_: pytest.fail("the loops were taken"))
    mine, torchs = (layer.to(words.dtype) for layer in both())
    if words.shape[1]:
        assert torch.equal(mine(words)[0], torchs(words)[0])
    else:
        assert not mine._looped(words)


def test_an_odd_number_of_units_and_low_precision_take_the_way_of_torch():
    mine, torchs = both(hidden=7)
    words = torch.randn(2, 3, 5)
    assert torch.equal(mine(words)[0], torchs(words)[0])
    mine, _ = both()
    with torch.autocast("cpu", torch.bfloat16):
        assert not mine._looped(words)


def test_extreme_gates_and_nan():
    mine, torchs = both()
    words = torch.randn(2, 6, 5) * 1e4
    assert_close(mine(words)[0], torchs(words)[0], rtol=1e-4, atol=1e-5)
    words[0, 2, 0] = torch.nan
    states, wanted = mine(words)[0], torchs(words)[0]
    assert torch.equal(states.isnan(), wanted.isnan()) and states[0, 2:].isnan().all() and states[1].isfinite().all()
