"""Attention is a distribution over where to look: c = E_{z ~ p(z | query, keys)} [ read(values, z) ].

A **score** says how well each key fits the query, an **over** makes a distribution of the scores, and a **read** takes
its mean (soft attention), a sample (hard attention) or its mode. Any of the three is swapped without touching the rest.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regard.kernels.additive import cpu as additive_numba  # noqa: F401 - roads
from regard.kernels.additive import cuda as additive_triton  # noqa: F401 - roads
from regard.kernels.additive import look_cpu as look_numba  # noqa: F401 - roads
from regard.kernels.dot import cpu_cuda as dot_sdpa  # noqa: F401 - roads
from regard.kernels.registry import find_road
from regard.kernels.streamed import cpu_cuda as streamed  # noqa: F401 - roads
from regard.kernels.window import cpu_cuda as banded  # noqa: F401 - roads
from regard.over.local import MovingWindow
from regard.over.mappings import Over, softmax
from regard.positions import OneHot, Positions
from regard.positions.base import exported
from regard.protocol import State, Step, at, carries, carry
from regard.reads import hard, mean
from regard.scores import compare, prepare, scaled_dot
from regard.summary import Summary, joined, summary_of

BLOCK = 1 << 20
"""Scores that a summary forms at a time."""


@exported
@dataclass(eq=False)
class Attended:
    """What an attention read, and where it looked."""

    context: Float[Tensor, "*B Q V"]
    """What was read."""
    z: Any = None
    """The event that was drawn or chosen, as indices; None for a mean."""
    log_prob: Any = None
    """Of z, with the batch shape of the positions: (*B, Q), or (*B) where one event spans the queries."""
    state: State | None = None
    """What carrying parts hand to the next step."""
    formed: Positions | None = None
    """The distribution, where it has been formed: ask for `positions`."""

    @property
    def positions(self) -> Positions:
        """The distribution over where to look; after a fast road it is formed when first asked for."""
        if self.formed is None:
            asked = vars(self).get("asked")
            if asked is None:
                raise ValueError("positions expected to be asked for before detach(), which drops query and keys.")
            query, memory, score, over, training = asked
            self.formed = formed = _positions(query, memory, score, over, training)
            return formed
        return self.formed

    @property
    def weights(self) -> Float[Tensor, "*B Q K"]:
        """Where it looked, the mean of the distribution: dense, computed when asked for."""
        return self.positions.mean

    @torch.no_grad()
    def summary(self, top: int = 1) -> Summary:
        """The entropy, the largest weights and their places, the sums of columns (coverage) and the log-sum-exp.

        After a fast road it is computed from some queries at a time, so that their weights on all the keys are never
        there at once: time O(Q K D), memory O(Q + K). Raises ValueError if top is below one.

        >>> out = attend(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.ones(2, 1))
        >>> out.summary().places, out.summary().weights
        (tensor([[1]]), tensor([[0.9442]]))
        """
        asked = vars(self).get("asked")
        if self.formed is not None or asked is None or isinstance(asked[3], MovingWindow) or 0 in asked[0].shape:
            return summary_of(self.positions, top)
        query, memory, *parts = asked
        size = max(1, BLOCK // (query.shape[:-2].numel() * memory.keys.shape[-2]))
        return joined([summary_of(_positions(*rows, *parts), top) for rows in _queries(query, memory, size)])

    def detach(self) -> "Attended":
        """The same without the graph, and without the query and keys of which weights not yet formed would be made."""
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, self)


@exported
@dataclass(eq=False)
class Memory:
    """What may be looked at: keys as the score prepared them, values, and a mask. A plain value.

    `values` is a tensor (*B, K, V) or anything with `.read(z)`; the mask is bool, (*B, Q, K) with Q possibly one.
    """

    keys: Tensor
    values: Any
    mask: Bool[Tensor, "*B Q K"] | None = None


def attend(
    query: Float[Tensor, "*SB Q Dq"],
    keys: Float[Tensor, "*B K Dk"],
    values: Any,
    *,
    score: Callable[[Tensor, Tensor], Tensor] = scaled_dot,
    over: Any = softmax,
    read: Any = mean,
    mask: Bool[Tensor, "..."] | None = None,
    training: bool = True,
    state: State | None = None,
) -> Attended:
    """Attends to the values by how the keys fit the query: c = E_{z ~ over(score(query, keys))} [read(values, z)].

    The Q queries of one call are consecutive steps. The query may have draws in front, (S, *B, Q, Dq).

    Args:
        query: (*B, Q, Dq).
        keys: (*B, K, Dk).
        values: (*B, K, V), or anything with `.read(z)`, which maps indices (*B, N) to what lies there, (*B, N, V).

    Other Args:
        score: how well a key fits the query, a part of `regard.scores`.
        over: the distribution that scores make, a part of `regard.over.mappings`.
        read: mean, sample or mode, a part of `regard.reads`.
        mask: bool, True = may be looked at, with the rank of the scores (sizes equal or one) or (Q, K). A query that
            may look at nothing reads zero.
        training: whether parts that behave differently in training are in training.
        state: what the step before handed on, `out.state`.

    Raises ValueError for shapes that do not fit, for no keys, and TypeError for a mask that is not bool. NaN in the
    scores propagates; under `torch.autograd.set_detect_anomaly` it raises ValueError where the scores are formed.

    >>> out = attend(torch.ones(1, 2), torch.ones(3, 2), torch.arange(3.0).unsqueeze(-1))
    >>> out.context, out.weights
    (tensor([[1.]]), tensor([[0.3333, 0.3333, 0.3333]]))
    """
    memory = _memory(score, keys, values, mask)
    return _attend(query, memory, score, over, read, training, state)


class Attention(nn.Module):
    """Attention with its three parts as a module, for a memory that is looked at many times.

    `attention.prepare(keys, values, mask)` lets the score do once what does not depend on the query;
    `attention(query, memory)` then equals `attend(query, keys, values, ...)` with the parts of the module.

    >>> from regard import Additive
    >>> attention = Attention(score=Additive(query_dim=2, key_dim=3, hidden_dim=4), read=hard)
    >>> memory = attention.prepare(torch.ones(5, 3), torch.ones(5, 6))
    >>> out = attention(torch.ones(1, 2), memory)
    >>> out.context.shape, out.z.shape, out.log_prob.shape
    (torch.Size([1, 6]), torch.Size([1]), torch.Size([1]))
    """

    def __init__(self, score: Any = scaled_dot, over: Any = softmax, read: Any = mean):
        super().__init__()
        self.score = score
        self.over = over
        self.read = read

    def prepare(self, keys: Float[Tensor, "*B K Dk"], values: Any, mask: Bool[Tensor, "..."] | None = None) -> Memory:
        """The memory of these keys and values; shapes and errors as in `attend`."""
        return _memory(self.score, keys, values, mask)

    def forward(self, query: Float[Tensor, "*SB Q Dq"], memory: Memory, state: State | None = None) -> Attended:
        return _attend(query, memory, self.score, self.over, self.read, self.training, state)

    def extra_repr(self) -> str:
        plain = {name: part for name, part in vars(self).items() if name in ("score", "over", "read")}
        return ", ".join(f"{name}={getattr(part, '__name__', part)}" for name, part in plain.items())


class MultiHead(nn.Module):
    """Several attentions side by side, each over its own projection of query, keys and values: the concatenated
    contexts are projected back, Concat(head_1 .. head_H) W^O (Vaswani et al. 2017, section 3.2.2).

    `weights` and `z` have a dimension of H heads behind the batch, (*B, H, Q, K); `log_prob` is the sum over heads.
    Raises ValueError unless model_dim is a multiple of heads.

    >>> attention = MultiHead(model_dim=8, heads=2)
    >>> words = torch.ones(5, 8)
    >>> out = attention(words, attention.prepare(words, words))
    >>> out.context.shape, out.weights.shape
    (torch.Size([5, 8]), torch.Size([2, 5, 5]))
    """

    def __init__(self, model_dim: int, heads: int, score: Any = scaled_dot, over: Any = softmax, read: Any = mean):
        super().__init__()
        if model_dim % heads:
            raise ValueError(f"MultiHead expected model_dim to be a multiple of heads={heads}, but got {model_dim}.")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(model_dim, model_dim) for _ in range(4))
        self.attention = Attention(score, over, read)

    def prepare(
        self,
        keys: Float[Tensor, "*B K D"],
        values: Float[Tensor, "*B K D"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Memory:
        """The memory of keys and values projected for each head; the mask is that of one head."""
        if mask is not None and mask.dim() > 2:
            mask = mask.unsqueeze(-3)  # (*B, 1, Q, K)
        return self.attention.prepare(self._split(self.key(keys)), self._split(self.value(values)), mask)

    def forward(self, query: Float[Tensor, "*SB Q D"], memory: Memory, state: State | None = None) -> Attended:
        out = self.attention(self._split(self.query(query)), memory, state)
        out.context = self.out(out.context.transpose(-3, -2).flatten(-2))  # (*B, Q, D)
        if out.log_prob is not None:
            out.log_prob = out.log_prob.sum(query.dim() - 2)
        return out

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # (*B, H, N, D / H)


def look(
    query: Any, policy: Callable[[Any], Positions], sensor: Any, read: Any = hard, training: bool = True
) -> Attended:
    """A glimpse: the policy says where to look, and the sensor reads there (Mnih et al. 2014, section 3.1).

    `policy(query)` is a distribution over locations, such as `Coordinate`, from a query that may be anything that the
    policy understands; the sensor has `.read(z)`, such as `Glimpses`. Returns an `Attended` whose context is what the
    sensor read.

    >>> from regard import Coordinate, Glimpses
    >>> images = Glimpses(torch.rand(2, 1, 28, 28), size=8, scales=1)
    >>> seen = look(torch.zeros(2, 2), lambda centre: Coordinate(centre, 0.1), images)
    >>> seen.z.shape, seen.context.shape
    (torch.Size([2, 2]), torch.Size([2, 1, 1, 8, 8]))
    """
    positions = policy(query)
    step = Step(query, None, training=training)
    context, z, log_prob = at(read, step)(positions, sensor)
    return Attended(context, z, log_prob, formed=positions)


def select(value: Any, rows: Tensor):
    """Reorders, repeats or drops rows of the first batch dimension of a Memory, a State, positions or a sensor.

    `rows` are indices, or a bool mask over the rows. Raises TypeError for values that are read lazily and have no
    `select(rows)` of their own, such as `Glimpses` has.

    >>> from regard import OneHot
    >>> select(OneHot(weights=torch.tensor([[[1.0]], [[0.5]]])), torch.tensor([1, 1])).mean.flatten()
    tensor([0.5000, 0.5000])
    """
    return tree_map(partial(_select, rows), value)


def _select(rows: Tensor, leaf: Any) -> Any:
    if hasattr(leaf, "select") and not isinstance(leaf, Tensor):
        return leaf.select(rows)
    if hasattr(leaf, "read"):
        raise TypeError(
            f"select expected values that are a tensor or can select, but got the reader {type(leaf).__name__}."
        )
    return leaf[rows] if isinstance(leaf, Tensor) else leaf


def _memory(score: Any, keys: Tensor, values: Any, mask: Tensor | None) -> Memory:
    shape = keys.shape
    if len(shape) < 2:
        raise ValueError(f"keys expected the shape (*B, K, Dk), but got {tuple(shape)}.")
    if shape[-2] == 0:
        raise ValueError(f"keys expected at least one place to look at, but got shape {tuple(shape)}.")
    if isinstance(values, Tensor) and values.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"values expected the shape of the keys but for the last dimension, (*B, K, V) for keys "
            f"{tuple(keys.shape)}, but got {tuple(values.shape)}."
        )
    return Memory(prepare(score, keys), values, None if mask is None else _full_rank(mask, shape[:-2], shape[-2]))


def _full_rank(mask: Tensor, batch: torch.Size, places: int) -> Tensor:
    """The mask with the batch dimensions of the keys, (*B, Q, K)."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask expected dtype bool, True where a key may be looked at, but got {mask.dtype}.")
    if mask.dim() == 2 and batch:
        mask = mask.expand(*batch, *mask.shape)
    fits = mask.dim() == len(batch) + 2 and all(
        size in (1, wanted) for size, wanted in zip((*mask.shape[:-2], mask.shape[-1]), (*batch, places), strict=True)
    )
    if not fits:
        raise ValueError(
            f"mask expected the shape (*B, Q, K) with B = {tuple(batch)} and K = {places}, or (Q, K), "
            f"but got {tuple(mask.shape)}."
        )
    return mask.expand(*batch, -1, -1)


def _attend(query: Tensor, memory: Memory, score, over, read, training: bool, state: State | None) -> Attended:
    _check_query(query, memory)
    if carries(score) and query.shape[-2] > 1:
        return _one_by_one(query, memory, score, over, read, training, state)
    carried = state or State()
    step = Step(query, memory.keys, memory.mask, None, training)
    now, read = at(over, step._replace(carried=carried.over)), at(read, step)
    run = find_road((score, now, read), query, memory.keys, memory.values, memory.mask)
    if run is not None:
        out = Attended(*run(query, memory.keys, memory.values, memory.mask))
        if carries(over):  # no more than how many queries there were, or it had no such road
            out.state = State(None, carry(over, carried.over, OneHot(scores=query[..., :0])))
        out.__dict__["asked"] = (query, memory, score, now, training)  # no field, as these cannot be exported
        return out
    positions = _positions(query, memory, score, now, training, carried.score)
    context, z, log_prob = read(positions, memory.values)
    seen = positions if z is None else positions.given(z)
    handed = State(carry(score, carried.score, seen), carry(over, carried.over, seen))
    return Attended(context, z, log_prob, handed if carries(score) or carries(over) else None, positions)


def _positions(query: Tensor, memory: Memory, score, over: Over, training: bool, carried: Any = None) -> Positions:
    """The distribution, by an over that is what it is at this step."""
    run = find_road((score, over), query, memory.keys, memory.mask)
    if run is not None:
        return run(query, memory.keys, memory.mask)
    step = Step(query, memory.keys, memory.mask, carried, training)
    scores = compare(at(score, step), query, memory.keys)
    if not torch.compiler.is_compiling() and torch.is_anomaly_enabled() and scores.isnan().any():
        raise ValueError("scores expected numbers, but got NaN (which is looked for as anomaly detection is on).")
    return over(scores, memory.mask)


def _one_by_one(query: Tensor, memory: Memory, score, over, read, training: bool, state: State | None) -> Attended:
    """The queries one after another, for a score that depends on where the query before it looked."""
    outs = []
    for one, seen in _queries(query, memory, 1):
        outs.append(_attend(one, seen, score, over, read, training, state))
        state = outs[-1].state
    first, *later = (out.positions for out in outs)
    out = tree_map(partial(_join, query.dim() - 2), *(replace(out, state=None, formed=None) for out in outs))
    return replace(out, state=state, formed=first.then(*later))


def _queries(query: Tensor, memory: Memory, size: int) -> Iterator[tuple[Tensor, Memory]]:
    """So many queries at a time, and the memory with their rows of the mask."""
    for first in range(0, query.shape[-2], size):
        rows, seen = slice(first, first + size), memory
        if memory.mask is not None and memory.mask.shape[-2] > 1:
            seen = replace(memory, mask=memory.mask[..., rows, :])
        yield query[..., rows, :], seen


def _join(dim: int, *leaves: Any) -> Any:
    """One after the other along the queries; the log-probabilities of events that span them are summed."""
    if not isinstance(leaves[0], Tensor):
        return leaves[0]
    return torch.cat(leaves, dim) if leaves[0].dim() > dim else torch.stack(leaves).sum(0)


def _check_query(query: Tensor, memory: Memory) -> None:
    batch, shape = memory.keys.shape[:-2], query.shape
    if len(shape) < 2 or (shape[:-2] != batch and shape[len(shape) - 2 - len(batch) : -2] != batch):
        raise ValueError(
            f"query expected the shape (*B, Q, Dq) with the batch {tuple(batch)} of the keys (draws may stand in "
            f"front), but got {tuple(query.shape)}."
        )
    if memory.mask is not None and memory.mask.shape[-2] not in (1, query.shape[-2]):
        raise ValueError(f"mask expected {query.shape[-2]} queries or 1, but got {tuple(memory.mask.shape)}.")
