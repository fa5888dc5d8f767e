"""How long the strings of training are, while it begins."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Growing(nn.Module):
    """Symbols of a string at most, `cap`: `first` at the beginning, `longest` after so many steps, and evenly more
    between. The steps that are made are a buffer, and go on with a run that was stopped.

    >>> growing = Growing(first=2, longest=10, steps=4)
    >>> growing.count()
    >>> growing.cap
    4
    """

    made: Tensor

    def __init__(self, first: int, longest: int, steps: int):
        super().__init__()
        self.first, self.longest, self.steps = min(first, longest), longest, steps
        self.register_buffer("made", torch.tensor(0))

    @property
    def cap(self) -> int:
        """How many symbols a string may have now."""
        share = min(1.0, int(self.made) / max(1, self.steps))
        return self.first + int(share * (self.longest - self.first))

    def count(self) -> None:
        """Notes that a step of training is made."""
        self.made.add_(1)

    def shortened(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The first symbols of each string of a batch of `Strings`; of other sounds, all."""
        cap, ends = self.cap, batch["ends"]
        if ends.shape[1] <= cap:
            return batch
        samples = torch.where(ends[:, cap] > 0, ends[:, cap - 1], batch["samples"])
        sound, target = batch["sound"][:, : int(samples.max())], batch["target"][:, :cap]
        return {"sound": sound, "samples": samples, "target": target}
