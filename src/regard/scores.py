"""How well does a key fit the query? Every score maps query (*B, Q, Dq) and keys (*B, K, Dk) to scores (*B, Q, K).

A score is a function of `(query, keys)`, or a module that also has `prepare(keys)`, what can be computed once for all
queries, and `compare(query, prepared)`: `score(query, keys) == score.compare(query, score.prepare(keys))`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.checks import check_part, check_width
from regard.kernels.registry import find_road
from regard.positions.base import wide


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
        prepared = self.prepare(keys)
        check_query(self, query, prepared)
        return self.compare(query, prepared)

    def query_width(self, prepared: Tensor) -> int | None:
        """The size of the queries that fit the prepared keys; None where any may do."""
        return None


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
        return unit(keys)

    def compare(self, query: Float[Tensor, "*SB Q D"], prepared: Float[Tensor, "*B K D"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against keys of length one."""
        return self.sharpened(query) @ prepared.mT

    def sharpened(self, query: Float[Tensor, "*SB Q D"]) -> Float[Tensor, "*SB Q D"]:
        """The query with the sharpness as its length."""
        return self.sharpness * unit(query)

    def query_width(self, prepared: Tensor) -> int:
        return prepared.shape[-1]

    def extra_repr(self) -> str:
        sharpness = self.sharpness
        return f"sharpness={tuple(sharpness.shape) if isinstance(sharpness, Tensor) else sharpness}"


class Content(Score):
    """The cosine of the angle between a key that is read off the query and the keys, times a strength that is too,
    softplus(b . q) (W q) . k / (|W q| |k|) (Graves et al. 2014, "Neural Turing machines", section 3.3.1): what a head
    looks for in a memory. `key` holds W, and `strength` b. Time O(Q K Dk).

    >>> Content(query_dim=3, key_dim=5)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__()
        self.key = nn.Linear(query_dim, key_dim)
        self.strength = nn.Linear(query_dim, 1)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K Dk"]:
        """The keys as they are: a memory that is written to has others at every step."""
        check_width("keys", keys, self.key.out_features, "the key_dim of Content")
        return keys

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*SB Q K"]:
        """The scores against the keys."""
        return contents(self.key(query), self.strength(query), prepared)

    def query_width(self, prepared: Tensor) -> int:
        return self.key.in_features


def contents(
    key: Float[Tensor, "*SB Q Dk"], strength: Float[Tensor, "*SB Q 1"], keys: Float[Tensor, "*B K Dk"]
) -> Float[Tensor, "*SB Q K"]:
    """softplus(strength) times the cosine of the angle between the key and the keys."""
    return (nn.functional.softplus(strength) * unit(key)) @ unit(keys).mT


class Additive(Score):
    """A small network of query and key, v . tanh(W q + U k) (Bahdanau et al. 2015, appendix A.1.2; Luong et al.'s
    concat). Its three matrices are `query.weight` W, `key.weight` U and `energy.weight` v; with `bias` each has one
    added. Time and memory O(Q K H).

    >>> Additive(query_dim=3, key_dim=5, hidden_dim=8)(torch.ones(2, 3), torch.ones(4, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int, bias: bool = False):
        super().__init__()
        self.query = nn.Linear(query_dim, hidden_dim, bias=bias)
        self.key = nn.Linear(key_dim, hidden_dim, bias=bias)
        self.energy = nn.Linear(hidden_dim, 1, bias=bias)

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K H"]:
        """The projected keys, U k."""
        check_width("keys", keys, self.key.in_features, "the key_dim of Additive")
        return self.key(keys)

    def query_width(self, prepared: Tensor) -> int:
        return self.query.in_features

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
        check_width("keys", keys, self.key.in_features, "the key_dim of Bilinear")
        return self.key(keys)

    def query_width(self, prepared: Tensor) -> int:
        return prepared.shape[-1]

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

    def query_width(self, prepared: Tensor) -> int:
        return self.place.in_features


class biased(Score):
    """Another score plus a bias for each pair of query and key, such as a learned relative position: score(q, k) + b.

    `bias` is a tensor or an `nn.Parameter` that broadcasts to the scores (*B, Q, K); a parameter is learned.

    >>> biased(dot, torch.tensor([0.0, 10.0]))(torch.ones(1, 2), torch.ones(2, 2))
    tensor([[ 2., 12.]])
    """

    def __init__(self, score, bias: Float[Tensor, "..."]):
        super().__init__()
        check_part("score", score)
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


class per_head(Score):
    """A score for each head of a `MultiHead`, with parameters of its own: scores[h](q_h, k_h), in time and memory as
    those of the scores together.

    Query and keys have the heads before their last two dimensions, (*B, H, Q, D). Raises TypeError for a score that
    is no module or needs more than query and keys, and ValueError for another number of heads, and for scores that
    prepare keys of different sizes.

    >>> score = per_head(Additive(4, 4, 8), Additive(4, 4, 8))
    >>> score(torch.ones(2, 3, 4), torch.ones(2, 5, 4)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, *scores: nn.Module):
        super().__init__()
        for score in scores:
            check_part("score", score)
            if hasattr(score, "at") or not isinstance(score, nn.Module):
                name = getattr(score, "__name__", type(score).__name__)
                raise TypeError(f"per_head expected modules that score query and keys alone, but got {name}.")
        self.scores = nn.ModuleList(scores)

    def prepare(self, keys: Float[Tensor, "*B H K D"]) -> Float[Tensor, "*B H K P"]:
        """What each score prepares of the keys of its head."""
        each = zip(self.scores, self._heads("keys", keys), strict=True)
        prepared = [prepare(score, some) for score, some in each]
        if len({some.shape for some in prepared}) > 1:
            sizes = [some.shape[-1] for some in prepared]
            raise ValueError(f"per_head expected scores that prepare keys of one size, but got the sizes {sizes}.")
        return torch.stack(prepared, -3)

    def compare(self, query: Float[Tensor, "*SB H Q D"], prepared: Tensor) -> Float[Tensor, "*SB H Q K"]:
        """The scores of each head's queries against what its score prepared."""
        each = zip(self.scores, self._heads("query", query), self._heads("keys", prepared), strict=True)
        return torch.stack([compare(score, *given) for score, *given in each], -3)

    def _heads(self, name: str, tensor: Tensor) -> tuple[Tensor, ...]:
        count = len(self.scores)
        if tensor.dim() < 3 or tensor.shape[-3] != count:
            raise ValueError(
                f"{name} expected {count} heads, one for each score of per_head, in the last dimension but two, but "
                f"got {tuple(tensor.shape)}."
            )
        return tensor.unbind(-3)


def prepare(score, keys: Tensor) -> Tensor:
    """What a score can compute from the keys once for all queries; of a plain function, the keys."""
    return score.prepare(keys) if hasattr(score, "prepare") else keys


def compare(score, query: Tensor, prepared: Tensor) -> Tensor:
    """The scores of queries against what `prepare` gave, by a fast road if there is one for the score."""
    check_query(score, query, prepared)
    plain = score.compare if hasattr(score, "compare") else score
    return (find_road((score,), query, prepared) or plain)(query, prepared)


def check_query(score, query: Tensor, prepared: Tensor) -> None:
    """Raises ValueError unless the queries have the size that the score compares."""
    if score is dot or score is scaled_dot:
        check_width("query", query, prepared.shape[-1], "that of the keys")
    elif hasattr(score, "query_width"):
        width = score.query_width(prepared)
        if width is not None:
            check_width("query", query, width, f"which {type(score).__name__} compares with the keys")


def unit(vectors: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N D"]:
    """The vectors at length one, those of zeros as they are; right for vectors of any size, in any precision."""
    exact = wide(vectors)
    largest = exact.detach().abs().amax(-1, keepdim=True)
    scaled = exact / largest.where(largest > 0, 1)  # or squares would leave what a number can hold
    return nn.functional.normalize(scaled, dim=-1, eps=0.5).to(vectors.dtype)
