"""The networks of `translate`: what the recipe does not see of them."""

import pytest
import torch
from tiny_translate import batch, made
from torch import nn
from torch.testing import assert_close

from regard.app.text import networks as seq2seq
from regard.app.text.networks import Recurring


def test_the_gradient_of_recurring_weights_is_that_of_each_step():
    ours = Recurring(3, 2, bias=False).double()
    plain = nn.Linear(3, 2, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    added, start = torch.randn(2, 4, 5, 2, dtype=torch.float64).unbind(0)
    results = []
    for each in (ours, plain):
        given, last = added.clone().requires_grad_(), start[:, 0].clone().requires_grad_()
        words, carry = ours.begin(given) if each is ours else (given, plain)
        for word in words.unbind(1):
            last = (word + carry(torch.cat((last, last[:, :1].sin()), -1))).tanh()
        last.square().sum().backward()
        results.append((last, given.grad, each.weight.grad))
    for one, other in zip(*results, strict=True):
        assert_close(one, other)
    assert results[0][2].abs().sum() > 0


def test_recurring_weights_are_as_any_others_to_autocast():
    ours, given = Recurring(3, 2, bias=False), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        added, carry = ours.begin(torch.zeros(5, 1, 2, dtype=torch.bfloat16))
        out, wanted = carry(given), nn.functional.linear(given, ours.weight)
        (added[:, 0] + out).sum().backward()
    (gradient,) = torch.autograd.grad(wanted.sum(), ours.weight)
    assert out.dtype == torch.bfloat16 and torch.equal(out, wanted)
    assert ours.weight.grad is not None and ours.weight.grad.dtype == torch.float32
    assert_close(ours.weight.grad, gradient, rtol=1e-2, atol=1e-2)


def test_recurring_weights_have_no_second_gradient_rather_than_a_wrong_one():
    linear = Recurring(2, 2, bias=False)
    added, carry = linear.begin(torch.randn(1, 2, 2, requires_grad=True))
    last = (added[:, 1] + carry((added[:, 0] + carry(torch.ones(1, 2))).sin())).sin().sum()
    (gradient,) = torch.autograd.grad(last, linear.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_words_beyond_the_last_place_are_read_but_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seq2seq, "PLACES", 5)
    for attention in ("location", "self"):
        seen, _ = made(attention).eval()(batch())
        assert seen.weights.shape == (6, batch()["target"].shape[1], 5)
