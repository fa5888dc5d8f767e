"""Several attentions side by side."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention import Attended, Attention
from regard.checks import check_width
from regard.masks import cleared, full_rank, unread
from regard.memory import Memory, check_call
from regard.over.mappings import dropout, softmax
from regard.protocol import State
from regard.reads import mean
from regard.scores import per_head, scaled_dot


class MultiHead(nn.Module):
    """Several attentions side by side, each over its own projection of query, keys and values: the concatenated
    contexts are projected back, Concat(head_1 .. head_H) W^O (Vaswani et al. 2017, section 3.2.2).

    `weights` and `z` have a dimension of H heads behind the batch, (*B, H, Q, K); `log_prob` is the sum over heads.
    All heads have the parts, and share their parameters; `per_head` is a score with parameters for each. The keys and
    values have `key_heads` heads, each of which is looked at by heads / key_heads of the queries' heads, one after
    another (Ainslie et al. 2023, "GQA", section 2.2; one is the multi-query attention of Shazeer 2019), and the sizes
    `key_dim` and `value_dim`, by default model_dim. The projections have biases unless `bias` is False.

    Raises ValueError unless model_dim is a multiple of heads, and heads of key_heads.

    >>> attention = MultiHead(model_dim=8, heads=4, key_heads=2)
    >>> words = torch.ones(5, 8)
    >>> out = attention(words, attention.prepare(words, words))
    >>> out.context.shape, out.weights.shape
    (torch.Size([5, 8]), torch.Size([4, 5, 5]))
    """

    def __init__(
        self,
        model_dim: int,
        heads: int,
        score: Any = scaled_dot,
        over: Any = softmax,
        read: Any = mean,
        *,
        key_heads: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
    ):
        super().__init__()
        key_heads = heads if key_heads is None else key_heads
        for name, whole, part, parts in (
            ("model_dim", model_dim, "heads", heads),
            ("heads", heads, "key_heads", key_heads),
        ):
            if parts < 1 or whole % parts:
                raise ValueError(f"MultiHead expected {name} to be a multiple of {part}={parts}, but got {whole}.")
        self.heads, self.key_heads = heads, key_heads
        narrow = model_dim // heads * key_heads
        self.query = nn.Linear(model_dim, model_dim, bias)
        self.key = nn.Linear(key_dim or model_dim, narrow, bias)
        self.value = nn.Linear(value_dim or model_dim, narrow, bias)
        self.out = nn.Linear(model_dim, model_dim, bias)
        self.attention = Attention(score, over, read)

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> "MultiHead":
        """The same attention as PyTorch's module, with copies of its weights. Dropout becomes `dropout` of the weights.

        It takes the batch first, whatever `module.batch_first` says, and masks in which True may be looked at: theirs
        are `~mask`. Raises ValueError for a module with `add_bias_kv` or `add_zero_attn`.

        >>> theirs = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
        >>> ours, words = MultiHead.from_torch(theirs), torch.randn(1, 5, 8)
        >>> torch.allclose(ours(words, ours.prepare(words, words)).context, theirs(words, words, words)[0], atol=1e-6)
        True
        """
        if module.bias_k is not None or module.add_zero_attn:
            name = "add_zero_attn" if module.bias_k is None else "add_bias_kv"
            raise ValueError(f"from_torch expected a module without {name}, which has no counterpart, but got one.")
        sizes = {"key_dim": module.kdim, "value_dim": module.vdim, "bias": module.in_proj_bias is not None}
        over = dropout(softmax, module.dropout) if module.dropout else softmax
        ours = cls(module.embed_dim, module.num_heads, over=over, **sizes).to(module.out_proj.weight)
        ours.load_state_dict(_projections(module))
        return ours.train(module.training)

    def prepare(
        self,
        keys: Float[Tensor, "*B K Dk"],
        values: Float[Tensor, "*B K Dv"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Memory:
        """The memory of keys and values projected for each head; the mask is that of all heads, as in `attend`
        (`causal(n)[None]`), or with a dimension of heads behind the batch, (*B, H, Q, K)."""
        for name, given, layer in (("keys", keys, self.key), ("values", values, self.value)):
            if not isinstance(given, Tensor):
                raise TypeError(f"{name} expected a tensor, which MultiHead projects, but got {type(given).__name__}.")
            check_width(name, given, layer.in_features, "which MultiHead projects")
        if mask is not None:
            mask = self._mask(mask, keys.shape[:-2], keys.shape[-2])
            hidden = unread(mask).all(-3)
            keys, values = cleared(keys, hidden), cleared(values, hidden)
        projected = self._split(self.key(keys)), self._split(self.value(values))  # (*B, G, K, D / H)
        if isinstance(self.attention.score, per_head):
            projected = map(self._for_queries, projected)
        memory = self.attention.prepare(*projected)
        return memory if mask is None else replace(memory, mask=mask)

    def forward(
        self, query: Float[Tensor, "*SB Q D"], memory: Memory, state: State | None = None, weights: bool = False
    ) -> Attended:
        check_call(query, memory, state)
        check_width("query", query, self.query.in_features, "the model_dim of MultiHead")
        memory = replace(memory, keys=self._for_queries(memory.keys), values=self._for_queries(memory.values))
        out = self.attention(self._split(self.query(query)), memory, state, weights)
        context = self.out(out.context.transpose(-3, -2).flatten(-2))  # (*B, Q, D)
        log_prob = None if out.log_prob is None else out.log_prob.sum(query.dim() - 2)
        return replace(out, context=context, log_prob=log_prob)

    def _split(self, tensor: Tensor) -> Tensor:
        width = self.query.out_features // self.heads
        return tensor.unflatten(-1, (-1, width)).transpose(-3, -2)  # (*B, H or G, N, D / H)

    def _for_queries(self, tensor: Tensor) -> Tensor:
        """What the keys' heads hold, for each of the queries' heads."""
        alike = self.heads // tensor.shape[-3]
        return tensor if alike == 1 else tensor.repeat_interleave(alike, -3)

    def _mask(self, mask: Tensor, batch: torch.Size, places: int) -> Tensor:
        """The mask with the heads, (*B, H, Q, K)."""
        if mask.dim() == len(batch) + 3:
            return full_rank(mask, torch.Size((*batch, self.heads)), places)
        mask = full_rank(mask, batch, places).unsqueeze(-3)
        return mask.expand(*batch, self.heads, -1, -1)


def _check_divides(name: str, whole: int, part: str, parts: int) -> None:
    if parts < 1 or whole % parts:
        raise ValueError(f"MultiHead expected {name} to be a multiple of {part}={parts}, but got {whole}.")


def _projections(module: nn.MultiheadAttention) -> dict[str, Tensor]:
    """The weights of PyTorch's module, which may hold them as one matrix, by our names."""
    names = "query", "key", "value"
    if module.in_proj_weight is None:
        weights = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    else:
        weights = module.in_proj_weight.chunk(3)
    found = {f"{name}.weight": weight for name, weight in zip(names, weights, strict=True)}
    if module.in_proj_bias is not None:
        found |= {f"{name}.bias": bias for name, bias in zip(names, module.in_proj_bias.chunk(3), strict=True)}
    return found | {f"out.{name}": weight for name, weight in module.out_proj.state_dict().items()}
