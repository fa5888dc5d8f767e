"""Addressing: each map against loops, their order, gates at their extremes, what lies nowhere, and long sequences."""

import examples
import pytest
import torch
from examples import tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import regard as rg
from regard import OneHot, interpolate, offsets, sharpen, shift

B, Q, K, D = 2, 3, 5, 4


def weights(*shape: int) -> Tensor:
    """Rows that sum to one, in float64."""
    return torch.randn(*shape, dtype=torch.float64).softmax(-1)


def moved_by_loops(before: Tensor, moves: Tensor, circular: bool) -> Tensor:
    """One row (K,) after a move by one of `offsets`, place by place."""
    after, places = torch.zeros_like(before), len(before)
    for place in range(places):
        for probability, move in zip(moves, offsets(len(moves)).tolist(), strict=True):
            if circular or 0 <= place + move < places:
                after[(place + move) % places] += probability * before[place]
    return after


def sharpened_by_loops(before: Tensor, power: Tensor) -> Tensor:
    """One row (K,) with each probability raised, nowhere among them."""
    nowhere = max(0.0, 1 - sum(before.tolist()))
    raised = [each ** power.item() for each in (*before.tolist(), nowhere if nowhere > 1e-12 else 0.0)]
    return torch.tensor(raised[:-1], dtype=torch.float64) / sum(raised)


def by_rows(function, *parts: Tensor) -> Tensor:
    """The function of each row of the parts (B, Q, ...)."""
    flat = [each.flatten(0, 1) for each in parts]
    return torch.stack([function(*row) for row in zip(*flat, strict=True)]).unflatten(0, (B, Q))


class TestInterpolate:
    def test_it_is_the_mixture(self):
        found, before, gate = weights(B, Q, K), weights(B, Q, K), torch.rand(B, Q, dtype=torch.float64)
        mixed = interpolate(OneHot(weights=found), OneHot(weights=before), gate).mean
        by_hand = by_rows(
            lambda w, v, g: torch.stack([g * w[k] + (1 - g) * v[k] for k in range(K)]), found, before, gate
        )
        assert_close(mixed, by_hand)
        assert_close(mixed.sum(-1), torch.ones(B, Q, dtype=torch.float64))

    def test_gates_at_their_extremes_choose_one_bit_for_bit(self):
        found, before = OneHot(weights=weights(B, Q, K)), OneHot(weights=weights(B, Q, K))
        assert torch.equal(interpolate(found, before, torch.ones(B, Q).double()).mean, found.mean)
        assert torch.equal(interpolate(found, before, torch.zeros(B, Q).double()).mean, before.mean)

    def test_nowhere_is_mixed_too(self):
        mixed = interpolate(
            OneHot(weights=tensor([0.5, 0.0])), OneHot(weights=tensor([0.0, 1.0])), torch.tensor([0.5]).double()
        )
        assert_close(mixed.log_prob(torch.tensor([-1])).exp(), torch.tensor([0.25]).double())


class TestShift:
    @pytest.mark.parametrize("circular", [True, False])
    @pytest.mark.parametrize("width", [1, 2, 3, 4, K, 2 * K, 2 * K + 3])
    def test_it_is_the_sum_over_moves(self, width: int, circular: bool):
        before, moves = weights(B, Q, K), weights(B, Q, width)
        after = shift(OneHot(weights=before), moves, circular).mean
        assert_close(after, by_rows(lambda w, m: moved_by_loops(w, m, circular), before, moves))
        lost = 1 - after.sum(-1)
        assert (lost.abs() < 1e-12).all() if circular or width == 1 else (lost > 1e-3).all()

    @pytest.mark.parametrize("width", [2, 3, 4])
    def test_a_certain_move_is_a_roll(self, width: int):
        before = weights(B, Q, K)
        for move, offset in zip(torch.eye(width, dtype=torch.float64), offsets(width).tolist(), strict=True):
            after = shift(OneHot(weights=before), move.expand(B, Q, width)).mean
            assert torch.equal(after, before.roll(offset, -1))

    @pytest.mark.parametrize(("circular", "left"), [(True, 1.0), (False, 0.25)])
    def test_of_a_single_cell(self, circular: bool, left: float):
        after = shift(OneHot(weights=tensor([1.0])), tensor([0.25, 0.25, 0.5]), circular)
        assert_close(after.mean, tensor([left]))
        assert_close(after.log_prob(torch.tensor([-1])).exp(), torch.tensor([1 - left]).double())

    def test_offsets_of_an_even_width_go_one_further_forward(self):
        assert [offsets(width).tolist() for width in (1, 2, 5, 6)] == [
            [0],
            [0, 1],
            [-2, -1, 0, 1, 2],
            [-2, -1, 0, 1, 2, 3],
        ]


class TestSharpen:
    @pytest.mark.parametrize("lost", [0.0, 0.3])
    def test_it_is_the_power(self, lost: float):
        before, power = (1 - lost) * weights(B, Q, K), 1 + 4 * torch.rand(B, Q, dtype=torch.float64)
        after = sharpen(OneHot(weights=before), power)
        assert_close(after.mean, by_rows(sharpened_by_loops, before, power))
        assert_close(after.log_weights.exp().sum(-1), torch.ones(B, Q, dtype=torch.float64))

    def test_a_power_of_one_changes_nothing(self):
        before = 0.7 * weights(B, Q, K)
        assert_close(sharpen(OneHot(weights=before), torch.ones(B, Q).double()).mean, before)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_a_power_of_ten_thousand_is_the_most_probable(self, dtype: torch.dtype):
        before = torch.tensor([[0.25, 0.375, 0.0, 0.375], [1e-6, 0.0, 0.125, 0.0]], dtype=dtype)
        after = sharpen(OneHot(weights=before), torch.full((2,), 1e4, dtype=dtype)).mean
        assert after.dtype == dtype
        assert_close(after, torch.tensor([[0, 0.5, 0, 0.5], [0, 0, 0, 0]], dtype=dtype))  # the second row: nowhere

    def test_exact_zeros_stay_and_have_no_gradient(self):
        before = tensor([0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]).requires_grad_()
        power = torch.tensor([2.5, 3.0], dtype=torch.float64, requires_grad=True)
        after = sharpen(OneHot(weights=before), power).mean
        first = torch.autograd.grad((after * torch.arange(1.0, 5.0)).sum(), (before, power), create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), (before, power))
        assert (after[before == 0] == 0).all() and (first[0][0, before[0] == 0] == 0).all()
        assert first[0][0, 0] != 0
        assert all(each.isfinite().all() for each in (*first, *second))

    def test_plain_logarithms_would_be_nan_there(self):
        before = tensor([0.5, 0.0, 0.5]).requires_grad_()
        (before.log() * 2.5).softmax(-1).square().sum().backward()
        assert before.grad is not None and before.grad.isnan().any()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_weights_that_are_a_rounding_apart_are_told_apart_in_low_precision(self, dtype: torch.dtype):
        eps = torch.finfo(dtype).eps
        before = (torch.tensor([[1.0, 1 + eps]]).expand(1, 2).repeat(1, 128) / 256).to(dtype)
        after = sharpen(OneHot(weights=before), torch.tensor([0.5 / eps], dtype=dtype)).mean.float()
        assert_close(after[0, 1] / after[0, 0], torch.tensor(0.5).exp(), rtol=0.01, atol=0)
        apart = before.log()[0, 1] - before.log()[0, 0]
        assert (apart / eps - 1).abs() > 0.5  # their logarithms in low precision are not

    def test_nan_is_not_hidden(self):
        after = sharpen(OneHot(weights=tensor([torch.nan, 0.5, 0.5], [0.0, 0.5, 0.5])), tensor([2.0, 2.0])[0]).mean
        assert after[0].isnan().all() and after[1].isfinite().all()


class TestGradients:
    @pytest.mark.parametrize("circular", [True, False])
    def test_of_the_three_maps_in_turn(self, circular: bool):
        found, before = 0.9 * weights(2, 4), weights(2, 4)
        before[:, 1], before[1, 2] = 0.0, 0.0
        parts = [found, torch.rand(2).double(), weights(2, 3), 1 + torch.rand(2).double()]

        def answers(found: Tensor, gate: Tensor, moves: Tensor, power: Tensor) -> Tensor:
            mixed = interpolate(OneHot(weights=found), OneHot(weights=before), gate)
            return sharpen(shift(mixed, moves, circular), power).mean

        leaves = [each.requires_grad_() for each in parts]
        assert gradcheck(answers, leaves)
        assert gradgradcheck(answers, leaves)

    def test_of_sharpening_round_exact_zeros(self):
        scores = torch.randn(2, 4, dtype=torch.float64)
        scores[:, 1] = -torch.inf
        power = (1 + torch.rand(2)).double().requires_grad_()
        leaf = scores.clone().requires_grad_()
        answers = lambda leaf, power: sharpen(OneHot(weights=0.8 * leaf.softmax(-1)), power).mean  # noqa: E731
        first = torch.autograd.grad(answers(leaf, power).square().sum(), leaf)[0]
        assert (first[:, 1] == 0).all() and first.isfinite().all()
        finite = [(scores[:, [0, 2, 3]]).requires_grad_(), power]
        blank = torch.full((2, 1), -torch.inf, dtype=torch.float64)
        around = lambda leaf, power: answers(torch.cat((leaf[:, :1], blank, leaf[:, 1:]), -1), power)  # noqa: E731
        assert gradcheck(around, finite) and gradgradcheck(around, finite)


def head(width: int = 3, circular: bool = True) -> rg.Attention:
    return rg.Attention(rg.dot, rg.addressing(D, width, circular).double())


def memory(attention: rg.Attention, places: int = K, mask: Tensor | None = None) -> rg.Memory:
    return attention.prepare(*examples.tensors(B, places, D, count=2), mask)


def by_hand(over: rg.addressing, scores: Tensor, query: Tensor, order: str = "interpolate shift sharpen") -> Tensor:
    """The weights (B, Q, K), by the maps one after another."""
    before, rows = torch.zeros_like(scores[:, 0]), []
    before[:, 0] = 1
    for score, vector in zip(scores.unbind(1), query.unbind(1), strict=True):
        gates = over.gates(vector)
        maps = {
            "interpolate": lambda now, gates=gates, before=before: interpolate(
                OneHot(weights=now), OneHot(weights=before), gates[:, 0].sigmoid()
            ),
            "shift": lambda now, gates=gates: shift(OneHot(weights=now), gates[:, 1:-1].softmax(-1), over.circular),
            "sharpen": lambda now, gates=gates: sharpen(
                OneHot(weights=now), 1 + torch.nn.functional.softplus(gates[:, -1])
            ),
        }
        now = score.softmax(-1)
        for name in order.split():
            now = maps[name](now).mean
        before = now
        rows.append(now)
    return torch.stack(rows, 1)


class TestAddressing:
    @pytest.mark.parametrize(("width", "circular"), [(3, True), (4, False), (1, True), (2 * K, True), (2 * K, False)])
    def test_a_long_sequence_is_the_maps_applied_in_turn(self, width: int, circular: bool):
        attention, query = head(width, circular), examples.tensors(B, 24, D)[0]
        seen = memory(attention)
        out = attention(query, seen)
        wanted = by_hand(attention.over, rg.dot(query, seen.keys), query)
        assert_close(out.weights, wanted)
        assert_close(out.state.over, wanted[:, -1])

    @pytest.mark.parametrize(
        "order", ["shift interpolate sharpen", "interpolate sharpen shift", "sharpen interpolate shift"]
    )
    def test_in_another_order_they_give_other_numbers(self, order: str):
        attention, query = head(), examples.tensors(B, Q, D)[0]
        seen = memory(attention)
        wrong = by_hand(attention.over, rg.dot(query, seen.keys), query, order)
        assert (attention(query, seen).weights - wrong).abs().max() > 1e-2

    def test_it_stands_still_or_walks_as_its_gates_say(self):
        attention = head()
        gates = attention.over.gates
        torch.nn.init.zeros_(gates.weight)
        for move, wanted in ((-1, [4, 3, 2]), (0, [0, 0, 0]), (1, [1, 2, 3])):
            bias = torch.full((5,), -1e4, dtype=torch.float64)
            bias[2 + move] = 1e4
            gates.bias.data = bias
            out = attention(examples.tensors(B, Q, D)[0], memory(attention))
            assert torch.equal(out.weights, torch.eye(K).double()[wanted].expand(B, Q, K))

    def test_by_content_alone_it_is_softmax(self):
        attention = head(width=1)
        torch.nn.init.zeros_(attention.over.gates.weight)
        attention.over.gates.bias.data = torch.tensor([1e4, 0.0, -1e4], dtype=torch.float64)
        query, seen = examples.tensors(B, Q, D)[0], memory(attention)
        assert_close(attention(query, seen).weights, rg.dot(query, seen.keys).softmax(-1))

    def test_what_the_mask_hides_is_nowhere(self):
        attention, hidden = head(), rg.padding(torch.tensor([2, K]), K)
        torch.nn.init.zeros_(attention.over.gates.weight)
        attention.over.gates.bias.data = torch.tensor([-1e4, -1e4, -1e4, 1e4, -1e4], dtype=torch.float64)  # walks on
        out = attention(examples.tensors(B, Q, D)[0], memory(attention, mask=hidden))
        assert torch.equal(out.positions.mode, torch.tensor([[1, -1, -1], [1, 2, 3]]))
        assert (out.weights[0, :, 2:] == 0).all() and (out.context[0, 1:] == 0).all()

    def test_a_row_without_any_place_is_nowhere_and_comes_back_by_content(self):
        attention, query = head(), examples.tensors(B, Q, D)[0]
        mask = torch.ones(B, Q, K, dtype=torch.bool)
        mask[0, 1] = False
        out = attention(query.requires_grad_(), memory(attention, mask=mask))
        assert (out.weights[0, 1] == 0).all() and (out.positions.mode[0] == torch.tensor([0, -1, 0])).sum() >= 1
        lost = out.positions.log_prob(torch.full((B, Q), -1)).exp()
        assert lost[0, 1] == 1 and 0 < lost[0, 2] < 1 and (lost[1] == 0).all()
        out.context.square().sum().backward()
        assert query.grad.isfinite().all()

    def test_no_query_leaves_the_state(self):
        attention, query = head(), examples.tensors(B, Q, D)[0]
        seen = memory(attention)
        state = attention(query, seen).state
        none = attention(query[:, :0], seen, state)
        assert none.weights.shape == (B, 0, K) and torch.equal(none.state.over, state.over)
        assert attention(query[:, :0], seen).state.over is None

    def test_draws_stand_in_front(self):
        attention, query = head(), examples.tensors(3, B, Q, D)[0]
        seen = memory(attention)
        first = attention(query[:, :, :1], seen)
        rest = attention(query[:, :, 1:], seen, first.state)
        assert first.state.over.shape == (3, B, K)
        assert_close(rest.weights[2], attention(query[2], seen).weights[:, 1:])

    def test_rows_can_be_selected_between_two_steps(self):
        attention, query, rows = head(), examples.tensors(B, Q, D)[0], torch.tensor([1, 1, 0])
        seen = memory(attention)
        state = attention(query[:, :1], seen).state
        late = attention(query[:, 1:], seen, state)
        early = attention(query[rows, 1:], rg.select(seen, rows), rg.select(state, rows))
        assert_close(early.weights, late.weights[rows])
        assert (late.weights[0] - late.weights[1]).abs().max() > 1e-2

    @pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
    def test_low_precision_is_near(self, dtype: torch.dtype, close: float):
        attention, query = head().float(), torch.randn(B, 20, D)
        keys, values = torch.randn(B, K, D), torch.randn(B, K, D)
        wanted = attention(query, attention.prepare(keys, values)).weights
        low = attention.to(dtype)
        found = low(query.to(dtype), low.prepare(keys.to(dtype), values.to(dtype)))
        assert found.weights.dtype == found.state.over.dtype == dtype
        assert_close(found.weights.float(), wanted, atol=close, rtol=0)
        found.context.float().square().sum().backward()
        assert all(each.grad.isfinite().all() for each in low.parameters())

    def test_under_autocast_scores_may_stay_in_float32(self):
        attention = rg.Attention(rg.biased(rg.dot, torch.zeros(Q, K)), head().float().over)
        arguments = torch.randn(B, Q, D), attention.prepare(torch.randn(B, K, D), torch.randn(B, K, D))
        wanted = attention(*arguments).weights
        with torch.autocast("cpu", torch.bfloat16):
            out = attention(*arguments)
        assert out.weights.dtype == torch.float32
        assert_close(out.weights, wanted, atol=0.05, rtol=0)

    def test_a_state_of_another_precision(self):
        attention, query = head(), examples.tensors(B, 1, D)[0]
        seen, before = memory(attention), weights(B, K)
        low, high = (attention(query, seen, rg.State(over=each)).weights for each in (before.float(), before))
        assert low.dtype == torch.float64
        assert_close(low, high, atol=1e-6, rtol=0)


EXTREMES = st.sampled_from([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4])


@settings(max_examples=40)
@given(
    gates=st.lists(EXTREMES, min_size=6, max_size=6),
    scale=st.sampled_from([0.0, 1.0, 300.0, 1e4]),
    circular=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_gate_makes_nan(gates: list[float], scale: float, circular: bool, dtype: torch.dtype):
    """Six steps of gates at their extremes, the same and negated by turns, with places that are hidden."""
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0]).view(6, 1)
    leaf = (signs * torch.tensor(gates)).to(dtype).requires_grad_()
    scores = (scale * torch.randn(6, K)).to(dtype).requires_grad_()
    mask = torch.ones(6, K, dtype=torch.bool)
    mask[2, 1] = mask[4] = False
    positions = rg.over.addressing.Addressed(torch.nn.Identity(), leaf, None, circular)(scores, mask)
    total = positions.mean.square().sum() + positions.entropy().sum() + positions.log_prob(positions.mode).sum()
    grads = torch.autograd.grad(total, (leaf, scores))
    assert total.isfinite() and all(each.isfinite().all() for each in grads)
    assert (positions.mean >= 0).all() and (positions.mean.sum(-1) <= 1 + 1e-5).all()


@pytest.mark.unchecked
class TestErrors:
    @pytest.mark.parametrize("width", [0, -1])
    def test_no_width(self, width: int):
        with pytest.raises(
            ValueError, match=rf"^addressing expected moves by a width of at least 1 place, but got {width}\.$"
        ):
            rg.addressing(D, width)

    def test_a_query_of_another_size(self):
        attention = rg.Attention(rg.dot, rg.addressing(D + 1))
        with pytest.raises(
            ValueError, match=r"^query expected 5 as the last size, the query_dim of addressing, but got \(2, 3, 4\)\.$"
        ):
            attention(torch.zeros(B, Q, D), attention.prepare(torch.zeros(B, K, D), torch.zeros(B, K, D)))

    def test_it_says_what_it_is(self):
        assert "width=4, circular=False" in repr(rg.addressing(D, 4, circular=False))
