"""Any distribution over where to look, in any Transformer of Hugging Face's `transformers`, by its name.

`register` makes a score, an over and a read known to transformers as one of its attentions; a model takes it by
`attn_implementation=NAME` or `model.set_attn_implementation(NAME)`, without a change to its code or its weights, to be
trained or to generate. `looked` collects where every layer looked. Needs the extra `huggingface`.
"""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention import Attended, attend
from regard.checks import check_part
from regard.masks import causal
from regard.over.mappings import dropout, softmax
from regard.reads import mean
from regard.scores import biased, dot

THEIRS = ("/", ":", "|", "eager", "sdpa", "flash", "flex", "paged")
"""What transformers itself understands in a name."""

REFUSED = {
    "softcap": "a cap on the scores",
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "indices": "places chosen beforehand",
    "block_indices": "blocks chosen beforehand",
}
"""What some models ask of an attention that is none of score, over and read."""


def register(name: str, over: Any = softmax, read: Any = mean, score: Any = dot) -> None:
    """Makes an attention known to transformers by a name: c = E_{z ~ over(score(s q, k) + b)} [v_z], where the scale s
    and the bias b, such as the relative positions of T5, are the model's own (Vaswani et al. 2017, equation 1).

    Its mask is registered with it, so that a decoder is causal; grouped keys are repeated; padding on either side,
    sliding windows and caches are the model's. A query that may look at nothing reads zero. The weights are returned
    where the model is asked for them, `output_attentions=True`: of a read that draws they are its probabilities. The
    model's dropout of weights serves the mean alone. Parameters of the parts, such as a learned alpha, are none of the
    model's: give them to the optimiser, too. Registering a name again replaces what it meant.

    In the call of a model, ValueError is raised for what would be wrong in silence: a cap on the scores and attention
    sinks, for the model has more than the parts; an over that hands something from query to query, such as `local` or
    `monotonic`, with a cache, which has no place for it; one normalised over all queries, such as `tree`, in a decoder,
    whose queries would know of later ones; and dropout with a read that draws.

    Raises ValueError for a name that is one of transformers' own or would be read as one, or without the extra
    huggingface, and TypeError for what is no part.

    >>> from regard import entmax
    >>> from transformers import BertConfig, BertModel
    >>> register("entmax-1.5", over=entmax(1.5))
    >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    >>> model = BertModel(BertConfig(vocab_size=10, attn_implementation="entmax-1.5", **sizes)).eval()
    >>> model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
    torch.Size([1, 3, 8])
    """
    for role, part in (("score", score), ("over", over), ("read", read)):
        check_part(role, part)
    functions, masks, sdpa_mask = _interfaces()
    ours = isinstance(functions.get(name), _Attention)
    if not ours and (not name or name in functions or any(word in name for word in THEIRS)):
        raise ValueError(f"name expected a word that is not one of transformers' own, but got {name!r}.")
    functions.register(name, _Attention(score, over, read))
    masks.register(name, _Mask(sdpa_mask))


_OPEN: ContextVar[tuple["looked", ...]] = ContextVar("regard.huggingface.looked", default=())


class looked(dict[str, list[Attended]]):
    """A context that collects where every layer of a model looked: {name of the module: what it attended, call by
    call}, in the order of the layers.

    Each `Attended` has the heads behind the batch, weights (B, H, Q, K) and, of a read that draws, z (B, H, Q); its
    `log_prob`, (B, Q), is summed over the heads. What is collected holds the queries and keys until it is dropped. The
    model runs an attention that was registered, and not under torch.compile.

    >>> import regard as rg
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> register("hard", read=rg.hard)
    >>> config = GPT2Config(vocab_size=10, n_embd=8, n_layer=2, n_head=2, attn_pdrop=0.0, attn_implementation="hard")
    >>> model = GPT2LMHeadModel(config)
    >>> with looked(model) as seen:
    ...     logits = model(torch.tensor([[1, 2, 3]])).logits
    >>> list(seen), seen["transformer.h.0.attn"][0].z.shape
    (['transformer.h.0.attn', 'transformer.h.1.attn'], torch.Size([1, 2, 3]))
    >>> cost = torch.nn.functional.cross_entropy(logits[:, :-1].mT, torch.tensor([[2, 3]]), reduction="none").mean(-1)
    >>> loss = (cost + rg.reinforce(seen.log_prob, cost)).mean()
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}
        self._token: Token | None = None

    def __enter__(self) -> "looked":
        self._token = _OPEN.set((*_OPEN.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _OPEN.reset(self._token)

    @property
    def log_prob(self) -> Float[Tensor, "B Q"]:
        """The log-probability of what all layers and heads drew for each query, (B, Q); (B,) where an event spans the
        queries. A padded query draws as others do: times the padding, `seen.log_prob * attention_mask`, it counts not.

        Raises ValueError unless there was one call, of a read that draws, in which all layers had as many queries.
        """
        each = [out.log_prob for outs in self.values() for out in outs]
        shapes = {None if one is None else tuple(one.shape) for one in each}
        if len(shapes) != 1 or None in shapes or any(len(outs) > 1 for outs in self.values()):
            raise ValueError(
                "log_prob expected one call of the model, with an attention registered with a read that draws and as "
                f"many queries in every layer, but got {len(each)} attentions with log-probabilities of the shapes "
                f"{sorted(map(str, shapes))}."
            )
        return torch.stack(each).sum(0)

    def _note(self, module: nn.Module, out: Attended) -> None:
        if module in self._names:
            self.setdefault(self._names[module], []).append(out)


@dataclass(frozen=True)
class _Mask:
    """What transformers asks for a mask: one of bool, True = may be looked at, for all that is causal."""

    theirs: Any

    def __call__(self, *given: Any, allow_is_causal_skip: bool = True, **named: Any) -> Tensor | None:
        return self.theirs(*given, allow_is_causal_skip=False, **named)


@dataclass(frozen=True)
class _Attention:
    """What transformers calls in the place of its own attention."""

    score: Any
    over: Any
    read: Any

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "B H Q D"],
        key: Float[Tensor, "B G K D"],
        value: Float[Tensor, "B G K V"],
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        position_bias: Tensor | None = None,
        is_causal: bool | None = None,
        output_attentions: bool = False,
        **others: Any,
    ) -> tuple[Float[Tensor, "B Q H V"], Float[Tensor, "B H Q K"] | None]:
        _refuse(module, others)
        mask, bias = _mask_and_bias(attention_mask, position_bias)
        if mask is None and is_causal and query.shape[-2] > 1:
            mask = causal(query.shape[-2], key.shape[-2], query.device)[None, None]
        out = attend(
            query.expand(len(key), -1, -1, -1) * (query.shape[-1] ** -0.5 if scaling is None else scaling),
            _for_queries(key, query),
            _for_queries(value, query),
            score=self.score if bias is None else biased(self.score, bias),
            over=self._over(dropout),
            read=self.read,
            mask=mask,
            training=module.training,
            weights=output_attentions,
        )
        _check_spanning(out, module, query.shape[-2], key.shape[-2])
        _collect(module, out)
        return out.context.transpose(1, 2).contiguous(), out.weights if output_attentions else None

    def _over(self, p: float) -> Any:
        if p and self.read is not mean:
            raise ValueError(
                "dropout of the weights serves the mean alone: of a read that draws it expected 0 (the config's "
                f"attention_dropout, attn_pdrop, attention_probs_dropout_prob or dropout_rate), but got {p}."
            )
        return dropout(self.over, p) if p else self.over


def _interfaces() -> tuple[Any, Any, Any]:
    """Where transformers keeps its attentions and their masks, and the mask of bool among these."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask
    except ImportError as error:
        raise ValueError("register needs the extra huggingface: pip install 'regard[huggingface]'") from error
    return AttentionInterface(), AttentionMaskInterface(), sdpa_mask


def _refuse(module: nn.Module, others: Mapping[str, Any]) -> None:
    """Raises ValueError for what a model asks that would be left out."""
    asked = {name for name, given in others.items() if given is not None}
    asked |= {"sinks"} if getattr(module, "sinks", None) is not None else set()
    for name in sorted(asked & set(REFUSED)):
        raise ValueError(
            f"An attention of regard expected a model of queries, keys and values alone, but {type(module).__name__} "
            f"has {REFUSED[name]} ({name}), of which score, over and read know nothing."
        )


def _mask_and_bias(
    mask: Tensor | None, bias: Tensor | None
) -> tuple[Bool[Tensor, "..."] | None, Float[Tensor, "..."] | None]:
    """What may be looked at, and what is added to the scores: a mask of floats is added, and the lowest numbers of its
    dtype hide a place."""
    if mask is None or not mask.is_floating_point():
        return mask, bias
    seen = mask > torch.finfo(mask.dtype).min / 2
    added = mask.where(seen, 0)
    return seen, added if bias is None else added + bias


def _for_queries(tensor: Float[Tensor, "B G K D"], query: Float[Tensor, "B H Q D"]) -> Float[Tensor, "B H K D"]:
    """What the keys' heads hold, for each of the queries' heads."""
    alike = query.shape[1] // tensor.shape[1]
    return tensor if alike == 1 else tensor.repeat_interleave(alike, 1)


def _check_spanning(out: Attended, module: nn.Module, queries: int, places: int) -> None:
    """Raises ValueError where queries depend on each other in a way that the model's calls cut or that would be unfair:
    each call has to have all queries, and those of a decoder may not know of later ones."""
    if out.state is not None and any(each is not None for each in out.state) and queries != places:
        raise ValueError(
            "An attention that hands something from query to query has no place for it in a cache: expected as many "
            f"queries as keys, as with use_cache=False, but got {queries} queries and {places} keys."
        )
    spans = out.formed is not None and len(out.formed.batch_shape) < out.context.dim() - 1
    decodes = getattr(module, "is_causal", False) or getattr(module, "is_decoder", False) or queries != places
    if spans and out.state is None and decodes:
        raise ValueError(
            f"{type(out.formed).__name__} is normalised over all queries of a call: expected an encoder's attention to "
            f"itself, but got {type(module).__name__}, whose queries would depend on later ones."
        )


def _collect(module: nn.Module, out: Attended) -> None:
    if torch.compiler.is_compiling() or not (contexts := _OPEN.get()):
        return
    log_prob = None if out.log_prob is None else out.log_prob.sum(1)  # over the heads
    for each in contexts:
        each._note(module, replace(out, log_prob=log_prob))
