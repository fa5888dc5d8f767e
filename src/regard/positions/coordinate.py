"""A location in an image: a Gaussian truncated to the image."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.base import INFINITY, Positions, exported

SPREAD = math.sqrt(2)
"""A spread is this many widths: lengths are counted in spreads, in which the Gaussian is exp(-t^2)."""
FAR = 18.0
"""How many spreads outside the image a centre may lie and be taken at its word: the square of erfc(18) is no zero."""
WIDE = 1e3
"""The largest width that is taken at its word: the density round a centre inside is then even to 1e-6."""
NO_MEAN = (
    "A Coordinate has no closed-form expectation of what is read: evaluation uses its `mode`, as the read hard does."
)


@exported
@dataclass(eq=False, repr=False)
class Coordinate(Positions):
    """A location (y, x), each a Gaussian truncated to the image, [-1, 1]: (-1, -1) is the image's top left corner.
    There may be further coordinates, such as how far to zoom.

    p(z) = prod_i exp(-(z_i - c_i)^2 / 2 w_i^2) / int_{-1}^{1} exp(-(t - c_i)^2 / 2 w_i^2) dt

    This is the Gaussian of the location network of Mnih et al. 2014, "Recurrent models of visual attention", section 4,
    but that a location outside of the image is never drawn rather than moved to its edge, so that `log_prob` is that of
    the location that is used.

    Samples, log-probabilities and gradients are finite however far outside the centre lies, and however small the width
    is; they are computed in float64. Two cases that nothing hangs on are moved to near by ones, for all methods alike:
    a centre more than 25 widths outside is drawn in along with its width, which keeps the slope of the log-density at
    the edge, and the density to a thousandth where most of it lies; a width above 1000 counts as 1000.

    What is read at a location has no closed-form mean: `mean` and `expect` raise TypeError; evaluation uses the `mode`.

    `width` is the standard deviation before truncation, a number or a tensor that broadcasts to the centre. Its values
    are not looked at, as they may be on a GPU: a width of zero or NaN gives NaN.

    Shapes: centre and width (*B, N), where N is 2 or more; batch_shape (*B), event_shape (N,).
    Raises ValueError if the centre is not (*B, N) or the width does not broadcast to it.

    >>> positions = Coordinate(torch.tensor([[0.5, 1.5]]), 0.1)
    >>> positions.mode
    tensor([[0.5000, 1.0000]])
    >>> positions.log_prob(torch.tensor([[[0.5, 1.0]], [[0.5, 1.5]]])).squeeze(-1)
    tensor([5.3323,   -inf])
    """

    centre: Float[Tensor, "*B N"]
    width: Float[Tensor, "..."] | float

    has_rsample = True

    def __post_init__(self) -> None:
        shape = self.centre.shape
        if not shape or shape[-1] < 2:
            raise ValueError(f"Coordinate expected a centre of shape (*B, N), N at least 2, but got {tuple(shape)}.")
        self.width = spread_out("Coordinate", "width", self.width, self.centre)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Raises TypeError: what is read at a location has no closed-form mean."""
        raise TypeError(NO_MEAN)

    def expect(self, values: Any) -> Tensor:
        """Raises TypeError: what is read at a location has no closed-form mean."""
        raise TypeError(NO_MEAN)

    @property
    def mode(self) -> Float[Tensor, "*B N"]:
        """The centre, or where that lies outside, the nearest location of the image."""
        return self.centre.clamp(-1, 1)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Float[Tensor, "*SB N"]:
        """A location, drawn by the inverse of the cumulative distribution function."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Float[Tensor, "*SB N"]:
        """A location with its gradient, to centre and width, at a fixed quantile."""
        side, near, rate = self._from_edge
        quantile = torch.rand(*sample_shape, *near.shape, dtype=near.dtype, device=near.device)
        quantile = torch.where(side < 0, 1 - quantile, quantile)  # or a draw would jump where the nearer edge changes
        tail = torch.lerp((near + 2 * rate).erfc(), near.erfc(), quantile) / 2
        offset = -torch.special.ndtri(tail.clamp(1e-300, 1 - 1e-16)) / SPREAD
        return (side * (1 - (offset - near) / rate)).clamp(-1, 1).to(self.centre.dtype)

    def log_prob(self, value: Float[Tensor, "*SB N"]) -> Float[Tensor, "*SB"]:
        """The log-density at the location, -inf outside of the image."""
        side, near, rate = self._from_edge
        offset = near + rate * (1 - side * value)
        log_prob = rate.log() - offset.square() - _log_mass(near, rate)
        return log_prob.masked_fill(value.abs() > 1, -INFINITY).sum(-1).to(self.centre.dtype)

    def entropy(self) -> Float[Tensor, "*B"]:
        """The differential entropy, in nats."""
        _, near, rate = self._from_edge
        _, square = _moments(near, rate)
        return (square + _log_mass(near, rate) - rate.log()).sum(-1).to(self.centre.dtype)

    def gather(self, values: Any, z: Float[Tensor, "*SB N"]) -> Tensor:
        """What the sensor reads at the location. Raises TypeError unless `values` has a method `read`."""
        if not hasattr(values, "read"):
            raise TypeError(
                "Coordinate expected values with a method .read(z), such as a glimpse sensor, "
                f"but got {type(values).__name__}."
            )
        return values.read(z)

    @property
    def _from_edge(self) -> tuple[Tensor, Tensor, Tensor]:
        """Each coordinate as seen from the edge that is nearer to its centre, in float64 (*B, 2).

        On which side that edge lies (1 or -1), how many spreads the centre lies beyond it (below zero if inside), and
        how many spreads the unit of length has.
        """
        side = torch.where(self.centre < 0, -1.0, 1.0)
        rate = 1 / (SPREAD * self.width.double().clamp(max=WIDE))  # pyright: ignore[reportAttributeAccessIssue]
        near = rate * (side * self.centre.double() - 1)
        return side, near.clamp(max=FAR), rate * (near / FAR).clamp(min=1)


def spread_out(family: str, name: str, value: Tensor | float, centre: Tensor) -> Tensor:
    """A number or a tensor as one of the centre's type and shape. Raises ValueError if it does not broadcast to it."""
    value = torch.as_tensor(value, dtype=centre.dtype, device=centre.device)
    if not _broadcasts(value.shape, centre.shape):
        raise ValueError(
            f"{family} expected a {name} that broadcasts to its centre, {tuple(centre.shape)}, "
            f"but got {tuple(value.shape)}."
        )
    return value.expand(centre.shape)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    ends = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, wanted) for size, wanted in ends)


def _log_mass(near: Tensor, rate: Tensor) -> Tensor:
    """The log of the integral of exp(-t^2) over the image, from near to far = near + 2 rate."""
    return ((near.erfc() - (near + 2 * rate).erfc()) * (math.sqrt(math.pi) / 2)).log()


def _moments(near: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The means of the offset from the centre towards the far edge, in spreads, and of its square."""
    far, log_mass = near + 2 * rate, _log_mass(near, rate)
    at_near, at_far = (-near.square() - log_mass).exp() / 2, (-far.square() - log_mass).exp() / 2
    return at_near - at_far, 0.5 + near * at_near - far * at_far


@register_kl(Coordinate, Coordinate)
def _kl_coordinate_coordinate(p: Coordinate, q: Coordinate) -> Tensor:
    """The mean of log q needs only the mean and the variance of the location under p."""
    side, near, rate = p._from_edge
    offset, square = _moments(near, rate)
    mean, variance = side * (1 - (offset - near) / rate), (square - offset.square()) / rate.square()
    side, near, rate = q._from_edge
    square = (near + rate * (1 - side * mean)).square() + variance * rate.square()
    return (square + _log_mass(near, rate) - rate.log()).sum(-1).to(p.centre.dtype) - p.entropy()
