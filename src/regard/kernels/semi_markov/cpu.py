"""Semi-Markov chains on the CPU: forward and backward messages in one loop over the positions, in time O(T S (S + W))
and memory O(T S + S (S + W)) a row."""

from math import prod

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.kernels.semi_markov.events_cpu import rows
from regard.positions.algorithms import semi_markov
from regard.positions.algorithms.semi_markov import log_partition, marginals

Three = tuple[Tensor, Tensor, Tensor]


def refuses(part: object, nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> str | None:
    """float32 or float64."""
    alike = nodes.dtype == transitions.dtype == durations.dtype
    return None if alike and nodes.dtype in (torch.float32, torch.float64) else "it needs one of float32 and float64"


def run_log_partition(part: object, *given: Tensor) -> Tensor:
    """log Z (*B)."""
    return _log_partition(*semi_markov.flat(*given)).view(given[0].shape[:-2])


def run_marginals(part: object, *given: Tensor) -> Tensor:
    """The expected labels, transitions and lengths (*B, P)."""
    found = _marginals(*semi_markov.flat(*given))
    return found.view(*given[0].shape[:-2], found.shape[-1])


def _sums(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Three:
    from regard.kernels.semi_markov import cpu_loops

    log_z, exact, messages = _sums_shape(nodes, transitions, durations, present)
    _each_row(cpu_loops.sums, nodes, transitions, durations, present, exact, messages)
    return log_z.copy_(exact), exact, messages


def _sums_shape(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Three:
    """Log Z (N,), the same in float64, and the messages (N, 2, T, S)."""
    rows, length, states = nodes.shape
    exact = nodes.new_empty(rows, dtype=torch.float64)
    return nodes.new_empty(rows), exact, exact.new_empty((rows, 2, length, states))


def _slopes(
    grad: Tensor,
    nodes: Tensor,
    transitions: Tensor,
    durations: Tensor,
    present: Tensor,
    log_z: Tensor,
    exact: Tensor,
    messages: Tensor,
) -> Three:
    found = _expected(nodes, transitions, durations, present, exact, messages)
    return _apart(found * grad.unsqueeze(-1), nodes, transitions, durations)


def _slopes_shape(grad: Tensor, nodes: Tensor, transitions: Tensor, durations: Tensor, *_: Tensor) -> Three:
    return nodes.new_empty(nodes.shape), nodes.new_empty(transitions.shape), nodes.new_empty(durations.shape)


def _found(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Tensor:
    given = nodes, transitions, durations, present
    return _expected(*given, *_sums(*given)[1:])


def _expected(
    nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, log_z: Tensor, messages: Tensor
) -> Tensor:
    from regard.kernels.semi_markov import cpu_loops

    found = _found_shape(nodes, transitions, durations, present)
    _each_row(cpu_loops.expectations, nodes, transitions, durations, present, messages, log_z, found)
    return found


def _found_shape(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor) -> Tensor:
    width = sum(prod(each.shape[1:]) for each in (nodes, transitions, durations))
    return nodes.new_empty(nodes.shape[0], width)  # len and numel would freeze the sizes of an exported program


def _moved(
    grad: Tensor, nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, found: Tensor
) -> Three:
    from regard.kernels.semi_markov import cpu_loops

    moved = torch.empty_like(found)
    _each_row(cpu_loops.tangents, nodes, transitions, durations, present, grad, moved)
    return _apart(moved, nodes, transitions, durations)


def _each_row(kernel: object, nodes: Tensor, transitions: Tensor, durations: Tensor, *others: Tensor) -> None:
    given = *rows(nodes, transitions, durations), *others
    arrays = [each.contiguous().numpy() for each in given]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])


def _apart(flat: Tensor, *like: Tensor) -> Three:
    sizes = [each.shape[1:].numel() for each in like]
    parts = zip(flat.split(sizes, -1), like, strict=True)
    return tuple(part.reshape(each.shape).contiguous() for part, each in parts)  # pyright: ignore[reportReturnType]


_log_partition = differentiable(
    "semi_markov_log_partition", _sums, _slopes, (_sums_shape, _slopes_shape), semi_markov.plain_log_partition
)
_marginals = differentiable(
    "semi_markov_marginals", _found, _moved, (_found_shape, _slopes_shape), semi_markov.plain_marginals
)
register_road((log_partition,), "cpu", Road(run_log_partition, refuses))
register_road((marginals,), "cpu", Road(run_marginals, refuses, exports=True))
