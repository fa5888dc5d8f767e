"""Semi-Markov chains: against the chain whose states are a label and how far its run has come, and how they grow."""

import dataclasses
import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import regard as rg

B, T, S = 3, 9, 3


def as_chain(positions: rg.SemiMarkov) -> rg.Chain:
    """The same as a chain whose state w S + s is position w of a run of label s, in time O(T (S W)^2)."""
    durations, transitions, present = positions.durations, positions.transitions, positions.present
    width, states = durations.shape[-2:]
    absent = ~F.pad(present, (1, 1))
    begins, ends = present & absent[..., :-2], present & absent[..., 2:]
    late = torch.arange(width).unsqueeze(-1) > 0
    nodes = positions.scores.unsqueeze(-2).expand(*positions.scores.shape[:-1], width, states)
    nodes = nodes.masked_fill(begins[..., None, None] & late, -torch.inf)
    nodes = nodes + durations.unsqueeze(-3).where(ends[..., None, None], 0)
    between = transitions.masked_fill(torch.eye(states, dtype=torch.bool), -torch.inf)
    ending = (durations.unsqueeze(-1) + between.unsqueeze(-3)).flatten(-3, -2)  # (*B, W S, S)
    on = torch.full((width * states, (width - 1) * states), -torch.inf, dtype=ending.dtype)
    on = on.diagonal_scatter(torch.zeros((width - 1) * states, dtype=on.dtype))
    return rg.Chain(nodes.flatten(-2), torch.cat((ending, on.expand(*ending.shape[:-1], -1)), -1), present)


def made(width: int, share: float = 1.0, scale: float = 1.0) -> rg.SemiMarkov:
    shapes = (B, T, S), (B, S, S), (B, width, S)
    return rg.SemiMarkov(*(scale * torch.randn(each, dtype=torch.float64) for each in shapes), torch.rand(B, T) < share)


def check_as_chain(positions: rg.SemiMarkov) -> None:
    chain, labels = as_chain(positions), lambda z: z.remainder(S).where(z >= 0, -1)
    assert_close(positions.log_z, chain.log_z)
    assert_close(positions.mean, chain.mean.unflatten(-1, (-1, S)).sum(-2))
    assert_close(positions.entropy(), chain.entropy())
    assert (positions.k_best(7) == labels(chain.k_best(7))).all()
    z = chain.sample((4,))
    assert_close(positions.log_prob(labels(z)), chain.log_prob(z))


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("share", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("width", [1, 2, 4, T, T + 3])
def test_it_is_a_chain_of_more_states(width: int, share: float, scale: float):
    check_as_chain(made(width, share, scale))


def test_forbidden_labels_transitions_and_lengths():
    positions = made(4, 0.9)
    for each in (positions.scores, positions.transitions, positions.durations):
        each[torch.rand(each.shape) < 0.2] = -torch.inf
    check_as_chain(positions)


def test_a_wrong_width_is_noticed():
    positions = made(3)
    longer = dataclasses.replace(positions, durations=F.pad(positions.durations, (0, 0, 0, 1)))
    with pytest.raises(AssertionError):
        assert_close(longer.log_z, as_chain(positions).log_z)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_samples_follow_the_means(share: float):
    positions = made(3, share)
    z = positions.sample((4000,))
    assert (positions.log_prob(z) > -torch.inf).all()
    spread = 4.5 * (positions.mean * (1 - positions.mean) / 4000).clamp(min=0).sqrt() + 1e-3
    assert ((positions.indicator(z).mean(0) - positions.mean).abs() < spread).all()
    some = rg.SemiMarkov(*(each[:, :4] if each.shape[1] == T else each for each in vars_of(positions)))
    support = some.enumerate_support()
    z, probability = some.sample((4000,)), some.log_prob(support).exp()
    for row in range(B):
        seen = (z[:, row, None] == support[None, :, row]).all(-1).double().mean(0)
        assert ((seen - probability[:, row]).abs() < 4.5 * (probability[:, row] / 4000).sqrt() + 1e-3).all()


def vars_of(positions: rg.SemiMarkov) -> tuple[Tensor, ...]:
    return positions.scores, positions.transitions, positions.durations, positions.present


def test_long_sequences_of_wide_spans():
    """1000 positions, 24 labels and spans of up to 100: a chain of 2400 states would take minutes for these."""
    over = rg.semi_markov(100, torch.randn(24, 24), torch.randn(100, 24))
    scores = torch.randn(1, 1000, 24, requires_grad=True)
    over(scores[:, :2]).mean.sum().backward()  # whatever has to be compiled
    begin = time.perf_counter()
    positions = over(scores)
    z = positions.mode
    (slope,) = torch.autograd.grad(-positions.log_prob(z).sum(), scores)
    assert time.perf_counter() - begin < 5
    assert positions.log_prob(z) > positions.log_prob(positions.sample())
    assert_close(slope, (positions.mean - positions.indicator(z)).detach())
