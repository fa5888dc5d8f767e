"""A training step of the recipe caption, against the same model in plain PyTorch.

The peer is written as public ports of Xu et al. 2015 write it: an LSTM cell in a loop over the words, at each of which
the additive scores of all places, their softmax, the weighted sum, the gate and the deep output are computed; by hard
attention, as many draws one after the other. `regard bench caption` times forward and backward of what looks and
writes, from places that are given, at the sizes of digits, emoji and Flickr8k, and of a whole step on digits, with the
network that sees the places, which both sides have in common.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from harness import Row, compare, main
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import regard as rg
from regard.app.text.captioning import Teller
from regard.app.text.vocabulary import BEGIN
from regard.app.vision.places import Learned

SIZES = {"digits": (64, 225, 64, 5, 17), "emoji": (64, 64, 128, 9, 1500), "Flickr8k": (32, 169, 256, 14, 1000)}
"""Pictures, places of a picture, numbers at each, words of a caption, and words that are known."""
HIDDEN, DRAWS = 256, 4
LIMITS = {
    False: "the products of what writes, by torch.mm, thrice",
    True: "the network that sees the places, and the products of what writes, thrice",
}


def measure(rounds: int) -> Iterable[Row]:
    """A row for each size, soft and hard, and for a whole step of each."""
    for name in SIZES:
        for hard in (False, True):
            yield row(name, hard, rounds)
    for hard in (False, True):
        yield row("digits", hard, rounds, whole=True)


def row(name: str, hard: bool, rounds: int, whole: bool = False) -> Row:
    """One row, after a check that both compute the same."""
    torch.manual_seed(0)
    count, places, size, words, known = SIZES[name]
    attention = rg.Attention(rg.Additive(HIDDEN, size, 128), rg.softmax, rg.hard if hard else rg.mean)
    teller = Teller(known, places, size, HIDDEN, 0.0, attention)
    given = torch.rand(count, 1, 60, 60) if whole else torch.randn(count, places, size, requires_grad=True)
    sees = Learned((1, 60, 60), size, 4) if whole else nn.Identity()
    target = torch.randint(4, known, (count, words))
    z = torch.randint(places, (DRAWS, count, words)) if hard else None
    mine, theirs = (partial(step, sees, teller, partial(cost, teller, target, z), given) for cost in (ours, plain))
    assert_close(mine(), theirs(), rtol=1e-3, atol=1e-4)
    what = f"{f'hard, {DRAWS} draws' if hard else 'soft'}, {'a whole step' if whole else f'{places} places of {size}'}"
    bound = partial(products, sees, teller, given, target)
    return compare(
        f"{name}, {what}, {count} pictures", "plain PyTorch", mine, theirs, bound, LIMITS[whole], count, rounds
    )


def step(sees: nn.Module, teller: Teller, cost: Callable[[Tensor], Tensor], given: Tensor) -> list[Tensor]:
    """The cost, and its gradients in the weights and in what is given."""
    wanted = [*sees.parameters(), *teller.parameters(), *([given] if given.requires_grad else [])]
    found = cost(sees(given))
    return [found.detach(), *torch.autograd.grad(found, wanted)]


def ours(teller: Teller, target: Tensor, z: Tensor | None, places: Tensor) -> Tensor:
    """The mean cost of a word, and with places z that were drawn what trains the policy."""
    state = teller.begin(places)
    told = teller(target, state)
    if z is None:
        return teller.cost(told, told.looked.context, target).mean()
    costs = teller.cost(told, told.looked.positions.gather(state.memory.values, z), target)
    return (costs + rg.leave_one_out(told.looked.positions.log_prob(z), costs)).mean()


def plain(teller: Teller, target: Tensor, z: Tensor | None, places: Tensor) -> Tensor:
    """The same, word by word."""
    state, cell, costs = teller.start(places.mean(1)).tanh().chunk(2, -1), as_cell(teller.recurrent), []
    places = places + teller.where
    keys = teller.attention.score.key(places)
    for t in range(target.shape[1]):
        before = teller.words(target[:, t - 1] if t else torch.full_like(target[:, 0], BEGIN))
        state = cell(before, state)
        weights = score(teller.attention.score, state[0], keys).softmax(-1)  # (B, K)
        if z is None:
            costs.append(told(teller, state[0], before, (weights.unsqueeze(-1) * places).sum(1), target[:, t]).mean())
        else:
            read = [places[torch.arange(len(places)), each] for each in z[:, :, t]]
            cost = torch.stack([told(teller, state[0], before, each, target[:, t]) for each in read])
            others = (cost.sum(0) - cost) / (DRAWS - 1)
            log_prob = weights.log().gather(1, z[:, :, t].T).T  # (S, B)
            costs.append((cost + (cost - others).detach() * (log_prob - log_prob.detach())).mean())
    return torch.stack(costs).mean()


def as_cell(recurrent: nn.LSTM) -> Callable[..., tuple[Tensor, Tensor]]:
    """A step of the LSTM."""
    return partial(
        _cell, [getattr(recurrent, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    )


def _cell(weights: list[Tensor], word: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.lstm_cell(word, state, *weights)


def score(additive: rg.Additive, query: Tensor, keys: Tensor) -> Tensor:
    """The additive scores of the places, (B, K)."""
    return additive.energy((additive.query(query).unsqueeze(1) + keys).tanh()).squeeze(-1)


def told(teller: Teller, hidden: Tensor, before: Tensor, context: Tensor, target: Tensor) -> Tensor:
    """The cost of a word, (B,)."""
    seen = teller.seen(teller.gate(hidden).sigmoid() * context)
    return cross_entropy(
        teller.score((seen + teller.own(hidden) + teller.word(before)).tanh()), target, reduction="none"
    )


@torch.no_grad()
def products(sees: nn.Module, teller: Teller, given: Tensor, target: Tensor) -> None:
    """The products with the weights alone."""
    weights: Any = teller.recurrent
    for _ in range(3):
        places = sees(given)
        teller.attention.score.key(places)
        words = teller.words(target).flatten(0, 1)  # (B T, H)
        torch.mm(words, weights.weight_ih_l0.T)
        torch.mm(words, weights.weight_hh_l0.T)
        teller.score(teller.own(teller.word(words)))


if __name__ == "__main__":
    main("caption", measure)
