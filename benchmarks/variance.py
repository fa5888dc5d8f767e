"""The variance laboratory."""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import harness
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import saccade as sc
from saccade.data import Scattered, digits

PLACES, PATCH, SIZE = 16, 7, 32
"""An image is cut into 16 patches of 7x7 pixels, a value has 32 numbers."""
MANY = 64
"""How many units the network has."""
UNITS = 3
"""How many of them look in the table, so that 16^3 = 4096 events can be enumerated."""
BATCH = 16
STEPS = 300
"""Of training, and of fitting each baseline, critic and control."""
ELEMENTS = 2**19
"""How many scores a round draws from, at most."""
BUDGET = 8

Loss = Callable[[Tensor], Tensor]
"""From scores (R, B, N, K), R times the same, to R independent losses (R, B): the cost with its surrogate."""


class Network(nn.Module):
    """Units that each look at one patch, and what classifies the mean of what they read."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(MANY, SIZE) / 2)
        self.key, self.value = nn.Linear(PATCH**2, SIZE), nn.Linear(PATCH**2, SIZE)
        self.key_place, self.value_place = (nn.Parameter(torch.randn(PLACES, SIZE) / 2) for _ in range(2))
        self.classify = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 10))


class Scene:
    """A network before a batch of images: the scores of its units, and what their choices cost.

    values (B, K, V), truth (B, 10), scores (B, N, K). `paid` counts the costs that were computed.
    """

    def __init__(self, network: Network, split: Scattered, indices: Tensor, units: Tensor):
        batch, dtype = split.batch(indices), network.queries.dtype
        patches = batch["image"].to(dtype).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).reshape(-1, PLACES, PATCH**2)
        keys = network.key(patches) + network.key_place
        self.scores = sc.scaled_dot(network.queries[units].expand(len(keys), -1, -1), keys)
        self.values = torch.relu(network.value(patches) + network.value_place)
        self.truth = nn.functional.one_hot(batch["label"], 10).to(dtype)
        self.classify, self.paid = network.classify, 0

    def cost(self, context: Tensor) -> Tensor:
        """The cross-entropy of what was read: (*S, B, V) -> (*S, B)."""
        self.paid += context[..., 0].numel()
        return -(self.classify(context).log_softmax(-1) * self.truth).sum(-1)
    
    def cost_of_mean(self, context):
        return self.cost(context.mean(-2))
    def cost_each(self, context):   # (*S,B,N,V) -> (*S,B,N)
        self.paid += context[..., 0].numel()
        return -(self.classify(context).log_softmax(-1) * self.truth[:, None]).sum(-1)
    def steps(self, context):
        n = context.shape[-2]
        return self.cost_each(context.cumsum(-2) / torch.arange(1, n+1)[:, None])
    def sample(self, scores):
        return sc.sample(sc.softmax(scores), self.values)
