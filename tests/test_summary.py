"""What weights come to by group: against a product with 0/1 groups, as the probability of an event, and derivatives."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import regard as rg

B, Q, K, N = 2, 3, 6, 4
GROUPS = torch.tensor([[0, 3, 0, -1, 1, 3], [2, 2, 2, 2, -1, 2]])


def given(*draws: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*draws, B, Q, K, dtype=dtype).softmax(-1)


def by_product(weights: torch.Tensor, groups: torch.Tensor = GROUPS) -> torch.Tensor:
    member = groups.unsqueeze(-1) == torch.arange(N)  # (B, K, N)
    return weights @ member.to(weights)


def test_it_is_the_product_with_the_groups():
    weights = given()
    assert_close(rg.attention_sum(weights, GROUPS, N), by_product(weights))
    assert_close(rg.attention_sum(weights[0], GROUPS[0], N), by_product(weights[0], GROUPS[0]))
    assert not torch.allclose(rg.attention_sum(weights, GROUPS.flip(0), N), by_product(weights))


def test_draws_stand_in_front():
    weights = given(5)
    assert_close(rg.attention_sum(weights, GROUPS, N), by_product(weights))


def test_groups_are_counted_where_no_number_is_given():
    weights = given()
    assert_close(rg.attention_sum(weights, GROUPS), by_product(weights))
    assert rg.attention_sum(weights, torch.full((B, K), -1)).shape == (B, Q, 0)


def test_it_is_the_probability_that_the_place_read_is_of_the_group():
    """The mean over all events, each with its probability, of the group that was read."""
    positions = rg.softmax(torch.randn(B, Q, K, dtype=torch.float64))
    events = positions.enumerate_support()
    chances = positions.log_prob(events).exp().unsqueeze(-1)
    read = torch.stack([rg.attention_sum(positions.indicator(z).double(), GROUPS, N) for z in events])
    assert set(read.sum(-1).unique().tolist()) == {0.0, 1.0}
    assert_close((chances * read).sum(0), rg.attention_sum(positions.mean, GROUPS, N))


def test_groups_that_hold_every_place_share_all_weight():
    weights, groups = given(), torch.randint(N, (B, K))
    assert_close(rg.attention_sum(weights, groups, N).sum(-1), torch.ones(B, Q, dtype=torch.float64))
    left_out = groups.where(torch.arange(K) > 0, -1)
    assert_close(rg.attention_sum(weights, left_out, N).sum(-1), 1 - weights[..., 0])


def test_derivatives():
    weights = given().requires_grad_()
    assert gradcheck(lambda weights: rg.attention_sum(weights, GROUPS, N), weights)
    assert gradgradcheck(lambda weights: rg.attention_sum(weights, GROUPS, N).square(), weights)


def test_low_precision_is_summed_in_float32():
    """A half and 4,096 weights, none of which a sum in their own precision would notice."""
    weights = torch.tensor([[0.5] + [1 / 8192] * 4096], dtype=torch.bfloat16)
    assert weights[0, 0] + weights[0, 1] == weights[0, 0]
    assert rg.attention_sum(weights, torch.zeros(4097, dtype=torch.long), 1) == 1


@pytest.mark.unchecked
def test_it_is_traced_and_mapped():
    weights = given()
    traced = torch.compile(lambda weights: rg.attention_sum(weights, GROUPS, N), fullgraph=True, backend="eager")
    assert_close(traced(weights), by_product(weights))
    mapped = torch.func.vmap(lambda weights, groups: rg.attention_sum(weights, groups, N))
    assert_close(mapped(weights, GROUPS), by_product(weights))


@pytest.mark.unchecked
def test_bad_groups_are_named():
    with pytest.raises(ValueError, match=r"a number for each place of weights \(2, 3, 6\), but got \(2, 5\)"):
        rg.attention_sum(given(), GROUPS[:, :5], N)
    with pytest.raises(ValueError, match=r"but got \(3, 6\)"):
        rg.attention_sum(given(), torch.zeros(3, K, dtype=torch.long), N)
    with pytest.raises(ValueError, match="groups expected numbers from -1 to 2, but got 3"):
        rg.attention_sum(given(), GROUPS, N - 1)
    with pytest.raises(ValueError, match="but got -2"):
        rg.attention_sum(given(), GROUPS - 1, N)
