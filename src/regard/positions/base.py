"""What every distribution over where to look answers."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.export import register_dataclass
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

INFINITY = float("inf")
T = TypeVar("T")


def exported(family: type[T]) -> type[T]:
    """Registers a dataclass of tensors as a value that torch.export, compile and vmap take and return; a saved program
    knows it by its public name, wherever it is defined."""
    register_dataclass(family, serialized_type_name=f"regard.{family.__name__}")
    return family


class Positions(Distribution):
    """A probability distribution over where to look: the protocol of torch.distributions, and how an event reads.

    An event is *indices*; `indicator(z)` is the same event as a 0/1 tensor. Two laws tie the parts together:
    `mean = E[indicator(z)]`, and what is read is the sum of the indicator times the values, so that
    `expect(values) = E[gather(values, z)]`. A family is a dataclass; each of its tensors begins with the batch
    dimensions, so that a distribution is a plain value, which may be indexed, stored, compiled and exported.
    """

    arg_constraints: ClassVar[dict] = {}
    has_enumerate_support: bool = False
    has_relaxed: bool = False
    """Whether `relax(temperature)` draws a relaxed indicator, through which gradients flow."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return next(each.device for each in vars(self).values() if isinstance(each, Tensor))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def online(self) -> Tensor:
        """The event chosen greedily, one query after another: the mode, where the queries are independent."""
        return self.mode

    def indicator(self, z: Tensor) -> Tensor:
        """The event as a 0/1 tensor over the places, shape (*B, Q, K)."""
        raise TypeError(f"{type(self).__name__} has no indicator: its events are locations, not indices of places.")

    def relax(self, temperature: float) -> Tensor:
        """A relaxed indicator, differentiable in the parameters, shape (*B, Q, K)."""
        raise TypeError(f"{type(self).__name__} has no relaxed events: use one that has_relaxed, such as OneHot.")

    def expect(self, values: Any) -> Tensor:
        """The mean of what is read, `mean` times the values (*B, K, V): shape (*B, Q, V), time O(Q K V)."""
        return weighted_mean(self.mean, values)

    def gather(self, values: Any, z: Tensor) -> Tensor:
        """What the event z reads of the values (*B, K, V): shape (*B, Q, V), time O(V) a place of z."""
        return read_places(values, z)

    def given(self, z: Tensor) -> "Positions":
        """What the parts that carry something are told when z was drawn: this distribution, unless the event binds
        the queries that come after it."""
        return self

    def then(self, *later: "Positions") -> "Positions":
        """The distribution of the queries of this and of later ones of its kind."""
        queries = len(self.batch_shape) - 1
        return tree_map(
            lambda *each: torch.cat(each, queries) if isinstance(each[0], Tensor) else each[0], self, *later
        )

    def kl(self, other: Distribution) -> Tensor:
        """The Kullback-Leibler divergence of this distribution from `other`, E[log p(z) - log q(z)], in nats."""
        return kl_divergence(self, other)


def weighted_mean(weights: Tensor, values: Any) -> Tensor:
    """Weights (*B, Q, K) times the values (*B, K, V).

    A reader that has a `block` is asked for so many places at a time, so that not all of them are in memory at once,
    and once more for each derivative.
    """
    places, size = weights.shape[-1], getattr(values, "block", None) or weights.shape[-1]
    if places <= size:
        return weights @ all_places(values, weights)
    tracked = torch.is_grad_enabled() and weights.requires_grad
    mean = partial(checkpoint, _of_block, use_reentrant=False) if tracked else _of_block
    blocks = ((weights[..., first : first + size], values, first) for first in range(0, places, size))
    return reduce(torch.add, (mean(*block) for block in blocks))


def _of_block(weights: Tensor, values: Any, first: int) -> Tensor:
    return weights @ all_places(values, weights, first)


def all_places(values: Any, weights: Tensor, first: int = 0) -> Tensor:
    """The values (*B, K, V) for weights (*B, Q, K): a tensor as it is, a reader by reading every place from the `first`
    on, of which those without weight are zero."""
    if isinstance(values, Tensor):
        return values
    *batch, _, places = weights.shape
    read = values.read((first + torch.arange(places, device=weights.device)).expand(*batch, places))
    return read.masked_fill((weights == 0).all(-2).unsqueeze(-1), 0)


def read_places(values: Any, z: Tensor) -> Tensor:
    """The values at the indices z, zero where z is -1 (nowhere).

    `values` is a tensor (*B, K, V) or has `.read(z)`, which is never asked for nowhere, but for a place of the row that
    is read anyway, or else the first; z is (*S, *B, N) with N indices a row; the result is (*S, *B, N, V). Time and
    memory O(N V) a row, whatever K is.
    """
    if isinstance(values, Tensor):
        read = rows_at(values, z.clamp(min=0))
    else:
        instead = F.pad(z, (0, 1)).amax(-1, keepdim=True)
        read = values.read(z.where(z >= 0, instead))
    return read.masked_fill((z < 0).unsqueeze(-1), 0)


def rows_at(values: Tensor, z: Tensor) -> Tensor:
    """The values (*B, K, V) at indices (*S, *B, N): (*S, *B, N, V)."""
    if torch.compiler.is_compiling() or values.device.type != "cpu":
        return take(values, z.unsqueeze(-1), dim=-2)
    # Whole rows are copied, and a gradient has the size of the values, not of that once for each draw.
    *batch, places, width = values.shape
    if values.is_contiguous():
        at = z + torch.arange(0, values.shape[:-1].numel(), places, device=values.device).view(*batch, 1)
        return values.view(-1, width).index_select(0, at.flatten()).view(*at.shape, width)
    rows = (torch.arange(size, device=values.device) for size in batch)
    return values[*(each.view(-1, *(1 for _ in batch[n:])) for n, each in enumerate(rows)), z]


def take(tensor: Tensor, index: Tensor, dim: int) -> Tensor:
    """What lies at the indices along a dimension; the index may have draws in front that the tensor lacks.

    As `torch.take_along_dim`, which would freeze the sizes of an exported program.
    """
    tensor = tensor[(None,) * (index.dim() - tensor.dim())]
    if tensor.dim() == index.dim() and not torch.compiler.is_compiling():
        return tensor.take_along_dim(index, dim)
    shape = torch.broadcast_shapes(_resized(tensor.shape, dim, 1), _resized(index.shape, dim, 1))
    index = index.expand(_resized(shape, dim, index.shape[dim]))
    return tensor.expand(_resized(shape, dim, tensor.shape[dim])).gather(dim, index)


def _resized(shape: Sequence[int], dim: int, size: int) -> list[int]:
    """The shape with another size of one dimension."""
    sizes = list(shape)
    sizes[dim] = size
    return sizes


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least, in which sums of many exponentials are right."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def safe_log(probability: Tensor) -> Tensor:
    """The logarithm, -inf at zero, with a gradient of zero there; of NaN it is NaN."""
    possible = ~(probability <= 0)
    return torch.where(possible, probability, 1).log().masked_fill(~possible, -INFINITY)


def gumbel_like(scores: Tensor) -> Tensor:
    """Standard Gumbel noise of the scores' shape, finite, in float32 at least: adding it in less would bias a draw."""
    noise = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32)).exponential_()
    return -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()
