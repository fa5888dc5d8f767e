"""How long the sequences of training are, while the moves of pointers are learned."""

import torch
from torch import Tensor, nn

KNOWN, LOST = 0.02, 0.3
"""The share of wrong bits below which longer sequences follow, and above which shorter ones do."""
FASTER, EVERY = 1.3, 50
"""How many times longer or shorter they are, and after how many steps that is looked at."""


class Lengths(nn.Module):
    """The vectors of a sequence at most, `cap`: `first` at the beginning, and later up to `longest`.

    `exploring` is one until almost all bits of the longest are right, then zero. All of it are buffers, and go on with
    a run that was stopped.

    >>> lengths = Lengths(first=3, longest=20)
    >>> lengths.judge(0.0)
    >>> lengths.cap, lengths.exploring
    (tensor(4.), tensor(1.))
    """

    cap: Tensor
    exploring: Tensor
    steps: Tensor

    def __init__(self, first: int, longest: int):
        super().__init__()
        self.first, self.longest = min(first, longest), longest
        self.register_buffer("cap", torch.tensor(float(self.first)))
        self.register_buffer("exploring", torch.tensor(1.0))
        self.register_buffer("steps", torch.tensor(0))

    def is_due(self) -> bool:
        """Counts a step of training, and says whether it is one after which `judge` is to be told."""
        self.steps += 1
        return int(self.steps) % EVERY == 0 and bool(self.exploring)

    def judge(self, wrong: float) -> None:
        """What follows where this share of the bits of sequences as long as `cap` is wrong."""
        cap = int(self.cap)
        if wrong > LOST:
            self.cap.fill_(max(self.first, int(cap / FASTER)))
        elif wrong < KNOWN and cap < self.longest:
            self.cap.fill_(min(self.longest, max(cap + 1, int(cap * FASTER))))
        elif wrong < KNOWN:
            self.exploring.zero_()
