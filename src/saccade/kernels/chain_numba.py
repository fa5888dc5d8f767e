"""Linear chains on the CPU: forward and backward messages in one loop over the positions, and their derivatives, in
time O(T S^2) and memory O(T S + S^2) a row."""

import torch
from torch import Tensor

from saccade.kernels import cpu
from saccade.kernels.chain_events import rows
from saccade.kernels.op import differentiable
from saccade.kernels.registry import Road, is_transformed, register_road
from saccade.positions import linear_chain
from saccade.positions.linear_chain import log_partition, marginals


Pair = tuple[Tensor, Tensor]


def suits(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> bool:
    """float32 or float64."""
    return nodes.dtype == transitions.dtype and nodes.dtype in (torch.float32, torch.float64) and not is_transformed()


def run_log_partition(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """log Z (*B)."""
    return _log_partition(*linear_chain.flat(nodes, transitions, present)).view(nodes.shape[:-2])


def run_marginals(part: object, nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """The expected labels and transitions (*B, P)."""
    return _marginals(*linear_chain.flat(nodes, transitions, present)).view(*nodes.shape[:-2], -1)


def _sums(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    from saccade.kernels import chain_loops

    log_z, found = (each.double() for each in _sums_shape(nodes, transitions, present))
    arrays = [each.numpy() for each in (*rows(nodes, transitions, present), log_z, found)]
    cpu.run(chain_loops.expectations, [(*block, *arrays) for block in cpu.blocks(len(nodes))])
    return log_z.to(nodes.dtype), found.to(nodes.dtype)


def _sums_shape(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    parts = nodes.shape[1:].numel() + transitions.shape[1:].numel()
    return nodes.new_empty(len(nodes)), nodes.new_empty(len(nodes), parts)


def _slopes(grad: Tensor, nodes: Tensor, transitions: Tensor, present: Tensor, log_z: Tensor, found: Tensor) -> Pair:
    parts = nodes.shape[1:].numel()
    labels, pairs = found[:, :parts].view_as(nodes), found[:, parts:].view_as(transitions)
    return grad.view(-1, 1, 1) * labels, grad.view(-1, 1, 1) * pairs


def _slopes_shape(grad: Tensor, nodes: Tensor, transitions: Tensor, *_: Tensor) -> Pair:
    return nodes.new_empty(nodes.shape), nodes.new_empty(transitions.shape)


def _found(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    return _sums(nodes, transitions, present)[1]


def _found_shape(nodes: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    return _sums_shape(nodes, transitions, present)[1]


def _moved(grad: Tensor, nodes: Tensor, transitions: Tensor, present: Tensor, found: Tensor) -> Pair:
    from saccade.kernels import chain_loops

    moved = [each.double() for each in _slopes_shape(grad, nodes, transitions)]
    arrays = [each.numpy() for each in (*rows(nodes, transitions, present), grad.double(), *moved)]
    cpu.run(chain_loops.tangents, [(*block, *arrays) for block in cpu.blocks(len(nodes))])
    return moved[0].to(nodes.dtype), moved[1].to(nodes.dtype)


_log_partition = differentiable(
    "chain_log_partition", _sums, _slopes, (_sums_shape, _slopes_shape), linear_chain.plain_log_partition
)
_marginals = differentiable(
    "chain_marginals", _found, _moved, (_found_shape, _slopes_shape), linear_chain.plain_marginals
)
register_road((log_partition,), "cpu", Road(suits, run_log_partition))
register_road((marginals,), "cpu", Road(suits, run_marginals))
