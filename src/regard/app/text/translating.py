"""The translations of any number of texts by a trained translator, and whether it mattered where their words looked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

import regard as rg
from regard.app.explaining import Explained
from regard.app.text import decoding
from regard.app.text.captioning import ended
from regard.app.text.comprehension import read_by
from regard.app.text.networks import Recurrent
from regard.app.text.vocabulary import BEGIN, END

SUBWORDS = 10_000
"""Subwords of the sentences that are translated together."""


@torch.no_grad()
def translated(model: Any, texts: Sequence[str], beam: int = 5, normalise: float = 1.0) -> list[str]:
    """The translations of texts, in their order, by beam search, or greedily where the beam is 1; nothing of nothing.

    Texts of about the same length are translated together. Raises ValueError unless the beam is at least one.
    """
    found, numbers = [""] * len(texts), model.vocabulary.encode(texts)
    for rows in _together([len(each) for each in numbers]):
        source = pad_sequence([torch.tensor([*numbers[n], END]) for n in rows], batch_first=True)
        state, most = model.begin(source), model.longest(source)
        if beam == 1:
            words = decoding.greedy(model.step, state, most)
        else:
            words = decoding.beam(model.step, state, most, beam, normalise)
        for n, each in zip(rows, words, strict=True):
            found[n] = model.vocabulary.decode(each.tolist())
    return found


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which texts to translate together: the longest first, as many as have `SUBWORDS` in all; none without any.

    >>> list(_together([3, 0, 9000, 5]))
    [[2], [3, 0]]
    """
    rows = sorted((n for n, length in enumerate(lengths) if length), key=lambda n: -lengths[n])
    while rows:
        count = max(1, min(64, SUBWORDS // lengths[rows[0]]))
        yield rows[:count]
        rows = rows[count:]


def alone(words: Int[Tensor, "N T"], t: Int[Tensor, " N"]) -> Int[Tensor, "N T"]:
    """The words at places t alone, 0 elsewhere.

    >>> alone(torch.tensor([[5, 6], [7, 8]]), torch.tensor([1, 0]))
    tensor([[0, 6],
            [7, 0]])
    """
    return words.where(torch.arange(words.shape[1], device=t.device) == t.unsqueeze(-1), 0)


def explained(model: Any, batch: Mapping[str, Tensor], cost: Callable[..., Tensor]) -> Explained | None:
    """Each word of the greedy translations, END too, by the words of the sentence that are kept, the others' vectors
    being zero; where it looked; and of a hard read the certificate that a word was told from no place that was read
    neither by it nor by those before it, which hand on what they read. `cost` is that of words, given the model, what
    is decoded, the state, the words and no smoothing. Nothing of models that cannot choose where to look."""
    if model.config.attention == "none":
        return None
    source, network = batch["source"], model.network
    written = ended(model.greedy(source))
    n, t = (written > 0).nonzero(as_tuple=True)
    words, present = written[n], source[n] > 0  # a row for each word
    before = model.vectors(torch.cat((torch.full_like(words[:, :1], BEGIN), words[:, :-1]), 1))
    vectors, state = model.vectors(source)[n], rg.select(model.begin(source), n)
    decoded, _ = network(before, state)
    rows, target = torch.arange(len(n), device=n.device), alone(words, t)
    some = torch.cat([read_by(look) for look in decoded.looks], -2) if isinstance(network, Recurrent) else None

    def answer(kept: Tensor) -> Tensor:
        found, after = network(before, network.begin(vectors * kept.unsqueeze(-1), present))
        return (-cost(model, found, after, target, 0.0).sum(-1)).exp()

    def logits(values: Tensor) -> Tensor:
        found, _ = network(before, state._replace(memory=replace(state.memory, values=values)))
        return model.logits(found.features[rows, t])

    def reading(weights: Tensor) -> Tensor:
        context = (weights.unsqueeze(1) @ state.memory.values).squeeze(1)
        return model.logits(network.joined(context, decoded.hidden[rows, t])).softmax(-1)

    found = Explained(answer, _as_long(decoded.weights[rows, t], present), present, gradual=True)
    if some is None or model.latent:
        return found
    there, read = present[:, : some.shape[-1]], some[rows, t]
    found = found._replace(permuted=lambda: rg.faithfulness.permutation(reading, read, there))
    if decoded.looks[0].z is None:
        return found
    known = (some.cummax(1).values[rows, t] > 0) | ~there
    return found._replace(unread=lambda: rg.faithfulness.certificate(logits, state.memory.values, known))


def _as_long(weights: Tensor, present: Tensor) -> Tensor:
    """Weights of all places, of which the last may be too far away to be looked at."""
    return pad(weights, (0, present.shape[-1] - weights.shape[-1]))
