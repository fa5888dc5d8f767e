"""Structured attention: ours, torch-struct, pytorch-crf, synjax and the plain road; and what it adds to a training
step.

`regard bench structured` prints the marginals, log Z and the entropy of linear chains with their gradients, the best
labelling, the three best and a draw; the marginals of dependency trees; then the training step of a small translator
with segments, beside the same with softmax. With each gradient goes how far both sides are from float64: the largest
errors of the values, relative to the largest value, and of the gradients. Rows of synjax are there where it is
installed.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import torch
import torchcrf
from harness import Accurate, Row, compare, main, synjax
from torch import Tensor, nn
from torch.testing import assert_close
from torch_struct import DependencyCRF, LinearChainCRF, NonProjectiveDependencyCRF

import regard as rg

CHAINS = [(32, 50, 2), (32, 50, 20), (8, 500, 2)]
EXPONENTIALS = "torch.softmax of the scores with its gradient: each score is read once, and exponentiated"
SOFTMAX = "the same step with softmax"
PLAIN = "the plain road"
Answer = Callable[..., Tensor]
Call = Callable[..., list[Tensor]]
"""What answers a question about scores, and transitions if there are any; and the answer with its gradients."""

warnings.filterwarnings("ignore", ".*arg_constraints|.*uint8 condition")  # of torch-struct, of pytorch-crf


def measure(rounds: int) -> Iterable[Row]:
    """A row for each case and peer."""
    print(synjax.installed(), file=sys.stderr)
    for size in CHAINS:
        yield from chains(size, rounds)
    yield from trees(rounds)
    yield from training(rounds)


def chains(size: tuple[int, int, int], rounds: int) -> Iterable[Row]:
    """All questions of linear chains."""
    torch.manual_seed(0)
    given = torch.randn(size), torch.randn(size[-1], size[-1])
    bound = partial(trained(lambda scores, _: scores.softmax(-1)), *given)
    theirs = synjax.chain_questions()
    for kind, questions in {trained: trained_questions(), asked: other_questions()}.items():
        for name, (ours, peers) in questions.items():
            case = "chain, batch {}, K {}, S {}, ".format(*size) + name
            calls = {peer: kind(answer) for peer, answer in (peers | {PLAIN: plainly(ours)}).items()}
            calls |= {synjax.installed(): theirs[name]} if name in theirs else {}
            exact = calls[PLAIN](*(each.double() for each in given)) if kind is trained else None
            for peer, call in calls.items():
                if name != "a draw":
                    alike(kind(ours)(*given), call(*given))
                both = partial(kind(ours), *given), partial(call, *given)
                yield compared(case, peer, *both, exact, bound, size[0], rounds)


def trained_questions() -> dict[str, tuple[Answer, dict[str, Answer]]]:
    """What is asked and differentiated, how we answer it, and how others do."""
    log_z = {"torch-struct": lambda *given: struct(*given).partition, "pytorch-crf": crf_log_z}
    return {
        "marginals": (
            lambda *given: ours(*given).mean,
            {"torch-struct": lambda *given: of_labels(struct(*given).marginals)},
        ),
        "log Z": (lambda *given: ours(*given).log_z, log_z),
        "entropy": (lambda *given: ours(*given).entropy(), {"torch-struct": lambda *given: struct(*given).entropy}),
    }


def other_questions() -> dict[str, tuple[Answer, dict[str, Answer]]]:
    """The same of what has no gradient."""
    best = {"torch-struct": lambda *given: structs_labels(lambda found: found.argmax, *given), "pytorch-crf": crf_best}
    return {
        "best labelling": (lambda *given: ours(*given).mode, best),
        "the 3 best": (
            lambda *given: ours(*given).k_best(3),
            {"torch-struct": lambda *given: structs_labels(lambda found: found.topk(3), *given)},
        ),
        "a draw": (
            lambda *given: ours(*given).sample(),
            {"torch-struct": lambda *given: structs_labels(lambda found: found.sample((1,))[0], *given)},
        ),
    }


def trained(answer: Answer) -> Call:
    """The answer, and the gradient of the scores along a fixed direction."""

    def both(scores: Tensor, *rest: Tensor) -> list[Tensor]:
        leaf = scores.detach().requires_grad_()
        found = answer(leaf, *rest)
        along = torch.linspace(-1, 1, found.numel()).view_as(found).to(found)
        return [found.detach(), *torch.autograd.grad(found, leaf, along)]

    return both


def asked(answer: Answer) -> Call:
    """The answer alone."""
    return lambda *given: [answer(*(each.detach() for each in given)).detach()]


def plainly(answer: Answer) -> Answer:
    """The same, by the plain road."""

    def plain(*given: Tensor) -> Tensor:
        with rg.plain_road():
            return answer(*given)

    return plain


def alike(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Checks that both sides compute the same; torch-struct loses digits in float32, and adds 1e-5 to weights. Of
    labels one in a hundred may differ: of 1,600 with 20 kinds synjax's best labelling has three that are not the
    best."""
    for one, other in zip(ours, theirs, strict=True):
        if one.is_floating_point():
            assert_close(one, other, rtol=0.02, atol=0.02)
        else:
            assert (one != other).float().mean() < 0.01, "more than one label in a hundred differs"


def compared(
    case: str, peer: str, mine: Callable[[], list[Tensor]], theirs: Callable[[], list[Tensor]],
    exact: Sequence[Tensor] | None, bound: Callable[[], Any], items: int, rounds: int,
) -> Row:  # fmt: skip
    """A row, with the errors of both sides where the exact answer is given."""
    errors = [error(each(), exact) if exact else None for each in (mine, theirs)]
    row = compare(case, peer, mine, theirs, bound, EXPONENTIALS, items, rounds)
    return Accurate(**asdict(row), ours_error=errors[0], peer_error=errors[1])


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    """The largest errors of the values, relative to the largest value, and of the gradients."""
    values, gradients = ((one - truth).abs().max().item() for one, truth in zip(found, exact, strict=True))
    return values / exact[0].abs().max().item(), gradients


def ours(scores: Tensor, transitions: Tensor) -> rg.Chain:
    return layer(transitions)(scores)


layer = cache(rg.chain)
"""A model makes it once."""


def struct(scores: Tensor, transitions: Tensor) -> LinearChainCRF:
    """The same in the layout of torch-struct, (B, K - 1, S of the later, S of the earlier position)."""
    links = transitions.mT + scores[:, 1:].unsqueeze(-1)
    first = nn.functional.pad(scores[:, :1].unsqueeze(-2), (0, 0, 0, 0, 0, scores.shape[1] - 2))
    return LinearChainCRF(links + first)


def structs_labels(ask: Callable[[LinearChainCRF], Tensor], scores: Tensor, transitions: Tensor) -> Tensor:
    """The labels of its labellings; of scores that require a gradient, without which it fails."""
    return of_labels(ask(struct(scores.requires_grad_(), transitions))).argmax(-1)


def of_labels(links: Tensor) -> Tensor:
    return torch.cat((links[..., :1, :, :].sum(-2), links.sum(-1)), -2)


def crf(transitions: Tensor) -> torchcrf.CRF:
    made = torchcrf.CRF(len(transitions), batch_first=True)
    for parameter, value in zip(made.parameters(), (0.0, 0.0, transitions), strict=True):
        parameter.data = torch.as_tensor(value).expand_as(parameter).clone()
    return made


def crf_log_z(scores: Tensor, transitions: Tensor) -> Tensor:
    everywhere: Any = torch.ones(scores.shape[1::-1], dtype=torch.bool)  # (K, B)
    return crf(transitions)._compute_normalizer(scores.transpose(0, 1), everywhere)


def crf_best(scores: Tensor, transitions: Tensor) -> Tensor:
    return torch.tensor(crf(transitions).decode(scores))


def trees(rounds: int) -> Iterable[Row]:
    """Marginals of 16 sentences of 40 words."""
    scores = torch.randn(16, 40, 40)
    bound = partial(trained(lambda scores: scores.softmax(-1)), scores)
    for projective, name in ((True, "projective"), (False, "non-projective")):
        ours = partial(our_arcs, projective)
        peers = {"torch-struct": partial(structs_arcs, projective), PLAIN: plainly(ours)}
        theirs = synjax.tree_marginals(projective)
        for kind, what in ((trained, ", with gradient"), (asked, "")):
            calls = {peer: kind(answer) for peer, answer in peers.items()}
            calls |= {synjax.installed(): theirs[kind is asked]} if theirs else {}
            exact = calls[PLAIN](scores.double()) if kind is trained else None
            for peer, call in calls.items():
                alike(kind(ours)(scores), call(scores))
                both = partial(kind(ours), scores), partial(call, scores)
                case = f"{name} tree, batch 16, 40 words, marginals{what}"
                yield compared(case, peer, *both, exact, bound, 16, rounds)


def our_arcs(projective: bool, scores: Tensor) -> Tensor:
    return rg.tree(projective, single_root=projective)(scores).mean


def structs_arcs(projective: bool, scores: Tensor) -> Tensor:
    """With the heads in the rows, and of scores that require a gradient, without which it fails."""
    kind = DependencyCRF if projective else NonProjectiveDependencyCRF
    return kind(scores.mT.contiguous().requires_grad_(), multiroot=not projective).marginals.mT


class Translator(nn.Module):
    """An encoder and a decoder of one layer, with attention at every word (Bahdanau et al. 2015)."""

    def __init__(self, over: Callable, words: int = 1000, dim: int = 128):
        super().__init__()
        self.source, self.target = nn.Embedding(words, dim), nn.Embedding(words, dim)
        self.encoder = nn.GRU(dim, dim, batch_first=True)
        self.attention = rg.Attention(score=rg.Additive(dim, dim, dim), over=over, read=rg.mean)
        self.decoder = nn.GRUCell(2 * dim, dim)
        self.output = nn.Linear(2 * dim, words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        keys, last = self.encoder(self.source(source))
        memory, hidden, states = self.attention.prepare(keys, keys), last[0], []
        for word in self.target(target).unbind(1):
            context = self.attention(hidden.unsqueeze(1), memory).context.squeeze(1)
            hidden = self.decoder(torch.cat((word, context), -1), hidden)
            states.append(torch.cat((hidden, context), -1))
        return self.output(torch.stack(states, 1))


def training(rounds: int) -> Iterable[Row]:
    """A step of Adam on 32 pairs of 30 words."""
    source, target = torch.randint(1000, (2, 32, 30))
    segments, softmax = (step(over, source, target) for over in (rg.segments(nn.Parameter(torch.ones(()))), rg.softmax))
    yield compare("training step with segments", SOFTMAX, segments, softmax, softmax, SOFTMAX, 32, rounds)


def step(over: Callable, source: Tensor, target: Tensor) -> Callable[[], None]:
    model = Translator(over)
    optimizer = torch.optim.Adam(model.parameters())

    def trained_once() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(source, target).flatten(0, 1), target.flatten()).backward()
        optimizer.step()

    return trained_once


if __name__ == "__main__":
    main("structured", measure)
