"""Sounds written down while they are heard: what was read of them, and when each symbol was written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import regard as rg
from regard.app.speech.decoding import ending
from regard.app.speech.features import STEP
from regard.app.speech.networks import AHEAD, SHRINK
from regard.app.speech.scoring import errors
from regard.app.text.vocabulary import BEGIN, END


class Reader:
    """Places (B, K, D) that are read a few at a time, and a note of which have been.

    >>> reader = Reader(torch.ones(2, 5, 3))
    >>> reader.read(torch.tensor([[0, 1], [1, 1]])).shape, reader.seen.sum(-1)
    (torch.Size([2, 2, 3]), tensor([2, 1]))
    """

    def __init__(self, places: Float[Tensor, "B K D"]):
        self.places = places
        self.seen: Bool[Tensor, "B K"] = torch.zeros_like(places[..., 0], dtype=torch.bool)

    def read(self, z: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """What lies at the places z of each row."""
        self.seen.scatter_(1, z, True)
        return self.places.take_along_dim(z.unsqueeze(-1), 1)


class Written(NamedTuple):
    """What was written of B sounds."""

    symbols: list[Tensor]
    stops: list[Tensor]
    """The place at which each symbol was written."""
    compared: Float[Tensor, " B"]
    """The share of the places with which a query was compared."""
    read: Float[Tensor, " B"]
    """The share of the places that were read."""


def write(model: Any, batch: Mapping[str, Tensor]) -> Written:
    """What a model of monotonic attention writes by `regard.attend_online`: each query begins where the one before
    stopped, and nothing behind its own stop is looked at. The encoder being local, neither is the sound, but for what
    a place knows of the frames behind it."""
    speller, (states, count) = model.speller, model(batch)
    state, part = speller.begin(states, count), speller.attention
    keys, values = Reader(state.memory.values), Reader(state.memory.values)
    words, going = torch.full_like(count, BEGIN), torch.ones_like(count, dtype=torch.bool)
    carried, written, stops = rg.State(state.attention.score, 0 * count), [], []
    while going.any() and len(written) < int(state.places.max()):
        query = speller.ask(words, state)
        found = rg.attend_online(
            query.unsqueeze(1), keys, values, score=part.score, over=part.over, state=carried, places=state.places
        )
        state = state._replace(context=found.context.squeeze(1), hidden=query)
        words = ending(speller.tell(state.context, query), found).argmax(-1)
        going = going & (words != END) & (state.places > len(written))
        written.append(words.where(going, END))
        stops.append(found.z.squeeze(1))
        carried = found.state._replace(over=stops[-1].where(going, -1))  # who has ended reads no more
    lengths = (torch.stack(written, 1) != END).sum(1).tolist()
    symbols, places = ([row[:n] for row, n in zip(torch.stack(each, 1), lengths)] for each in (written, stops))  # noqa: B905
    shares = (reader.seen.sum(-1) / state.places for reader in (keys, values))
    return Written(symbols, places, *shares)


def values(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `evaluate` of the recipe says, by writing online, and beside it the shares of the places that were compared
    and read; and of symbols of strings without an error the `latency`, in frames: how long after its end each was
    written, as the frames that must have been heard for it."""
    found = write(model, batch)
    wrong = errors(found.symbols, batch["target"])
    right = [
        SHRINK * stops + AHEAD - ends[: len(stops)] / (STEP * model.rate)
        for stops, ends, error in zip(found.stops, batch["ends"], wrong["error"], strict=True)
        if not error and len(ends)
    ]
    written = torch.cat(right) if right else torch.zeros(0)
    return wrong | {"compared": found.compared, "read": found.read, "latency": written}
