"""Hard reads by dot products on the CPU, (dot or scaled_dot, softmax, sample or mode): a block of scores is formed at a
time, in the nearest cache, and nothing of its size is kept. A backward forms them once more.

Time O(Q K D), memory O(Q + K) beside the arguments. In float32 and without draws in front of the query; others are
streamed, where keys are many.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.kernels.streamed import cpu_cuda as streamed
from regard.over.mappings import masked, softmax
from regard.positions.algorithms.categorical import plain_log_prob
from regard.positions.base import INFINITY, read_places, rows_at
from regard.reads import mode, sample, spoilt
from regard.scores import dot, scaled_dot

SMALLEST = 1 << 8
"""Scores below which the plain road is as fast."""

BLOCK = 1 << 18
"""Scores that are formed at a time."""


def refuses(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """Too few scores, or torch.compile."""
    if not _is_usual(query, keys):
        return streamed.refuses(score, over, read, query, keys, values, mask)
    if torch.compiler.is_compiling():
        return "torch.compile has its own ways with the plain road"
    few = query.shape[:-1].numel() * keys.shape[-2] < SMALLEST
    return f"below {SMALLEST} scores the plain road is as fast" if few else None


def run(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The context (*B, Q, V), the place (*B, Q) and its log-probability."""
    if not _is_usual(query, keys):
        return streamed.run(score, over, read, query, keys, values, mask)
    shape = query.shape[:-1]
    scaled = query / math.sqrt(query.shape[-1]) if score is scaled_dot else query
    rows, keys = (each.reshape(-1, *each.shape[-2:]) for each in (scaled, keys))  # (N, Q, D) and (N, K, D)
    if mask is not None:
        mask = mask.expand(*shape[:-1], *mask.shape[-2:]).reshape(-1, *mask.shape[-2:])
    noise = torch.rand(rows.shape[:-1] if read is sample else 0, dtype=torch.float64, device=rows.device)
    with torch.no_grad():
        found = _chosen(rows, keys, mask, noise)
    log_prob = _log_prob(rows, keys, *found, mask).view(shape)
    z = found[0].view(shape)
    if isinstance(values, Tensor) and z.min() >= 0:
        return rows_at(values, z), z, log_prob
    return spoilt(read_places(values, z), log_prob), z, log_prob


def _is_usual(query: Tensor, keys: Tensor) -> bool:
    """Whether all is float32, with no draws in front of the query."""
    return (
        query.dtype == keys.dtype == torch.float32
        and query.dim() == keys.dim()
        and not torch.is_autocast_enabled("cpu")
    )


def _blocks(query: Tensor, keys: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Which entries of the batch and which queries, and their scores (rows, K), in a place that is used again."""
    count, queries, places = *query.shape[:2], keys.shape[1]
    rows = max(1, BLOCK // places)
    entries, some = (min(count, rows // queries), queries) if rows >= queries else (1, rows)
    place = query.new_empty(entries * some * places)
    for first in range(0, count, entries):
        of = slice(first, first + entries)
        for start in range(0, queries, some):
            asked = query[of, start : start + some]
            scores = place[: asked.shape[:2].numel() * places].view(*asked.shape[:2], places)
            torch.bmm(asked, keys[of].mT, out=scores)
            if mask is not None:
                seen = mask[of, start : start + some] if mask.shape[1] > 1 else mask[of]
                scores.masked_fill_(~seen, -INFINITY)
            yield of, slice(start, start + some), scores


def _chosen(query: Tensor, keys: Tensor, mask: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The places, their log-probabilities and the log-sum-exp of the scores, (N, Q)."""
    from regard.kernels.hard import cpu_loops

    z = query.new_empty(query.shape[:2], dtype=torch.long)
    found = z, torch.empty_like(z, dtype=query.dtype), torch.empty_like(z, dtype=torch.float64)
    for of, some, scores in _blocks(query, keys, mask):
        given = noise[of, some] if noise.dim() > 1 else noise
        arrays = [each.reshape(-1).numpy() for each in (given, *(each[of, some] for each in found))]
        _in_blocks(cpu_loops.choose, scores.flatten(0, 1).numpy(), *arrays)
    return found


def _in_blocks(loop: Any, *arrays: Any) -> None:
    on_cpu.run(loop, [(*block, *arrays) for block in on_cpu.blocks(len(arrays[0]))])


def _forward(query: Tensor, keys: Tensor, z: Tensor, log_prob: Tensor, log_sums: Tensor, mask: Tensor | None) -> Tensor:
    return log_prob.clone()


def _backward(
    grad: Tensor,
    query: Tensor,
    keys: Tensor,
    z: Tensor,
    log_prob: Tensor,
    log_sums: Tensor,
    mask: Tensor | None,
    out: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients of the queries and of the keys."""
    from regard.kernels.hard import cpu_loops

    of_query, of_keys = torch.empty_like(query), torch.zeros_like(keys)
    for of, some, scores in _blocks(query, keys, mask):
        arrays = [each[of, some].reshape(-1).numpy() for each in (grad, z, log_sums)]
        rows = scores.flatten(0, 1)
        _in_blocks(cpu_loops.slopes, *arrays, rows.numpy())
        of_query[of, some] = torch.bmm(scores, keys[of])
        of_keys[of].baddbmm_(scores.mT, query[of, some])
    return of_query, of_keys


def _shape(query: Tensor, keys: Tensor, z: Tensor, log_prob: Tensor, log_sums: Tensor, mask: Tensor | None) -> Tensor:
    return torch.empty_like(log_prob)


def _shapes(grad: Tensor, query: Tensor, keys: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(keys)


def _plain(query: Tensor, keys: Tensor, z: Tensor, log_prob: Tensor, log_sums: Tensor, mask: Tensor | None) -> Tensor:
    return plain_log_prob(masked(dot(query, keys), mask), z.unsqueeze(-1)).squeeze(-1)


_log_prob = differentiable("log_prob_of_reads", _forward, _backward, (_shape, _shapes), _plain)
for each in (dot, scaled_dot):
    for how in (sample, mode):
        register_road((each, softmax, how), "cpu", Road(run, refuses))
