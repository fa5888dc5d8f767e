"""A grid of places in an image, each a Gaussian over the pixels: a window that reads, and writes, by linear filters."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.algorithms.gaussian_filters import filter_scores, read_through, write_through
from regard.positions.base import INFINITY, Positions, exported, gumbel_like, take
from regard.positions.coordinate import spread_out


@exported
@dataclass(eq=False, repr=False)
class GaussianGrid(Positions):
    """N x N places round a centre, `stride` apart, each drawn by itself: its row and its column from a Gaussian.

    p(z_ij = pixel (a, b)) = F_y[i, a] F_x[j, b],    F[i, a] = exp(-(p_a - m_i)^2 / 2 w^2) / sum_a' exp(-(p_a' - m_i)^2 / 2 w^2)

    where p_a is the middle of a row (or column) of pixels and m_i = centre + (i - (N - 1) / 2) stride that of a filter
    (Gregor et al. 2015, "DRAW", equations 19, 20, 25 and 26). What is read is linear in the image, and so is what is
    written, and one is the adjoint of the other: sum(read(image) * patch) = sum(image * write(patch)),

        read(image) = F_y image F_x^T    (equation 27),    write(patch) = F_y^T patch F_x    (equation 29).

    Each filter sums to one, wherever it lies: one that is far outside of the image looks at the edge that is nearest.

    The unit of centre, stride and width is that of all locations: (y, x) in [-1, 1], the image's outer edges at -1 and
    1, and so 2 / Y is one row of pixels; `width` is the standard deviation. Stride and width are numbers or tensors
    that broadcast to the centre; a width of shape (*B, 1) is for both directions. With a stride of one pixel a grid
    whose width goes to zero reads what `Glimpses` of one scale reads of that size at that centre, where the window is
    inside of the image and no m_i on the line between two pixels, of which it reads the mean. Widths outside of
    [1e-4, 1e3] count as the nearest of these.

    An event is the number of a pixel for each of the N^2 places, row by row; the pixels are counted row by row too.

    Shapes: centre, stride and width (*B, 2); `shape` is (Y, X); batch_shape (*B, N N), event_shape (). `read`, `write`,
    `sample` and `log_prob` take O(N Y X) at most; only `mean` has N^2 Y X numbers.
    Raises ValueError if the centre is not (*B, 2), stride or width does not broadcast to it, or a size is below one.

    >>> window = GaussianGrid(torch.zeros(1, 2), stride=0.5, width=1e-3, size=2, shape=(4, 4))
    >>> window.read(torch.arange(16.0).view(1, 1, 4, 4)).squeeze()
    tensor([[ 5.,  6.],
            [ 9., 10.]])
    >>> window.write(torch.ones(1, 1, 2, 2)).squeeze()
    tensor([[0., 0., 0., 0.],
            [0., 1., 1., 0.],
            [0., 1., 1., 0.],
            [0., 0., 0., 0.]])
    """  # noqa: E501

    centre: Float[Tensor, "*B 2"]
    stride: Float[Tensor, "..."] | float
    width: Float[Tensor, "..."] | float
    size: int
    shape: tuple[int, int]

    has_enumerate_support = True

    def __post_init__(self) -> None:
        if self.centre.shape[-1:] != (2,):
            raise ValueError(f"GaussianGrid expected a centre of shape (*B, 2), but got {tuple(self.centre.shape)}.")
        if min(self.size, *self.shape) < 1:
            raise ValueError(f"GaussianGrid expected sizes of at least 1, but got {self.size} and {self.shape}.")
        self.stride = spread_out("GaussianGrid", "stride", self.stride, self.centre)
        self.width = spread_out("GaussianGrid", "width", self.width, self.centre)
        super().__init__(torch.Size([*self.centre.shape[:-1], self.size**2]), validate_args=False)

    @property
    def filters(self) -> tuple[Float[Tensor, "*B N Y"], Float[Tensor, "*B N X"]]:
        """F_y and F_x, the probabilities of the rows and of the columns; computed in float32 at least."""
        rows, columns = self._scores
        return rows.softmax(-1), columns.softmax(-1)

    def read(self, image: Float[Tensor, "*B _ Y X"], *others: Float[Tensor, "*B _ Y X"]) -> Float[Tensor, "*SB C N N"]:
        """F_y image F_x^T, the mean of what is at each place; draws S of the window are in front. Several images are
        read at once, as one that has the channels of all."""
        for each in (image, *others):
            self._check("image", each, self.shape)
        return read_through(*self._placed, self.size, image, *others)

    def write(self, patch: Float[Tensor, "*B C N N"]) -> Float[Tensor, "*SB C Y X"]:
        """F_y^T patch F_x, an image on which each number of the patch lies where its place is."""
        self._check("patch", patch, (self.size, self.size))
        return write_through(*self._placed, self.shape, patch)

    @property
    def mean(self) -> Float[Tensor, "*B NN YX"]:
        """The probability of each pixel for each place."""
        rows, columns = self.filters
        both = rows[..., :, None, :, None] * columns[..., None, :, None, :]  # (*B, N, N, Y, X)
        return both.flatten(-4, -3).flatten(-2).to(self.centre.dtype)

    def expect(self, values: Any) -> Float[Tensor, "*SB NN V"]:
        """The mean of the values (*B, Y X, V) of the pixels for each place: a `read`, which does not form `mean`."""
        if not isinstance(values, Tensor):
            return super().expect(values)
        image = values.unflatten(-2, self.shape).movedim(-1, -3)
        return self.read(image).flatten(-2).mT

    @property
    def mode(self) -> Int[Tensor, "*B NN"]:
        """The pixel that is nearest to each place."""
        rows, columns = (each.argmax(-1) for each in self._log_filters)
        return self._pixel(rows.unsqueeze(-1), columns.unsqueeze(-2))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB NN"]:
        """A pixel for each place, its row and its column drawn by the Gumbel-max trick."""
        with torch.no_grad():
            rows, columns = self._log_filters
            shape = (*sample_shape, *self.centre.shape[:-1], self.size, self.size)
            rows, columns = rows.unsqueeze(-2).expand(*shape, -1), columns.unsqueeze(-3).expand(*shape, -1)
            return self._pixel(*((each + gumbel_like(each)).argmax(-1) for each in (rows, columns)))

    def log_prob(self, value: Int[Tensor, "*SB NN"]) -> Float[Tensor, "*SB NN"]:
        """The log-probability of the pixels; nowhere, -1, is impossible."""
        (rows, columns), pixel = self._log_filters, value.clamp(min=0).unflatten(-1, (self.size, self.size))
        row = take(rows, pixel // self.shape[1], -1)  # (*S, *B, N, N)
        column = take(columns, (pixel % self.shape[1]).mT, -1).mT
        return (row + column).flatten(-2).masked_fill(value < 0, -INFINITY).to(self.centre.dtype)

    def entropy(self) -> Float[Tensor, "*B NN"]:
        """The entropy, that of the row and that of the column, in nats."""
        return self._expected(self._log_filters, self._log_filters).neg()

    def indicator(self, z: Int[Tensor, "*SB NN"]) -> Float[Tensor, "*SB NN YX"]:
        """The pixels as a 0/1 tensor."""
        places = torch.arange(self.shape[0] * self.shape[1], device=z.device)
        return (z.unsqueeze(-1) == places).to(self.centre.dtype)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "YX *B NN"]:
        """Every pixel in order."""
        support = torch.arange(self.shape[0] * self.shape[1], device=self.device)
        support = support.view(-1, *(1 for _ in self.batch_shape))
        return support.expand(-1, *self.batch_shape) if expand else support

    @property
    def _log_filters(self) -> tuple[Tensor, Tensor]:
        """The logarithms of the filters, (*B, N, Y) and (*B, N, X)."""
        rows, columns = self._scores
        return rows.log_softmax(-1), columns.log_softmax(-1)

    @property
    def _scores(self) -> tuple[Tensor, Tensor]:
        """What the filters are a softmax of, (*B, N, Y) and (*B, N, X)."""
        return filter_scores(*self._placed, self.size, self.shape)

    @property
    def _placed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centre, stride and width, (*B, 2) each."""
        return self.centre, torch.as_tensor(self.stride), torch.as_tensor(self.width)

    def _pixel(self, row: Tensor, column: Tensor) -> Int[Tensor, "*SB NN"]:
        return (row * self.shape[1] + column).flatten(-2)

    def _expected(self, log_p: tuple[Tensor, Tensor], quantity: tuple[Tensor, Tensor]) -> Float[Tensor, "*B NN"]:
        """The mean, under each place, of a quantity of its row plus one of its column."""
        rows, columns = (
            (log.exp() * each.masked_fill(log == -INFINITY, 0)).sum(-1)
            for log, each in zip(log_p, quantity, strict=True)
        )
        return (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2).to(self.centre.dtype)

    def _check(self, name: str, given: Tensor, shape: tuple[int, int]) -> None:
        if given.dim() < 3 or tuple(given.shape[-2:]) != tuple(shape):
            raise ValueError(
                f"{name} expected the shape (*B, C, {shape[0]}, {shape[1]}), but got {tuple(given.shape)}."
            )


@register_kl(GaussianGrid, GaussianGrid)
def _kl_gaussian_grid(p: GaussianGrid, q: GaussianGrid) -> Tensor:
    if (p.size, tuple(p.shape)) != (q.size, tuple(q.shape)):
        raise ValueError(f"kl expected two grids of one size on one shape, but got {p} and {q}.")
    log_p, log_q = p._log_filters, q._log_filters
    rows, columns = (ours - theirs for ours, theirs in zip(log_p, log_q, strict=True))
    return p._expected(log_p, (rows, columns))
