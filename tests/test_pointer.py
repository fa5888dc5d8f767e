"""Pointer: targets that coincide or lead nowhere, moves that are blocked, and what it is the same as."""

import math
import pickle

import examples
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard import Cells, OneHot, Pointer
from regard.summary import summary_of

B, Q, K, W, V = 2, 3, 5, 3, 2


def pointer(places: int = K, circular: bool = True, shape: tuple[int, ...] = (B, Q)) -> Pointer:
    """One of a few places beside where it was; what would be outside is nowhere, unless it goes round."""
    targets = torch.randint(places, (*shape, 1)) + rg.offsets(W)
    outside = (targets < 0) | (targets >= places)
    targets = targets % places if circular else targets.masked_fill(outside, -1)
    return Pointer(scores=torch.randn(*shape, W, dtype=torch.float64), targets=targets, count=places)


def same(found: Pointer, wanted: OneHot, values: Tensor) -> None:
    """Every answer of a pointer is that of the dense distribution."""
    support = wanted.enumerate_support()
    assert torch.equal(found.enumerate_support(), support)
    assert_close(found.mean, wanted.mean)
    assert_close(found.log_weights, wanted.log_weights)
    assert_close(found.log_prob(support), wanted.log_prob(support))
    assert_close(found.entropy(), wanted.entropy())
    assert_close(found.expect(values), wanted.expect(values))
    assert torch.equal(found.mode, wanted.mode)
    assert_close(found.kl(wanted), torch.zeros_like(found.entropy()))
    assert found.places == wanted.places and found.batch_shape == wanted.batch_shape


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("places", [1, 2, K])
def test_it_is_the_shift_of_where_it_was(places: int, circular: bool):
    """Of a single place or two, where several moves lead to one."""
    values, was = examples.tensors(B, places, V)[0], torch.randint(places, (B, Q))
    moves = torch.randn(B, Q, W, dtype=torch.float64).softmax(-1)
    targets = was.unsqueeze(-1) + rg.offsets(W)
    outside = (targets < 0) | (targets >= places)
    targets = targets % places if circular else targets.masked_fill(outside, -1)
    before = OneHot(weights=torch.nn.functional.one_hot(was, places).double())
    same(Pointer(weights=moves, targets=targets, count=places), rg.shift(before, moves, circular), values)


def test_the_most_probable_place_is_not_that_of_the_most_probable_move():
    one = Pointer(weights=torch.tensor([[0.3, 0.4, 0.3]]), targets=torch.tensor([[2, 0, 2]]), count=3)
    assert one.mode == 2 and one.moves.mode == 1
    nowhere = Pointer(weights=torch.tensor([[0.3, 0.4, 0.2]]), targets=torch.tensor([[-1, 0, -1]]), count=3)
    assert nowhere.mode == -1
    assert_close(nowhere.log_prob(torch.tensor([-1])).exp(), torch.tensor([0.6]))
    assert_close(nowhere.expect(torch.ones(3, 1)), torch.tensor([[0.4]]))


def test_where_all_moves_lead_nowhere_nothing_is_read():
    one = Pointer(scores=torch.randn(1, W), targets=torch.full((1, W), -1), count=K)
    assert (one.sample((50,)) == -1).all() and one.mode == -1 and one.log_prob(one.mode) == 0
    assert (one.mean == 0).all() and (one.expect(torch.ones(K, V)) == 0).all() and one.entropy() == 0
    assert (rg.look(None, lambda _: one, torch.ones(K, V)).context == 0).all()


def test_a_row_whose_moves_are_all_blocked_is_nowhere():
    scores = torch.zeros(2, W)
    scores[0] = -math.inf
    two = Pointer(scores=scores, targets=torch.tensor([[0, 1, 2], [0, 1, 2]]), count=K)
    assert (two.sample((50,))[:, 0] == -1).all() and (two.sample((50,))[:, 1] >= 0).all()
    assert two.mode[0] == -1 and two.entropy()[0] == 0
    assert torch.equal(two.log_prob(torch.tensor([[-1, -1], [1, 4]])).exp(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_a_blocked_move_to_where_another_leads_takes_nothing_from_it():
    scores = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    one = Pointer(scores=scores, targets=torch.tensor([[1, 1, 2]]), count=K)
    assert_close(one.log_prob(torch.tensor([1])), torch.tensor([math.log(0.5)]))
    one.log_prob(torch.tensor([1])).sum().backward()
    assert_close(scores.grad, torch.tensor([[0.5, 0.0, -0.5]]))


def test_nan_spoils_a_row_as_it_does_of_a_one_hot():
    scores = torch.randn(2, 1, K)
    scores[0, 0, 1] = math.nan
    positions = Pointer(scores=scores, targets=torch.arange(K).expand(2, 1, K), count=K), OneHot(scores=scores)
    values = torch.ones(2, K, V)
    for each in positions:
        for read in (rg.mean, rg.sample, rg.mode):
            context = read(each, values)[0]
            assert context[0].isnan().all() and context[1].isfinite().all()
        assert each.entropy().isnan().tolist() == [[True], [False]]
        assert each.log_prob(each.sample()).isnan().tolist() == [[True], [False]]
        assert each.mean.isnan().all(-1).tolist() == [[True], [False]]
    assert torch.equal(positions[0].mode[1], positions[1].mode[1])


def test_draws_stand_in_front():
    one, values = pointer(), examples.tensors(B, K, V)[0]
    z = one.sample((7, 2))
    assert z.shape == one.log_prob(z).shape == (7, 2, B, Q)
    assert_close(one.log_prob(z)[3, 1], one.log_prob(z[3, 1]))
    assert_close(one.gather(values, z)[3, 1], one.gather(values, z[3, 1]))
    several = pointer(shape=(4, B, Q))
    assert several.expect(values).shape == (4, B, Q, V)
    assert_close(several.expect(values), several.mean @ values)


def test_a_relaxed_draw_is_of_its_places():
    targets, scores = torch.tensor([[3, 1, 3]]).expand(5000, 3), torch.tensor([[0.3, 0.5, -0.2]]).expand(5000, 3)
    one = Pointer(scores=scores, targets=targets, count=K)
    soft, hard = one.relax(0.7), one.relax(1e-4)
    assert_close(soft.sum(-1), torch.ones(5000))
    assert ((soft == 0) == (one.mean == 0)).all()
    assert_close(hard.mean(0), one.mean[0], atol=0.03, rtol=0)


@pytest.mark.parametrize("circular", [True, False])
def test_a_reader_is_asked_for_the_targets_alone(circular: bool):
    asked = []

    class Reader:
        def read(self, z: Tensor) -> Tensor:
            asked.append(z)
            return values.gather(1, z.unsqueeze(-1).expand(*z.shape, V))

    one, values = pointer(circular=circular), examples.tensors(B, K, V)[0]
    assert_close(one.expect(Reader()), one.expect(values))
    assert_close(one.gather(Reader(), one.mode), one.gather(values, one.mode))
    assert [tuple(z.shape) for z in asked] == [(B, Q * W), (B, Q)] and all((z >= 0).all() for z in asked)


def test_the_gradient_of_a_mean_reaches_moves_without_weight():
    weights = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    one, values = Pointer(weights=weights, targets=torch.tensor([[0, 1, -1]]), count=K), examples.tensors(K, V)[0]
    found, wanted = (torch.autograd.grad(each.sum(), weights)[0] for each in (one.expect(values), one.mean @ values))
    assert_close(found, wanted)
    assert found[0, 1] != 0 and found[0, 2] == 0


def test_one_that_moves_on_a_tape():
    """Moves and writes on cells that are not copied: by the log-probabilities and the numbers of the dense road."""
    new, place = examples.tensors(B, 4, V)[0].requires_grad_(), torch.zeros(B, 1, dtype=torch.long)
    ones, cells, tape = (
        torch.ones(B, 1, V).double(),
        Cells(torch.zeros(B, K, V).double()),
        torch.zeros(B, K, V).double(),
    )
    for step in range(4):
        moves = torch.randn(B, 1, W, dtype=torch.float64).softmax(-1)
        now = Pointer(weights=moves, targets=(place.unsqueeze(-1) + rg.offsets(W)) % K, count=K)
        before = OneHot(weights=torch.nn.functional.one_hot(place, K).double())
        place = now.sample()
        assert_close(now.log_prob(place), rg.shift(before, moves).log_prob(place))
        parts = 0.5 * ones, new[:, step : step + 1], place
        cells, tape = rg.write(cells, now, *parts), rg.write(tape, now, *parts)
        assert_close(now.expect(cells), now.expect(tape))
    assert torch.equal(cells.read(place), now.gather(tape, place))
    found, wanted = (torch.autograd.grad(each.square().sum(), new)[0] for each in (cells.tensor(), tape))
    assert_close(found, wanted)


def test_queries_can_be_joined_selected_and_pickled():
    one, values, rows = pointer(), examples.tensors(B, K, V)[0], torch.tensor([1, 1, 0])
    parts = [Pointer(scores=one.scores[:, q], targets=one.targets[:, q], count=K) for q in ([0], [1, 2])]
    joined = parts[0].then(parts[1])
    assert isinstance(joined, Pointer) and joined.count == K
    assert_close(joined.mean, one.mean)
    chosen = rg.select(one, rows)
    assert isinstance(chosen, Pointer)
    assert_close(chosen.expect(values[rows]), one.expect(values)[rows])
    again = pickle.loads(pickle.dumps(one))
    assert_close(again.mean, one.mean)
    assert repr(again) == "Pointer(batch_shape=(2, 3), event_shape=())"


def test_a_summary_is_of_its_places():
    one = Pointer(scores=torch.zeros(1, 3), targets=torch.tensor([[2, 2, 0]]), count=K)
    found = summary_of(one, 2)
    assert_close(found.weights, torch.tensor([[2 / 3, 1 / 3]]))
    assert found.places.tolist() == [[2, 0]] and found.log_sum_exp is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_near(dtype: torch.dtype):
    one, values = pointer(), examples.tensors(B, K, V)[0]
    leaf = one.scores.to(dtype).requires_grad_()
    low = Pointer(scores=leaf, targets=one.targets, count=K)
    answers = low.mean, low.entropy(), low.log_prob(one.mode), low.expect(values.to(dtype))
    assert all(each.dtype == dtype for each in answers)
    for found, wanted in zip(
        answers, (one.mean, one.entropy(), one.log_prob(one.mode), one.expect(values)), strict=True
    ):
        assert_close(found.double(), wanted, atol=0.05, rtol=0)
    sum(each.sum() for each in answers).backward()
    assert leaf.grad.isfinite().all()


class Look(torch.nn.Module):
    """What a pointer that moves reads, and the pointer."""

    def forward(self, scores: Tensor, place: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Pointer]:
        targets = (place.unsqueeze(-1) + rg.offsets(W).to(place)) % values.shape[-2]
        one = Pointer(scores=scores, targets=targets, count=values.shape[-2])
        return one.expect(values), one.gather(values, one.mode), one.entropy(), one


@pytest.mark.unchecked
class TestTransforms:
    def given(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.randn(B, Q, W), torch.randint(K, (B, Q)), torch.randn(B, K, V)

    def answers(self, *given: Tensor) -> tuple[Tensor, ...]:
        *parts, one = Look()(*given)
        return *parts, one.mean, one.log_prob(one.mode), one.log_weights

    def test_compile(self):
        torch._dynamo.reset()
        given = self.given()
        compiled = torch.compile(self.answers, fullgraph=True, backend="aot_eager")
        assert_close(compiled(*given), self.answers(*given))
        draw = torch.compile(lambda *given: Look()(*given)[-1].sample((6,)), fullgraph=True, backend="eager")
        z = draw(*given)
        assert z.shape == (6, B, Q) and (Look()(*given)[-1].log_prob(z) > -math.inf).all()

    def test_export(self):
        given = self.given()
        *parts, one = torch.export.export(Look(), given).module()(*given)
        assert isinstance(one, Pointer) and one.count == K
        assert_close((*parts, one.mean), self.answers(*given)[:4])

    def test_vmap_and_grad(self):
        scores, place, values = given = self.given()
        assert_close(torch.vmap(self.answers)(*given), self.answers(*given))
        total = lambda scores: sum(each.square().sum() for each in self.answers(scores, place, values)[:5])  # noqa: E731
        leaf = scores.clone().requires_grad_()
        assert_close(torch.func.grad(total)(scores), torch.autograd.grad(total(leaf), leaf)[0])

    def test_inference_mode_and_autocast(self):
        given = self.given()
        wanted = self.answers(*given)
        with torch.inference_mode():
            assert_close(self.answers(*given), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(self.answers(*given)[0].float(), wanted[0], atol=0.05, rtol=0.05)


@pytest.mark.unchecked
class TestErrors:
    def test_targets_of_another_shape(self):
        words = r"^targets expected one place for each move, of shape \(2, 3\), but got \(2, 4\)\.$"
        with pytest.raises(ValueError, match=words):
            Pointer(scores=torch.zeros(2, 3), targets=torch.zeros(2, 4, dtype=torch.long), count=K)

    @pytest.mark.parametrize("given", [{}, {"weights": torch.ones(1, 3), "scores": torch.ones(1, 3)}])
    def test_both_or_neither_of_weights_and_scores(self, given: dict[str, Tensor]):
        words = r"^Pointer expected exactly one of weights and scores, but got both or neither\.$"
        with pytest.raises(ValueError, match=words):
            Pointer(**given, targets=torch.zeros(1, 3, dtype=torch.long), count=K)
