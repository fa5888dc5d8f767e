"""Structured attention: ours, torch-struct, pytorch-crf and the plain road; and what it adds to a training step.

`regard bench structured` prints the marginals with their gradient, log Z with its gradient and the best labelling of
linear chains, the marginals of dependency trees, then the training step of a small translator with segments, beside
the same with softmax.
"""

import warnings
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
import torchcrf
from harness import Row, compare, main
from torch import Tensor, nn
from torch.testing import assert_close
from torch_struct import DependencyCRF, LinearChainCRF, NonProjectiveDependencyCRF

import regard as rg
from regard.positions.algorithms import linear_chain
from regard.positions.algorithms.trees import plain_marginals as plain_arcs

CHAINS = [(32, 50, 2), (32, 50, 20), (8, 500, 2)]
EXPONENTIALS = "torch.softmax of the scores with its gradient: each score is read once, and exponentiated"
SOFTMAX = "the same step with softmax"
PLAIN = "the plain road"
Weights = Callable[[Tensor, Tensor], Tensor]

warnings.filterwarnings("ignore", ".*arg_constraints|.*uint8 condition")  # of torch-struct, of pytorch-crf


def measure(rounds: int) -> Iterable[Row]:
    """A row for each case and peer."""
    for size in CHAINS:
        yield from chains(size, rounds)
    yield from trees(rounds)
    yield from training(rounds)


def chains(size: tuple[int, int, int], rounds: int) -> Iterable[Row]:
    """Marginals, log Z and the best labelling."""
    torch.manual_seed(0)
    scores, transitions = torch.randn(size), torch.randn(size[-1], size[-1])
    case = "chain, batch {}, K {}, S {}, ".format(*size)
    bound = partial(trained, lambda scores, _: scores.softmax(-1), scores, transitions)
    for name, (ours, peers, question) in questions().items():
        found = question(ours, scores, transitions)
        if PLAIN in peers:
            assert_close(
                found, [each.float() for each in question(peers[PLAIN], scores.double(), transitions.double())]
            )
        for peer, theirs in peers.items():
            mine, other = (partial(question, each, scores, transitions) for each in (ours, theirs))
            assert_close(found, other(), rtol=0.02, atol=0.02)  # in float32 torch-struct loses digits
            yield compare(case + name, peer, mine, other, bound, EXPONENTIALS, size[0], rounds)


def questions() -> dict[str, tuple[Weights, dict[str, Weights], Callable[[Weights, Tensor, Tensor], list[Tensor]]]]:
    """What is asked, how we answer it, how others do, and what is timed."""
    marginals = {"torch-struct": structs_marginals, PLAIN: plain_marginals}
    log_z = {
        "torch-struct": lambda *given: struct(*given).partition,
        "pytorch-crf": crf_log_z,
        PLAIN: plain_log_z,
    }
    best = {"torch-struct": structs_best, "pytorch-crf": crf_best}
    return {
        "marginals, forward and backward": (lambda *given: ours(*given).mean, marginals, trained),
        "log Z, forward and backward": (lambda *given: ours(*given).log_z, log_z, trained),
        "best labelling": (lambda *given: ours(*given).mode, best, lambda answer, *given: [answer(*given)]),
    }


def trained(answer: Weights, scores: Tensor, transitions: Tensor) -> list[Tensor]:
    """The answer, and its gradients along a fixed direction."""
    leaf = scores.detach().requires_grad_()
    found = answer(leaf, transitions)
    return [
        found.detach(),
        *torch.autograd.grad(found, leaf, torch.linspace(-1, 1, found.numel()).view_as(found).to(found)),
    ]


def ours(scores: Tensor, transitions: Tensor) -> rg.Chain:
    return layer(transitions)(scores)


layer = cache(rg.chain)
"""A model makes it once."""


def struct(scores: Tensor, transitions: Tensor) -> LinearChainCRF:
    """The same in the layout of torch-struct, (B, K - 1, S of the later, S of the earlier position)."""
    links = transitions.mT + scores[:, 1:].unsqueeze(-1)
    first = nn.functional.pad(scores[:, :1].unsqueeze(-2), (0, 0, 0, 0, 0, scores.shape[1] - 2))
    return LinearChainCRF(links + first)


def structs_marginals(scores: Tensor, transitions: Tensor) -> Tensor:
    return of_labels(struct(scores, transitions).marginals)


def structs_log_z(scores: Tensor, transitions: Tensor) -> Tensor:
    return struct(scores, transitions).partition


def structs_best(scores: Tensor, transitions: Tensor) -> Tensor:
    return of_labels(struct(scores.requires_grad_(), transitions).argmax).argmax(-1)


def of_labels(links: Tensor) -> Tensor:
    return torch.cat((links[:, :1].sum(-2), links.sum(-1)), 1)


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


def plain_marginals(scores: Tensor, transitions: Tensor) -> Tensor:
    chain = ours(scores, transitions)
    return linear_chain.plain_label_means(*chain._parts)


def plain_log_z(scores: Tensor, transitions: Tensor) -> Tensor:
    return linear_chain.plain_log_partition(*ours(scores, transitions)._parts)


def trees(rounds: int) -> Iterable[Row]:
    """Marginals of 16 sentences of 40 words."""
    scores, present = torch.randn(16, 40, 40), torch.ones(16, 40, dtype=torch.bool)
    bound = partial(trained_arcs, lambda scores: scores.softmax(-1), scores)
    for projective, name in ((True, "projective"), (False, "non-projective")):
        ours = partial(our_arcs, projective)
        plain = lambda scores, projective=projective: plain_arcs(scores, present, projective, projective)  # noqa: E731
        for peer, theirs in {"torch-struct": partial(structs_arcs, projective), "the plain road": plain}.items():
            for ask, what in ((trained_arcs, "marginals, forward and backward"), (arcs, "marginals")):
                one, other = partial(ask, ours, scores), partial(ask, theirs, scores)
                assert_close(one(), other(), rtol=0, atol=5e-3)  # torch-struct adds 1e-5 to every weight
                case = f"{name} tree, batch 16, 40 words, {what}"
                yield compare(case, peer, one, other, bound, EXPONENTIALS, 16, rounds)


def our_arcs(projective: bool, scores: Tensor) -> Tensor:
    return rg.tree(projective, single_root=projective)(scores).mean


def structs_arcs(projective: bool, scores: Tensor) -> Tensor:
    """With the heads in the rows, and of scores that require a gradient, without which it fails."""
    kind = DependencyCRF if projective else NonProjectiveDependencyCRF
    return kind(scores.mT.contiguous().requires_grad_(), multiroot=not projective).marginals.mT


def arcs(answer: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    return answer(scores.detach()).detach()


def trained_arcs(answer: Callable[[Tensor], Tensor], scores: Tensor) -> list[Tensor]:
    return trained(lambda scores, _: answer(scores), scores, scores)


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
