"""What a Transformer of Hugging Face costs with the attention of `regard.huggingface`, beside transformers' own.

`regard bench huggingface` prints whole models of random weights: a BERT in training, a Llama in training and in
generation, by softmax beside `eager` and `sdpa`, and by other distributions beside `eager`. Before it is timed, softmax
has been checked to answer as `eager` does.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from harness import Row, compare, main
from torch import Tensor

import regard as rg

WORDS, SHORT, LONG = 1000, (8, 64), (2, 512)
OVERS = {"softmax": rg.softmax, "entmax(1.5)": rg.entmax(1.5), "sparsemax": rg.sparsemax, "top_k(8)": rg.top_k(8)}
LIMIT = "the same model with an attention that returns the values as they are"
Call = Callable[[], Any]


def measure(rounds: int) -> Iterable[Row]:
    """Softmax beside both of theirs, in every case, then the others beside eager attention."""
    register()
    for make, size in ((bert, SHORT), (bert, LONG), (llama, SHORT), (llama, LONG)):
        check(make, size)
        case = f"{make.__name__}, {size[0]} x {size[1]}, training"
        for peer in ("eager", "sdpa"):
            yield row(f"{case}, softmax", peer, partial(training, make, size), "softmax", rounds, size[0] * size[1])
    for over in list(OVERS)[1:]:
        how = partial(training, bert, LONG)
        yield row(f"bert, {LONG[0]} x {LONG[1]}, training, {over}", "eager", how, over, rounds, LONG[0] * LONG[1])
    for over in OVERS:
        yield row(f"llama, 8 x 64, 16 new words, {over}", "eager", partial(generation, SHORT), over, rounds, 8 * 16)


def register() -> None:
    """Makes ours known, and one that looks nowhere."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, over in OVERS.items():
        rg.huggingface.register(name, over=over)
    AttentionInterface.register("none", nothing)
    AttentionMaskInterface.register("none", sdpa_mask)


def nothing(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any) -> tuple:
    """The values of the queries' own places."""
    own = value[..., -query.shape[-2] :, :].repeat_interleave(query.shape[1] // value.shape[1], 1)
    return own.transpose(1, 2).contiguous() + 0 * query.transpose(1, 2) + 0 * key.mean(), None


def bert(attention: str) -> Any:
    """Two layers of four heads, 128 wide."""
    from transformers import BertConfig, BertForMaskedLM

    sizes: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["intermediate_size"] = 512
    still = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    torch.manual_seed(0)
    given: dict[str, Any] = {"attn_implementation": attention}
    return BertForMaskedLM(BertConfig(vocab_size=WORDS, **sizes, **still, **given))


def llama(attention: str) -> Any:
    """Two layers of four heads over two of keys, 128 wide."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["intermediate_size"] = 512
    rest: dict[str, Any] = {"num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": None}
    torch.manual_seed(0)
    rest["attn_implementation"] = attention
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, **sizes, **rest))


def given(size: tuple[int, int]) -> dict[str, Tensor]:
    """Sentences of which every other is padded by a quarter."""
    words = torch.randint(1, WORDS, size, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(words)
    mask[1::2, : size[1] // 4] = 0
    return {"input_ids": words, "attention_mask": mask}


def check(make: Callable[[str], Any], size: tuple[int, int]) -> None:
    """Raises AssertionError unless softmax answers as eager attention does."""
    batch = given(size)
    real = batch["attention_mask"].bool()
    ours, theirs = (make(name)(**batch).logits[real] for name in ("softmax", "eager"))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def training(make: Callable[[str], Any], size: tuple[int, int], attention: str) -> Call:
    """The loss of a model and its gradients."""
    model, batch = make(attention), given(size)

    def step() -> None:
        model.zero_grad()
        model(**batch, labels=batch["input_ids"]).loss.backward()

    return step


def generation(size: tuple[int, int], attention: str) -> Call:
    """Sixteen words more, with a cache."""
    model, batch = llama(attention).eval(), given(size)
    return partial(model.generate, **batch, max_new_tokens=16, min_new_tokens=16, do_sample=False)


def row(case: str, peer: str, how: Callable[[str], Call], ours: str, rounds: int, words: int) -> Row:
    """One of ours beside one of theirs, in turn."""
    return compare(case, peer, how(ours), how(peer), how("none"), LIMIT, words, rounds)


if __name__ == "__main__":
    main("huggingface", measure)
