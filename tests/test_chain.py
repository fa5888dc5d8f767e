"""Chains, segments and semi-Markov chains: against all labellings one by one, and against other packages."""

import itertools
import math
from functools import partial

import pytest
import torch
import torchcrf
from torch import Tensor, nn
from torch.testing import assert_close
from torch_struct import LinearChainCRF

import regard as rg

B, T, S = 2, 5, 3


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def everywhere(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def score(z: tuple[int, ...], nodes: Tensor, transitions: Tensor) -> Tensor:
    """That of one labelling, -1 where a position is absent, term by term."""
    total = sum((nodes[t, label] for t, label in enumerate(z) if label >= 0), nodes.new_zeros(()))
    return total + sum(transitions[i, j] for i, j in itertools.pairwise(z) if i >= 0 and j >= 0)


def ranked(nodes: Tensor, transitions: Tensor, present: Tensor) -> list[tuple[float, tuple[int, ...]]]:
    """Every possible labelling with its score, the best first."""
    choices = [range(nodes.shape[-1]) if there else (-1,) for there in present]
    every = [(score(z, nodes, transitions).item(), z) for z in itertools.product(*choices)]
    return sorted((each for each in every if each[0] > -math.inf), reverse=True)


def check_against_enumeration(positions: rg.Chain, k: int = 12) -> None:
    """log Z, the mode and the k best of each row."""
    best = positions.k_best(k)
    for row in range(len(positions.scores)):
        every = ranked(positions.scores[row], positions.transitions[row], positions.present[row])
        total = torch.tensor([value for value, _ in every], dtype=torch.float64).logsumexp(0)
        assert_close(positions.log_z[row], total)
        wanted = [*(z for _, z in every[:k]), *[(-1,) * positions.scores.shape[-2]] * (k - len(every))]
        assert best[:, row].tolist() == [list(z) for z in wanted]


PRESENT = {
    "all": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "lengths": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "nothing": [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0]],
    "holes": [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]],
}


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("forbidden", ["nothing", "labels", "transitions", "nearly all"])
def test_every_labelling(present: str, forbidden: str):
    nodes, transitions = scores(B, T, S), scores(B, S, S)
    if forbidden == "labels":
        nodes[0, :, 1] = nodes[1, 1, :2] = -math.inf
    if forbidden == "transitions":
        transitions[:, 1, 2] = transitions[0, 0] = -math.inf
    if forbidden == "nearly all":
        nodes[0, :, 1:] = nodes[1, 1] = -math.inf
    check_against_enumeration(rg.Chain(nodes, transitions, torch.tensor(PRESENT[present]).bool()))


def test_large_scores():
    check_against_enumeration(rg.Chain(1e4 * scores(B, T, S), 1e4 * scores(B, S, S), everywhere(B, T)))


def test_a_wrong_order_is_noticed(monkeypatch: pytest.MonkeyPatch):
    positions = rg.Chain(scores(B, T, S), scores(B, S, S), everywhere(B, T))
    monkeypatch.setattr(rg.Chain, "k_best", lambda self, k, right=rg.Chain.k_best: right(self, k).flip(-1))
    with pytest.raises(AssertionError):
        check_against_enumeration(positions)


def test_equal_scores_count_the_labellings():
    assert_close(rg.chain(torch.zeros(S, S))(torch.zeros(T, S)).log_z.exp(), torch.tensor(float(S**T)))
    assert_close(rg.segments(0.0)(torch.zeros(1, T)).log_z.exp(), torch.tensor([2.0**T]))
    spans = rg.semi_markov(T, torch.zeros(1, 1))(torch.zeros(T, 1))
    assert spans.log_z == 0, "one label cannot follow itself"


def test_a_chain_without_links_is_a_softmax_each():
    nodes = scores(B, T, S)
    assert_close(rg.chain(torch.zeros(S, S).double())(nodes).mean, nodes.softmax(-1))
    assert_close(rg.segments(0.0)(nodes).mean, nodes.sigmoid())


def test_start_and_stop_are_scores_of_the_ends():
    transitions, start, stop, nodes = scores(S, S), scores(S), scores(S), scores(4, S)
    positions = rg.chain(transitions, start, stop)(nodes, rg.padding(torch.tensor(3), 4).mT)
    plain = rg.chain(transitions)(nodes[:3])
    for z in itertools.product(range(S), repeat=3):
        ends = start[z[0]] + stop[z[2]] + score(z, nodes[:3], transitions)
        assert_close(positions.log_prob(torch.tensor([*z, -1])) + positions.log_z, ends)
    assert not torch.allclose(positions.log_z, plain.log_z)


@pytest.mark.parametrize("filling", [7.0, -math.inf, 1e30])
def test_padding_changes_nothing(filling: float):
    nodes, part = scores(B, T, S), rg.chain(scores(S, S), scores(S), scores(S))
    long = torch.cat((nodes, torch.full((B, 2, S), filling).double()), -2)
    short, padded = part(nodes), part(long, rg.padding(torch.tensor([T, T]), T + 2).mT)
    assert_close(padded.log_z, short.log_z)
    assert_close(padded.mean[:, :T], short.mean)
    assert (padded.mean[:, T:] == 0).all()
    assert (padded.mode == torch.nn.functional.pad(short.mode, (0, 2), value=-1)).all()
    assert (padded.sample((9,))[..., T:] == -1).all()


def test_what_is_absent_in_the_middle_cuts_the_chain():
    nodes, transitions = scores(T, S), scores(S, S)
    present = torch.tensor([True, True, False, True, True])
    cut = rg.Chain(nodes, transitions, present)
    left, right = (rg.Chain(each, transitions, everywhere(2)) for each in (nodes[:2], nodes[3:]))
    assert_close(cut.log_z, left.log_z + right.log_z)
    assert_close(cut.mean, torch.cat((left.mean, torch.zeros(1, S), right.mean)))


@pytest.mark.parametrize("over", [rg.chain, partial(rg.semi_markov, 2)])
def test_transitions_that_are_all_forbidden(over):
    positions = over(torch.full((S, S), -math.inf))(torch.randn(4, T, S).requires_grad_())
    assert positions.log_z.tolist() == [-math.inf] * 4
    assert (positions.mean == 0).all()
    assert (positions.entropy() == 0).all()
    nothing = torch.full((4, T), -1)
    for z in (positions.mode, positions.sample(), nothing):
        assert (z == nothing).all()
    assert (positions.log_prob(nothing) == 0).all()
    assert (positions.log_prob(torch.zeros_like(nothing)) == -math.inf).all()
    assert over(torch.full((S, S), -math.inf))(torch.zeros(1, S)).log_z.isfinite()


def test_draws_are_never_impossible():
    nodes = 1e4 * torch.randn(6, 40, S)
    nodes[torch.rand(nodes.shape) < 0.3] = -math.inf
    positions = rg.chain(torch.randn(S, S).where(torch.rand(S, S) < 0.8, -math.inf))(nodes)
    assert (positions.log_prob(positions.sample((50,))) > -math.inf).all()
    assert (positions.log_z > -math.inf).any()


def test_rows_are_independent():
    nodes, part = scores(4, T, S), rg.chain(scores(S, S))
    changed = nodes.clone()
    changed[0] = math.nan
    assert_close(part(changed).mean[1:], part(nodes).mean[1:])
    assert (part(changed).mode[1:] == part(nodes).mode[1:]).all()
    drawn = rg.chain(torch.zeros(S, S))(torch.zeros(64, T, S)).sample((2,))
    assert len(drawn.flatten(0, 1).unique(dim=0)) > 64, "no two rows or draws share their noise"


def test_inputs_are_not_changed():
    nodes, transitions, present = given = scores(B, T, S), scores(B, S, S), torch.tensor(PRESENT["holes"]).bool()
    before = [each.clone() for each in given]
    positions = rg.Chain(nodes.requires_grad_(), transitions, present)
    (positions.mean.square().sum() + positions.log_z.sum() + positions.entropy().sum()).backward()
    positions.features(positions.k_best(3))
    positions.features(positions.sample())
    assert all((now == then).all() for now, then in zip(given, before, strict=True))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_semi_markov_scores_spans(width: int):
    nodes, transitions, durations = scores(4, S), scores(S, S), scores(width, S)
    positions = rg.semi_markov(width, transitions, durations)(nodes)
    found = []
    for z in itertools.product(range(S), repeat=4):
        spans = [(label, len(list(run))) for label, run in itertools.groupby(z)]
        total = nodes[range(4), z].sum() + sum(transitions[i, j] for (i, _), (j, _) in itertools.pairwise(spans))
        fits = all(length <= width for _, length in spans)
        found.append(total + sum(durations[n - 1, label] for label, n in spans) if fits else -torch.inf + total)
        assert_close(positions.log_prob(torch.tensor(z)) + positions.log_z, found[-1])
    assert_close(positions.log_z, torch.stack(found).logsumexp(0))


def test_a_conditional_random_field_learns_what_no_position_shows():
    """Labels alternate, and the words say only how a sentence begins."""
    first = torch.randint(2, (64,))
    labels = (first.unsqueeze(-1) + torch.arange(6)) % 2
    words = torch.zeros(64, 6, 2)
    words[:, 0] = nn.functional.one_hot(first, 2).float()
    tagger, part = nn.Linear(2, 2), rg.chain(nn.Parameter(torch.zeros(2, 2)))
    optimizer = torch.optim.Adam([*tagger.parameters(), *part.parameters()], lr=0.1)
    for _ in range(60):
        loss = -part(tagger(words)).log_prob(labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (part(tagger(words)).mode == labels).all()
    assert not (tagger(words).argmax(-1) == labels).all(), "the positions alone do not tell"


class TestOtherPackages:
    def test_pytorch_crf(self):
        nodes, lengths = torch.randn(3, T, S), torch.tensor([5, 2, 1])
        theirs = torchcrf.CRF(S, batch_first=True)
        mask = rg.padding(lengths, T).squeeze(-2)
        ours = rg.chain(theirs.transitions, theirs.start_transitions, theirs.end_transitions)(nodes, mask.unsqueeze(-1))
        tags = torch.randint(S, (3, T))
        wanted = theirs(nodes, tags, mask, reduction="none")
        assert_close(ours.log_prob(tags.masked_fill(~mask, -1)), wanted)
        assert [row[row >= 0].tolist() for row in ours.mode] == theirs.decode(nodes, mask)

    @pytest.mark.filterwarnings("ignore:.*arg_constraints")
    def test_torch_struct(self):
        nodes, transitions = torch.randn(3, T, S), torch.randn(S, S)
        links = transitions.mT + nodes[:, 1:].unsqueeze(-1)  # (B, T - 1, S of the later, S of the earlier position)
        links = links + nn.functional.pad(nodes[:, :1].unsqueeze(-2), (0, 0, 0, 0, 0, T - 2))
        theirs, ours = LinearChainCRF(links), rg.chain(transitions)(nodes)
        assert_close(ours.log_z, theirs.partition)
        assert_close(ours.mean[:, 1:], theirs.marginals.sum(-1), rtol=1e-4, atol=1e-5)
        assert_close(ours.entropy(), theirs.entropy, rtol=1e-4, atol=1e-4)
        assert (ours.indicator(ours.mode)[:, 1:] == theirs.argmax.sum(-1)).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rg.chain(torch.zeros(2, 2))(torch.zeros(4, 3)),
            r"transitions expected \(3, 3\) as the last sizes for scores \(4, 3\), but got \(2, 2\).",
        ),
        (
            lambda: rg.chain(torch.zeros(3, 3), stop=torch.zeros(2))(torch.zeros(4, 3)),
            r"stop expected \(3,\) as the last sizes for scores \(4, 3\), but got \(2,\).",
        ),
        (lambda: rg.semi_markov(0, torch.zeros(3, 3)), "semi_markov expected max_width of at least 1, but got 0."),
        (
            lambda: rg.semi_markov(2, torch.zeros(3, 3), durations=torch.zeros(3, 3)),
            r"durations expected the shape \(2, S\), but got \(3, 3\).",
        ),
        (
            lambda: rg.segments()(torch.zeros(1, 40)).enumerate_support(),
            "enumerate_support expected at most 100000 events, but got 1099511627777.",
        ),
    ],
)
def test_errors_are_one_sentence(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
