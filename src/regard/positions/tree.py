"""A head for every word, so that all together are a tree."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms import trees
from regard.positions.base import Positions, exported, take, wide
from regard.positions.chain import spanning
from regard.positions.structure import Structure, chosen


@exported
@dataclass(eq=False, repr=False)
class Tree(Structure):
    """Dependency trees of K words: the head of each, itself for a root, with probability proportional to
    exp(sum_i scores_{i, z_i}) (Koo et al. 2007, section 2).

    One event spans the words: the head of each, -1 where it is absent. As attention, the words are the queries and the
    heads the places: a word reads its head, a root itself. In a projective tree all words between a word and its head
    descend from that head, and no arc passes over a root.

    Shapes: scores (*B, K, K), the diagonal that of the roots, present (*B, K); batch_shape (*B), event_shape (K,).
    `log_z`, `mean`, `entropy`, `kl` and `mode` take time O(K^3), the k best O(k K^4), a draw O(K^2) after O(K^3), but
    O(K^4) where a tree is not projective and walks to its root are long.

    >>> positions = Tree(torch.zeros(3, 3), torch.ones(3, dtype=torch.bool))
    >>> positions.log_z.exp(), positions.log_prob(torch.tensor([1, 1, 1])).exp()
    (tensor(7.0000), tensor(0.1429))
    """

    scores: Float[Tensor, "*B K K"]
    present: Bool[Tensor, "*B K"]
    projective: bool = True
    single_root: bool = True

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-2], self.scores.shape[-1:], validate_args=False)

    @property
    def choices(self) -> int:
        return self.scores.shape[-1]

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return wide(self.scores).flatten(-2)

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return trees.log_partition(*self._parts)

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return trees.marginals(*self._parts).flatten(-2)

    @property
    def mean(self) -> Float[Tensor, "*B K K"]:
        """The probability of each head of each word, on the diagonal that it is a root."""
        return trees.marginals(*self._parts).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB K"]) -> Float[Tensor, "*SB P"]:
        return self.indicator(z).to(wide(self.scores).dtype).flatten(-2)

    def _score(self, z: Tensor) -> Tensor:
        return chosen(wide(self.scores), z.unsqueeze(-1)).squeeze(-1).sum(-1)

    def k_best(self, k: int) -> Int[Tensor, "k *B K"]:
        return trees.k_best(*self._parts, k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB K"]:
        """A random tree: from the whole sentence down to its words if projective, else word after word."""
        return trees.sample(*self._parts, torch.Size(sample_shape))

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, bool, bool]:
        return wide(self.scores), self.present, self.projective, self.single_root

    @property
    def _words(self) -> Tensor:
        return torch.arange(self.scores.shape[-1], device=self.device)

    def _is_structure(self, z: Tensor) -> Tensor:
        heads = z.clamp(0, z.shape[-1] - 1)
        roots = (z == self._words) & self.present
        rooted = take(roots, _ends(heads.where(self.present, self._words)), -1)
        headed = (z >= 0) & (z < z.shape[-1]) & take(self.present, heads, -1) & rooted
        trees = headed.where(self.present, z == -1).all(-1)
        if self.single_root:
            trees = trees & (roots.sum(-1) <= 1)
        return trees & ~self._cross(z) if self.projective else trees

    def _cross(self, z: Tensor) -> Tensor:
        """Whether any two arcs cross, those from the root beginning left of all words, (*S, *B)."""
        root = z == self._words
        first = torch.minimum(z, self._words).masked_fill(root, -1)  # (*S, *B, K)
        last = torch.maximum(z, self._words)
        begins, ends = first.unsqueeze(-1), last.unsqueeze(-1)
        crossing = (begins < first.unsqueeze(-2)) & (first.unsqueeze(-2) < ends) & (ends < last.unsqueeze(-2))
        both = self.present.unsqueeze(-1) & self.present.unsqueeze(-2)
        return (crossing & both).any((-1, -2))


def _ends(heads: Tensor) -> Tensor:
    """Where the way from head to head ends, or goes in circles, after as many steps as there are words."""
    for _ in range(heads.shape[-1].bit_length()):
        heads = heads.gather(-1, heads)
    return heads
