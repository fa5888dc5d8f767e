"""How well does a key fit the query? Every score maps query (*B, Q, Dq) and keys (*B, K, Dk) to scores (*B, Q, K).

A score is a function of `(query, keys)`, or a module that also has `prepare(keys)`, what can be computed once for all
queries, and `compare(query, prepared)`: `score(query, keys) == score.compare(query, score.prepare(keys))`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.kernels.registry import find_road


def dot(query: Float[Tensor, "*SB Q D"], keys: Float[Tensor, "*B K D"]) -> Float[Tensor, "*SB Q K"]:
    """The dot product, q . k (Luong et al. 2015, equation 7, dot). Time O(Q K D).

    >>> dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    tensor([[1., 2., 3.]])
    """
    return query @ keys.mT


def scaled_dot(query: Float[Tensor, "*SB Q D"], keys: Float[Tensor, "*B K D"]) -> Float[Tensor, "*SB Q K"]:
    """The dot product over the square root of its size, q . k / sqrt(D) (Vaswani et al. 2017, equation 1).

    >>> scaled_dot(torch.ones(1, 4), torch.ones(2, 4))
    tensor([[2., 2.]])
    """
    return (query / math.sqrt(query.shape[-1])) @ keys.mT


class Score(nn.Module):
    """A score with parameters or with something to prepare: subclasses define `compare`, and `prepare` if it pays."""

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Tensor:
        """What can be computed from the keys once for all queries: here the keys themselves."""
        return keys

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Tensor) -> Float[Tensor, "*SB Q K"]:
        """The scores of the queries against prepared keys."""
        raise TypeError(f"{type(self).__name__} must define compare(query, prepared), which a Score is made of.")

    def forward(self, query: Float[Tensor, "*SB Q Dq"], keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*SB Q K"]:
        """The scores, `compare(query, prepare(keys))`."""
        return self.compare(query, self.prepare(keys))


class Cosine(Score):
    """The cosine of the angle between query and key times a sharpness, beta q . k / (|q| |k|) (Graves et al. 2014,
    equations 5 and 6). A vector of zeros has the cosine zero with every other. Time O(Q K D).

    `sharpness` is a number, which stays fixed, or an `nn.Parameter`, which is learned.

    >>> Cosine(sharpness=2.0)(torch.tensor([[3.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    tensor([[2., 0.]])
    """

    def __init__(self, sharpness: float | nn.Parameter = 1.0):
        super().__init__()
        self.sharpness = sharpness

    def prepare(self, keys: Float[Tensor, "*B K D"]) -> Float[Tensor, "*B K D"]:
        """The keys at length one."""
        return nn.functional.normalize(keys, dim=-1)

    def compare(self, query: Float[Tensor, "*SB Q D"], prepared: Float[Tensor, "*B K D"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against keys of length one."""
        return self.sharpened(query) @ prepared.mT

    def sharpened(self, query: Float[Tensor, "*SB Q D"]) -> Float[Tensor, "*SB Q D"]:
        """The query with the sharpness as its length."""
        return self.sharpness * nn.functional.normalize(query, dim=-1)

    def extra_repr(self) -> str:
        sharpness = self.sharpness
        return f"sharpness={tuple(sharpness.shape) if isinstance(sharpness, Tensor) else sharpness}"


class Additive(Score):
    """A small network of query and key, v . tanh(W q + U k) (Bahdanau et al. 2015, appendix A.1.2; Luong et al.'s
    concat). Its three matrices are `query.weight` W, `key.weight` U and `energy.weight` v. Time and memory O(Q K H).

    >>> Additive(query_dim=3, key_dim=5, hidden_dim=8)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int):
        super().__init__()
        self.query = nn.Linear(query_dim, hidden_dim, bias=False)
        self.key = nn.Linear(key_dim, hidden_dim, bias=False)
        self.energy = nn.Linear(hidden_dim, 1, bias=False)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K H"]:
        """The projected keys, U k."""
        return self.key(keys)

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Float[Tensor, "*B K H"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against projected keys."""
        hidden = self.query(query).unsqueeze(-2) + prepared.unsqueeze(-3)  # (*B, Q, K, H)
        return self.energy(hidden.tanh()).squeeze(-1)


class Bilinear(Score):
    """A learned product, q W k (Luong et al. 2015, equation 7, general). Time O(K Dk Dq + Q K Dq).

    >>> Bilinear(query_dim=3, key_dim=5)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__()
        self.key = nn.Linear(key_dim, query_dim, bias=False)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K Dq"]:
        """The projected keys, W k."""
        return self.key(keys)

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Float[Tensor, "*B K Dq"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against projected keys."""
        return query @ prepared.mT


class Location(Score):
    """A score of places from the query alone, W q (Luong et al. 2015, equation 8, location). Time O(Q K Dq).

    `places` is the largest number of keys. Raises ValueError when there are more.

    >>> Location(query_dim=3, places=10)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, query_dim: int, places: int):
        super().__init__()
        self.place = nn.Linear(query_dim, places, bias=False)

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*SB Q K"]:
        """The scores of the first K places."""
        places = prepared.shape[-2]
        if places > self.place.out_features:
            raise ValueError(f"Location expected at most places={self.place.out_features} keys, but got {places}.")
        scores = nn.functional.linear(query, self.place.weight[:places])
        return scores.expand(*torch.broadcast_shapes(query.shape[:-2], prepared.shape[:-2]), *scores.shape[-2:])


class biased(Score):
    """Another score plus a bias for each pair of query and key, such as a learned relative position: score(q, k) + b.

    `bias` is a tensor or an `nn.Parameter` that broadcasts to the scores (*B, Q, K); a parameter is learned.

    >>> biased(dot, torch.tensor([0.0, 10.0]))(torch.ones(1, 2), torch.ones(2, 2))
    tensor([[ 2., 12.]])
    """

    def __init__(self, score, bias: Float[Tensor, "..."]):
        super().__init__()
        self.score = score
        if isinstance(bias, nn.Parameter):
            self.bias = bias
        else:
            self.register_buffer("bias", bias)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Tensor:
        """What the other score prepares."""
        return prepare(self.score, keys)

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Tensor) -> Float[Tensor, "*SB Q K"]:
        """The other score's scores plus the bias."""
        return compare(self.score, query, prepared) + self.bias


def prepare(score, keys: Tensor) -> Tensor:
    """What a score can compute from the keys once for all queries; of a plain function, the keys."""
    return score.prepare(keys) if hasattr(score, "prepare") else keys


def compare(score, query: Tensor, prepared: Tensor) -> Tensor:
    """The scores of queries against what `prepare` gave, by a fast road if there is one for the score."""
    plain = score.compare if hasattr(score, "compare") else score
    return (find_road((score,), query, prepared) or plain)(query, prepared)
