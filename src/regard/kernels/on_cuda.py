"""Kernels for CUDA: Python functions that Triton compiles."""

from typing import Any

import torch
from torch import Tensor


def run(kernel: Any, programs: int, first: Tensor, *others: Any, **options: Any) -> None:
    """Starts so many programs of the kernel on the device of the first argument."""
    with torch.cuda.device_of(first):
        kernel[(programs,)](first, *others, **options)
