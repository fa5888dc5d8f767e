"""What structured distributions share: exponential families over discrete structures."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.base import INFINITY, Positions


class Structure(Positions):
    """A distribution over structures z made of parts: p(z) = exp(features(z) . potentials) / Z.

    The features say how often each part is in z, the potentials score the parts. All else follows from the logarithm
    of Z and its gradient, the `marginals`, the expected features (Wainwright and Jordan 2008, section 3.2).

    An absent position is no part of the structure, and its place in the event is -1. Where no structure is possible
    (`log_z` is -inf) nothing is looked at: the one event is -1 throughout, and all weights are zero.
    """

    has_enumerate_support = True

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
    def features(self, z: Int[Tensor, "*SB N"]) -> Float[Tensor, "*SB P"]:
        """How often each part is in the event z."""

    @abstractmethod
    def k_best(self, k: int) -> Int[Tensor, "k *B N"]:
        """The k most probable events, the best first; -1 throughout where there are fewer."""

    @abstractmethod
    def _is_structure(self, z: Tensor) -> Tensor:
        """Whether each event is a structure of the positions that are present, (*S, *B)."""

    @property
    def mode(self) -> Int[Tensor, "*B N"]:
        """The most probable event."""
        return self.k_best(1)[0]

    def log_prob(self, value: Int[Tensor, "*SB N"]) -> Float[Tensor, "*SB"]:
        """The log-probability of the events, score less log Z; -inf where one is impossible. Of the structures that
        were observed it is what a conditional random field is trained by (Lafferty et al. 2001)."""
        log_z = self.log_z
        possible = log_z > -INFINITY
        valid = self._is_structure(value).where(possible, (value == -1).all(-1))
        score = _dot(self.features(value), self.potentials)
        return (score - log_z.masked_fill(~possible, 0)).masked_fill(~valid, -INFINITY)

    def entropy(self) -> Float[Tensor, "*B"]:
        """The entropy, log Z less the expected score, in nats; zero where no structure is possible."""
        return self.cross_entropy(self)

    def cross_entropy(self, other: "Structure") -> Float[Tensor, "*B"]:
        """The mean of -log q(z), q another distribution of the kind, in nats."""
        log_z = other.log_z
        none, impossible = self.log_z == -INFINITY, log_z == -INFINITY
        crossed = log_z.masked_fill(impossible, 0) - _dot(self.marginals, other.potentials)
        return crossed.masked_fill(none != impossible, INFINITY).masked_fill(none & impossible, 0)


def _dot(features: Tensor, potentials: Tensor) -> Tensor:
    """The sum of the products, (*S, *B), in which zero times infinity is zero."""
    return (features * potentials.masked_fill((features == 0) & (potentials == -INFINITY), 0)).sum(-1)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@register_kl(Structure, Structure)
def _kl_structure_structure(p: Structure, q: Structure) -> Tensor:
    if type(p) is not type(q):
        raise TypeError(f"kl expected another {type(p).__name__}, but got {type(q).__name__}.")
    return p.cross_entropy(q) - p.entropy()
