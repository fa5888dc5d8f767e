"""Chains whose transitions differ from position to position, and constraints that training cannot lift."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from roads import answers, plain_answers
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg

B, T, S = 2, 4, 3
PRESENT = {"all": [[1, 1, 1, 1]] * 2, "lengths": [[1, 1, 1, 0], [0, 0, 0, 0]], "holes": [[1, 0, 1, 1], [0, 1, 1, 0]]}
presents = pytest.mark.parametrize("present", PRESENT)
LABELS = ["O", "B-A", "I-A", "B-B", "I-B"]


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def made(present: str = "all", forbidden: float = 0.0, labels: int = S) -> rg.Chain:
    nodes, links = scores(B, T, labels), scores(B, T - 1, labels, labels)
    links = links.masked_fill(torch.rand(links.shape) < forbidden, -math.inf)
    return rg.Chain(nodes, links, torch.tensor(PRESENT[present]).bool())


def every(positions: rg.Chain, row: int) -> dict[tuple[int, ...], float]:
    """The score of each labelling of a row, term by term."""
    nodes, links, present = (each[row] for each in (positions.scores, positions.transitions, positions.present))
    choices = [range(nodes.shape[-1]) if there else (-1,) for there in present]
    return {
        z: float(
            sum(nodes[t, label] for t, label in enumerate(z) if label >= 0)
            + sum(links[t, i, j] for t, (i, j) in enumerate(itertools.pairwise(z)) if i >= 0 and j >= 0)
        )
        for z in itertools.product(*choices)
    }


@presents
@pytest.mark.parametrize("forbidden", [0.0, 0.3])
@pytest.mark.parametrize("road", ["kernel", "plain"])
def test_every_labelling(present: str, forbidden: float, road: str):
    positions = made(present, forbidden)
    answer = (lambda call: call()) if road == "kernel" else plain
    for row in range(B):
        found = {z: value for z, value in every(positions, row).items() if value > -math.inf}
        total = torch.tensor(list(found.values()), dtype=torch.float64)
        chances, z = total.softmax(0), torch.tensor([list(each) for each in found])
        alone = rg.Chain(positions.scores[row], positions.transitions[row], positions.present[row])
        assert_close(answer(lambda: positions.log_z)[row], total.logsumexp(0))
        assert_close(answer(lambda: positions.entropy())[row], -(chances * chances.log()).sum())
        mean = (alone.indicator(z) * chances[:, None, None]).sum(0)
        assert_close(answer(lambda: positions.mean)[row], mean)
        best = sorted(found, key=lambda each: -found[each])[:5]
        wanted = [*map(list, best), *[[-1] * T] * (5 - len(best))]
        assert answer(lambda: positions.k_best(5))[:, row].tolist() == wanted
        assert_close(answer(lambda alone=alone, z=z: alone.log_prob(z)), total - total.logsumexp(0))


def plain(call: Callable[[], Tensor]) -> Tensor:
    with rg.plain_road():
        return call()


def test_transitions_in_another_order_are_noticed():
    positions = made()
    wrong = rg.Chain(positions.scores, positions.transitions.flip(1), positions.present)
    assert not torch.isclose(wrong.log_z, positions.log_z).any()


@presents
@pytest.mark.parametrize("labels", [2, 3])
def test_the_kernel_is_the_plain_road(present: str, labels: int):
    given, allowed = made(present, labels=labels), torch.tensor(PRESENT[present]).bool()
    nodes, links = given.scores, given.transitions
    for answer in (lambda each: each.log_z, lambda each: each.mean, lambda each: each.marginals):
        function = lambda *given, answer=answer: answer(rg.Chain(*given, allowed))  # noqa: E731
        for scale in (1.0, 1e3):
            both = scale * nodes, scale * links
            assert_close(answers(function, *both), plain_answers(function, *both), rtol=1e-8, atol=1e-8)
    torch.manual_seed(0)
    drawn = given.sample((50,))
    torch.manual_seed(0)
    assert torch.equal(plain(lambda: given.sample((50,))), drawn)
    assert (given.log_prob(drawn) > -math.inf).all()


@presents
def test_the_same_transitions_everywhere(present: str):
    given = made(present)
    alike = rg.Chain(given.scores, given.transitions[:, 0], given.present)
    each = rg.Chain(given.scores, given.transitions[:, :1].expand(-1, T - 1, -1, -1), given.present)
    z = alike.sample((3,))
    assert_close((each.log_z, each.mean, each.log_prob(z)), (alike.log_z, alike.mean, alike.log_prob(z)))
    assert_close(each.kl(alike), torch.zeros(B).double(), atol=1e-10, rtol=0)
    assert_close(alike.kl(given), each.kl(given))
    assert_close(given.kl(alike), given.kl(each))
    assert (given.kl(alike)[: 1 + (present != "lengths")] > 0.01).all()


@pytest.mark.parametrize("road", ["kernel", "plain"])
def test_what_is_forbidden_where_no_transition_counts(road: str):
    """Beside an absent position all transitions may be impossible: none is made there."""
    given = made("lengths")
    links = given.transitions.clone()
    links[0, 2] = -math.inf
    found, answer = rg.Chain(given.scores, links, given.present), plain if road == "plain" else lambda call: call()
    assert_close(answer(lambda: found.log_z), given.log_z)
    assert_close(answer(lambda: found.entropy()), given.entropy())
    assert answer(lambda: found.marginals).isfinite().all()
    one = rg.chain(torch.full((S, S), -math.inf))(torch.zeros(1, S))
    assert_close(answer(lambda: one.entropy()), torch.tensor(float(S)).log())


@pytest.mark.parametrize("answer", ["log_z", "mean", "entropy", "log_prob", "kl"])
def test_second_gradients(answer: str):
    present, z = torch.tensor(PRESENT["holes"]).bool(), made("holes").sample()
    other = made("holes")
    kinds = {
        "log_z": lambda each: each.log_z,
        "mean": lambda each: each.mean,
        "entropy": lambda each: each.entropy(),
        "log_prob": lambda each: each.log_prob(z),
        "kl": lambda each: each.kl(other),
    }
    function = lambda *given: kinds[answer](rg.Chain(*given, present))  # noqa: E731
    given = scores(B, T, S).requires_grad_(), scores(B, T - 1, S, S).requires_grad_()
    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


class TestTheOver:
    def test_batches_of_transitions(self):
        nodes, links = scores(B, T, S), scores(B, T - 1, S, S)
        found = rg.chain(links)(nodes)
        for row in range(B):
            assert_close(rg.chain(links[row])(nodes[row]).log_z, found.log_z[row])
            assert_close(rg.chain(links[row : row + 1])(nodes).log_z[row], found.log_z[row])
        drawn = rg.chain(links.expand(5, -1, -1, -1, -1))(nodes.expand(5, -1, -1, -1))
        assert_close(drawn.log_z, found.log_z.expand(5, B))

    def test_padding_changes_nothing(self):
        nodes, links, start = scores(B, T, S), nn.Parameter(scores(B, T + 1, S, S)), scores(S)
        long = torch.nn.functional.pad(nodes, (0, 0, 0, 2), value=math.inf)
        padded = rg.chain(links, start, start)(long, (torch.arange(T + 2) < T).expand(B, -1))
        short = rg.chain(links[:, : T - 1], start, start)(nodes)
        assert_close((padded.log_z, padded.mean[:, :T]), (short.log_z, short.mean))
        padded.log_z.sum().backward()
        assert links.grad is not None and links.grad.isfinite().all() and (links.grad[:, T - 1 :] == 0).all()

    @pytest.mark.unchecked
    def test_what_is_refused(self):
        with pytest.raises(ValueError, match=r"expected 3 matrices, one for each place where they count, for"):
            rg.chain(torch.zeros(B, T, S, S))(torch.zeros(B, T, S))
        with pytest.raises(ValueError, match=r"\(3, 2, 3, 3\) may be those of each position as well as those of each"):
            rg.chain(torch.zeros(3, 2, S, S))(torch.zeros(3, 2, 3, S))

    @pytest.mark.unchecked
    def test_the_remedies_do_what_they_say(self):
        nodes, links = torch.randn(2, 2, 3, S), torch.randn(2, 2, S, S)
        of_positions, of_rows = rg.chain(links[None])(nodes), rg.chain(links.unsqueeze(-3))(nodes)
        assert_close(of_positions.log_z[0, 1], rg.chain(links[1])(nodes[0, 1]).log_z)
        assert_close(of_rows.log_z[0, 1], rg.chain(links[0, 1])(nodes[0, 1]).log_z)


class TestConstraints:
    def crf(self, labels: list[str] = LABELS) -> rg.chain:
        size = len(labels)
        links, ends = (nn.Parameter(scores(*shape)) for shape in ((size, size), (size,)))
        return rg.chain(links, ends, constraints=rg.bio(labels))

    def possible(self, z: tuple[int, ...]) -> bool:
        names = ["O", *(LABELS[label] for label in z)]
        return all(
            not after.startswith("I-") or before in (after, after.replace("I-", "B-"))
            for before, after in itertools.pairwise(names)
        )

    def test_what_is_possible_is_what_bio_says(self):
        crf, nodes = self.crf(), scores(T, len(LABELS))
        found, free = crf(nodes), rg.chain(crf.transitions, crf.start)(nodes)
        z = torch.tensor(list(itertools.product(range(len(LABELS)), repeat=T)))
        may = torch.tensor([self.possible(tuple(each.tolist())) for each in z])
        assert 100 < may.sum() < len(z) / 2
        log_prob = found.log_prob(z)
        assert ((log_prob > -math.inf) == may).all()
        assert_close(log_prob.exp().sum(), torch.ones(()).double())
        assert_close(log_prob[may], free.log_prob(z[may]).log_softmax(0))
        assert all(self.possible(tuple(each.tolist())) for each in found.sample((200,)))
        assert all(self.possible(tuple(each.tolist())) for each in found.k_best(50))

    def test_training_cannot_lift_them(self):
        crf, nodes = self.crf(), scores(B, T, len(LABELS)).requires_grad_()
        wrong = torch.tensor([[0, 2, 2, 0], [4, 0, 0, 0]])
        optimiser = torch.optim.SGD(crf.parameters(), 1e3)
        for _ in range(3):
            optimiser.zero_grad()
            log_prob = crf(nodes).log_prob(wrong)
            assert (log_prob == -math.inf).all()
            (-log_prob.sum()).backward()
            assert all(each.grad is not None and each.grad.isfinite().all() for each in (*crf.parameters(), nodes))
            optimiser.step()
        assert all(self.possible(tuple(each.tolist())) for each in crf(nodes).sample((50,)).flatten(0, 1))
        assert crf(nodes).mean.isfinite().all() and crf(nodes).entropy().isfinite().all()
        slopes = torch.autograd.grad(crf(nodes).log_z.sum(), crf.transitions)[0]
        assert (slopes[~rg.bio(LABELS)[:-1, :-1]] == 0).all() and (slopes != 0).any()

    @pytest.mark.parametrize("road", ["kernel", "plain"])
    def test_where_nothing_is_possible(self, road: str):
        """A row of one word, of which the mask leaves I-A alone."""
        crf, nodes = self.crf(), scores(B, T, len(LABELS)).requires_grad_()
        mask = torch.ones(B, T, len(LABELS), dtype=torch.bool)
        mask[1, :, [0, 1, 3, 4]] = mask[1, 1:] = False
        answer = (lambda call: call()) if road == "kernel" else plain
        found = crf(nodes, mask)
        assert answer(lambda: found.log_z).isneginf().tolist() == [False, True]
        assert (found.mode[1] == -1).all() and (found.sample((3,))[:, 1] == -1).all()
        for value in (answer(lambda: found.mean), answer(lambda: found.entropy())):
            assert (value[1] == 0).all()
            slopes = torch.autograd.grad(value.square().sum(), (nodes, *crf.parameters()), create_graph=True)
            assert all(each.isfinite().all() for each in slopes) and (slopes[0][1] == 0).all()

    def test_constraints_of_the_ends(self):
        allowed = torch.ones(S + 1, S + 1, dtype=torch.bool)
        allowed[:S, S] = torch.tensor([True, False, False])
        allowed[1, 2] = False
        drawn = rg.chain(torch.zeros(S, S), constraints=allowed)(torch.randn(B, T, S)).sample((100,))
        assert (drawn[..., -1] == 0).all() and (drawn[..., 0] != 0).any()
        assert not ((drawn[..., :-1] == 1) & (drawn[..., 1:] == 2)).any()
        inner = rg.chain(torch.zeros(S, S), constraints=allowed[:S, :S])(torch.randn(B, T, S)).sample((100,))
        assert (inner[..., -1] != 0).any()

    def test_with_transitions_of_each_position(self):
        links = nn.Parameter(scores(B, T - 1, len(LABELS), len(LABELS)))
        found = rg.chain(links, constraints=rg.bio(LABELS))(scores(B, T, len(LABELS)))
        assert all(self.possible(tuple(each.tolist())) for each in found.k_best(40).flatten(0, 1))
        found.entropy().sum().backward()
        assert links.grad is not None and links.grad.isfinite().all()

    def test_they_move_and_are_saved_with_the_module(self):
        assert "constraints" in self.crf().state_dict()
        assert rg.chain(torch.zeros(2, 2)).constraints is None

    @pytest.mark.unchecked
    def test_what_is_refused(self):
        with pytest.raises(TypeError, match="constraints expected dtype bool, True where a label may follow another"):
            rg.chain(torch.zeros(S, S), constraints=torch.zeros(S, S))
        with pytest.raises(ValueError, match=r"constraints expected the shape \(3, 3\), or one more of both for what"):
            rg.chain(torch.zeros(S, S), constraints=torch.ones(5, 5).bool())(torch.zeros(T, S))
        for label in ("NP", "I-", "B", "E-NP", ""):
            with pytest.raises(ValueError, match=f"labels expected O, or B- or I- and a kind, but got '{label}'."):
                rg.bio(["O", label])
