"""What structured distributions share: exponential families over discrete structures."""

from abc import abstractmethod
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.distributions import register_kl

from regard.kernels.registry import is_transformed
from regard.positions.base import INFINITY, Positions, take, wide
from regard.positions.several import check_enumerable

S = TypeVar("S", bound="Structure")
NO_EVENT = torch.iinfo(torch.long).min
"""An event of this is none: it fills the support of the rows that have fewer events than others."""


class Structure(Positions):
    """A distribution over structures z made of parts: p(z) = exp(features(z) . potentials) / Z.

    The features say how often each part is in z, the potentials score the parts. All else follows from the logarithm
    of Z and its gradient, the `marginals`, the expected features (Wainwright and Jordan 2008, section 3.2).

    An absent position is no part of the structure: its place in the event is -1, and what an event that is given has
    there is ignored. Where no structure is possible (`log_z` is -inf) nothing is looked at: the one event is -1
    throughout, and all weights are zero.

    Log Z and the score of a structure may be large and their difference small, so that it is taken in float64.
    """

    has_enumerate_support = True
    scores: Tensor
    present: Bool[Tensor, "*B N"]

    @property
    @abstractmethod
    def choices(self) -> int:
        """How many labels, or heads, a position may have."""

    @property
    @abstractmethod
    def potentials(self) -> Float[Tensor, "*B P"]:
        """The score of each of the P parts."""

    @property
    @abstractmethod
    def log_z(self) -> Float[Tensor, "*B"]:
        """The logarithm of the sum of exp(score) over all structures, -inf where there is none."""

    @property
    @abstractmethod
    def marginals(self) -> Float[Tensor, "*B P"]:
        """How often each part is expected, the gradient of log Z in the potentials."""

    @abstractmethod
    def features(self, z: Integer[Tensor, "*SB N"]) -> Float[Tensor, "*SB P"]:
        """How often each part is in the event z."""

    def _score(self, z: Integer[Tensor, "*SB N"]) -> Float[Tensor, "*SB"]:
        """The sum of the scores of the parts of the event z."""
        return _dot(self.features(z), self.potentials)

    def indicator(self, z: Integer[Tensor, "*SB N"]) -> Float[Tensor, "*SB N S"]:
        """The labels, or heads, as a 0/1 tensor, a row of zeros where a position is absent."""
        choices = torch.arange(self.choices, device=z.device)
        return (self._where_present(z).unsqueeze(-1) == choices).to(self.scores.dtype)

    @abstractmethod
    def k_best(self, k: int) -> Int[Tensor, "k *B N"]:
        """The k most probable events, the best first; -1 throughout where there are fewer."""

    @abstractmethod
    def _is_structure(self, z: Tensor) -> Tensor:
        """Whether each event is a structure of the positions that are present, (*S, *B)."""

    def _is_apart(self, other: Any) -> Tensor | bool:
        """Whether the structures of this are none of the other, one of its kind, whatever the scores are, (*B)."""
        return False

    def _with_parts_of(self: S, other: S) -> S:
        """The same distribution, made of the parts of another one of its kind where that has more."""
        return self

    @property
    def mode(self) -> Int[Tensor, "*B N"]:
        """The most probable event."""
        return self.k_best(1)[0]

    def log_prob(self, value: Integer[Tensor, "*SB N"]) -> Float[Tensor, "*SB"]:
        """The log-probability of the events, score less log Z; -inf where one is impossible. Of the structures that
        were observed it is what a conditional random field is trained by (Lafferty et al. 2001).

        Raises ValueError for a label that is out of range at a position that is present (but while compiling and under
        transforms of `torch.func`, where it is impossible), unless it is -1 at all of them.
        """
        return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        value = value.long()
        z, exact = self._checked(value), doubled(self)
        log_z = exact.log_z
        possible = log_z > -INFINITY
        nothing, event = (each.flatten(-len(self.event_shape)).all(-1) for each in (z == -1, value != NO_EVENT))
        valid = self._is_structure(z).where(possible, nothing) & event
        log_prob = (exact._score(z) - log_z.masked_fill(~possible, 0)).masked_fill(~valid, -INFINITY)
        return log_prob.to(wide(self.scores).dtype)

    def entropy(self) -> Float[Tensor, "*B"]:
        """The entropy, log Z less the expected score, in nats; zero where no structure is possible."""
        return self.cross_entropy(self)

    def cross_entropy(self, other: "Structure") -> Float[Tensor, "*B"]:
        """The mean of -log q(z), q another distribution of the kind, in nats."""
        return _cross_entropies(*_alike(self, other))[0].to(wide(self.scores).dtype)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B N"]:
        """Every choice of a label for each position that is present, in lexical order, and last -1 throughout. Where
        an absent position leaves fewer events than that, the others are none and have the probability zero.

        Without `expand` the events of a row that lacks nothing.
        """
        length = self.event_shape[0]
        check_enumerable(self.choices**length + 1)
        places = self.choices ** torch.arange(length - 1, -1, -1, device=self.device)
        support = torch.arange(self.choices**length, device=self.device).unsqueeze(-1) // places % self.choices
        if length:
            support = torch.cat((support, torch.full_like(support[:1], -1)))
        support = support.view(len(support), *(1 for _ in self.batch_shape), length)
        return self._told_apart(support) if expand else support

    def _told_apart(self, events: Tensor) -> Tensor:
        """The events (E, *B, N) with -1 at absent positions; of those that are then the same, only the first is one."""
        nothing = (events == -1).all(-1) & ~self.present.any(-1)
        again = ((events > 0) & ~self.present).any(-1) | nothing
        return events.where(self.present, -1).masked_fill(again.unsqueeze(-1), NO_EVENT)

    def gather(self, values: Any, z: Integer[Tensor, "*SB N"]) -> Float[Tensor, "*SB N V"]:
        """The values (*B, K, V) at the labels, zero where a position is absent."""
        return super().gather(values, self._where_present(z))

    def _where_present(self, z: Tensor) -> Tensor:
        return z.long().where(self.present, -1)

    def _checked(self, value: Tensor) -> Tensor:
        """The event with -1 at the absent positions."""
        z = self._where_present(value)
        if may_be_read(z):
            outside = self.present & ((z < 0) | (z >= self.choices)) & (value != NO_EVENT)
            outside = outside & ~(z == -1).all(-1, keepdim=True)
            if outside.any():
                raise ValueError(
                    f"value expected labels from 0 to {self.choices - 1} where a position is present, "
                    f"or -1 throughout, but got {z[outside.expand_as(z)][0]}."
                )
        return z


def _alike(p: S, q: S) -> tuple[S, S]:
    """Both in float64, made of the same parts."""
    exact = doubled(p)
    other = exact if q is p else doubled(q)
    return exact._with_parts_of(other), other._with_parts_of(exact)


def _cross_entropies(p: Structure, *others: Structure) -> list[Tensor]:
    """The means of -log q(z) of the others q under p, which may be one of them."""
    log_z, marginals, found = p.log_z, p.marginals, []
    for q in others:
        sums = log_z if q is p else q.log_z
        none, impossible = log_z == -INFINITY, sums == -INFINITY
        crossed = sums.masked_fill(impossible, 0) - _dot(marginals, q.potentials)
        apart = (none != impossible) | (q is not p and p._is_apart(q))
        found.append(crossed.masked_fill(apart, INFINITY).masked_fill(none & impossible, 0))
    return found


def _dot(features: Tensor, potentials: Tensor) -> Tensor:
    """The sum of the products, (*S, *B), in which zero times infinity is zero."""
    return (features * potentials.masked_fill((features == 0) & (potentials == -INFINITY), 0)).sum(-1)


def chosen(scores: Tensor, z: Tensor) -> Tensor:
    """The scores (*B, ..., S) at the indices (*SB, ..., N), zero where these are below zero."""
    return take(scores, z.clamp(0, max(scores.shape[-1] - 1, 0)), -1).masked_fill(z < 0, 0)


def doubled(structure: S) -> S:
    """The same distribution in float64."""
    tensors = {each.name: getattr(structure, each.name) for each in fields(structure)}  # pyright: ignore
    exact = {
        name: _double(each)
        for name, each in tensors.items()
        if isinstance(each, Tensor) and each.dtype.is_floating_point
    }
    return replace(structure, **exact)  # pyright: ignore


def _double(tensor: Tensor) -> Tensor:
    """In float64; what stands there once for many rows still does."""
    once = tensor[tuple(slice(1 if stride == 0 else None) for stride in tensor.stride())]
    return once.double().expand(tensor.shape)


def may_be_read(tensor: Tensor) -> bool:
    """Whether its numbers may decide what happens next: not while compiling, nor under transforms."""
    return type(tensor) is Tensor and not torch.compiler.is_compiling() and not is_transformed()


@register_kl(Structure, Structure)
def _kl_structure_structure(p: Structure, q: Structure) -> Tensor:
    if type(p) is not type(q):
        raise TypeError(f"kl expected another {type(p).__name__}, but got {type(q).__name__}.")
    exact, other = _alike(p, q)
    crossed, entropy = _cross_entropies(exact, other, exact)
    return (crossed - entropy).to(wide(p.scores).dtype)
