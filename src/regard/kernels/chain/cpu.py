"""Linear chains on the CPU: forward and backward messages in one loop over the positions, and their derivatives, in
time O(T S^2) and memory O(T S + S^2) a row."""

import math

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.chain.events_cpu import rows
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import linear_chain
from regard.positions.algorithms.linear_chain import label_means, log_partition, marginals, segment_means

Pair = tuple[Tensor, Tensor]


def refuses(part: object, scores: Tensor, links: Tensor, present: Tensor) -> str | None:
    """Other types than float32 and float64."""
    taken = scores.dtype == links.dtype and scores.dtype in (torch.float32, torch.float64)
    return None if taken else "it takes float32 or float64, the same for scores and transitions"


def run_log_partition(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """log Z (*B)."""
    return _log_partition(*linear_chain.flat(nodes, transitions, present)).view(nodes.shape[:-2])


def run_marginals(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The expected labels and transitions (*B, P)."""
    found = _marginals(*linear_chain.flat(nodes, transitions, present))
    return found.view(*nodes.shape[:-2], found.shape[-1])


def run_label_means(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The expected labels (*B, T, S)."""
    return _label_means(*linear_chain.flat(nodes, transitions, present)).view(nodes.shape)


def run_segment_means(part: object, scores: Tensor, stay: Tensor, present: Tensor) -> Tensor:
    """The probability of label 1 (*B, K)."""
    rows = stay.numel(), scores.shape[-1]
    given = scores.reshape(rows), stay.reshape(-1), present.reshape(rows)
    return _segment_means(*(each.contiguous() for each in given)).view(scores.shape)


def _sums(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    log_z, found = _sums_shape(nodes, transitions, present)
    return log_z, _expected(nodes, transitions, present, log_z, found)


def _sums_shape(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    return nodes.new_empty(len(nodes)), _found_shape(nodes, transitions, present)


def _expected(nodes: Tensor, transitions: Tensor, present: Tensor, log_z: Tensor, found: Tensor) -> Tensor:
    """Fills log Z (N,) and what is expected, (N, T S) of labels or (N, P) of transitions, too."""
    from regard.kernels.chain import cpu_loops

    arrays = [each.numpy() for each in (*rows(nodes, transitions, present), log_z, found)]
    on_cpu.run(cpu_loops.expectations, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return found


def _slopes(grad: Tensor, nodes: Tensor, transitions: Tensor, present: Tensor, log_z: Tensor, found: Tensor) -> Pair:
    parts = math.prod(nodes.shape[1:])
    labels, pairs = found[:, :parts].view_as(nodes), found[:, parts:].view_as(transitions)
    return grad.view(-1, 1, 1) * labels, grad.view(-1, *(1 for _ in pairs.shape[1:])) * pairs


def _slopes_shape(grad: Tensor, nodes: Tensor, transitions: Tensor, *_: Tensor) -> Pair:
    return nodes.new_empty(nodes.shape), nodes.new_empty(transitions.shape)


def _found(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    return _sums(nodes, transitions, present)[1]


def _found_shape(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    return nodes.new_empty(len(nodes), math.prod(nodes.shape[1:]) + math.prod(transitions.shape[1:]))


def _moved(grad: Tensor, nodes: Tensor, transitions: Tensor, present: Tensor, found: Tensor) -> Pair:
    from regard.kernels.chain import cpu_loops

    moved = _slopes_shape(grad, nodes, transitions)
    written = moved[0], linear_chain.between(nodes, moved[1])
    arrays = [each.numpy() for each in (*rows(nodes, transitions, present), grad.flatten(1), *written)]
    on_cpu.run(cpu_loops.tangents, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return moved


def _labels(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    labels = _labels_shape(nodes, transitions, present)
    _expected(nodes, transitions, present, nodes.new_empty(len(nodes)), labels.flatten(1))
    return labels


def _labels_shape(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    return nodes.new_empty(nodes.shape)


def _means(scores: Tensor, stay: Tensor, present: Tensor) -> Tensor:
    from regard.kernels.chain import cpu_loops

    means = _means_shape(scores, stay, present)
    arrays = [each.numpy() for each in (scores, stay, present, means)]
    on_cpu.run(cpu_loops.segment_means, [(*block, *arrays) for block in on_cpu.blocks(len(scores))])
    return means


def _means_shape(scores: Tensor, stay: Tensor, present: Tensor) -> Tensor:
    return scores.new_empty(scores.shape)


def _means_moved(grad: Tensor, scores: Tensor, stay: Tensor, present: Tensor, means: Tensor) -> Pair:
    from regard.kernels.chain import cpu_loops

    moved = _means_moved_shape(grad, scores, stay, present, means)
    arrays = [each.numpy() for each in (scores, stay, present, grad, *moved)]
    on_cpu.run(cpu_loops.segment_tangents, [(*block, *arrays) for block in on_cpu.blocks(len(scores))])
    return moved


def _means_moved_shape(grad: Tensor, scores: Tensor, stay: Tensor, present: Tensor, means: Tensor) -> Pair:
    return scores.new_empty(scores.shape), scores.new_empty(stay.shape)


_log_partition = differentiable(
    "chain_log_partition", _sums, _slopes, (_sums_shape, _slopes_shape), linear_chain.plain_log_partition
)
_marginals = differentiable(
    "chain_marginals", _found, _moved, (_found_shape, _slopes_shape), linear_chain.plain_marginals
)
_label_means = differentiable(
    "chain_label_means", _labels, _moved, (_labels_shape, _slopes_shape), linear_chain.plain_label_means
)
_segment_means = differentiable(
    "segment_means", _means, _means_moved, (_means_shape, _means_moved_shape), linear_chain.plain_segment_means
)
register_road((log_partition,), "cpu", Road(run_log_partition, refuses))
register_road((marginals,), "cpu", Road(run_marginals, refuses, exports=True))
register_road((label_means,), "cpu", Road(run_label_means, refuses, exports=True))
register_road((segment_means,), "cpu", Road(run_segment_means, refuses, exports=True))
