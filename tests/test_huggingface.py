"""`regard.huggingface` beside transformers' own attention, in tiny models of random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from examples import OVERS, D, positions
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.huggingface import looked, register

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:transformers")

WORDS = 11
DECODER = {
    "vocab_size": WORDS,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": None,
}
DECODER |= {"pad_token_id": 0, "hidden_size": 16, "intermediate_size": 24, "num_key_value_heads": 2}


def bert(**config: Any) -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=WORDS, **sizes | config))


def gpt2(**config: Any) -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=WORDS, **sizes | config))


def llama(**config: Any) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER | config))


def mistral(**config: Any) -> nn.Module:
    return transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=3, **DECODER | config))


def t5(**config: Any) -> nn.Module:
    sizes = {"d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24, "num_layers": 2, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=WORDS, **sizes | config))


def bart(**config: Any) -> nn.Module:
    sizes = {"d_model": 16, "max_position_embeddings": 32, "decoder_start_token_id": 1, "forced_eos_token_id": None}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 2, f"{side}_attention_heads": 4, f"{side}_ffn_dim": 24}
    return transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=WORDS, **sizes | config))


def vit(**config: Any) -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    sizes |= {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 5}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes | config))


MODELS: dict[str, Callable[..., Any]] = {
    "bert": bert, "gpt2": gpt2, "llama": llama, "mistral": mistral, "t5": t5, "bart": bart, "vit": vit,
}  # fmt: skip
DECODERS = "gpt2", "llama", "mistral", "t5", "bart"
PADDINGS = {
    "none": None,
    "right": torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]),
    "left": torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]),
}


def made(name: str, attention: str, dtype: torch.dtype = torch.float64, **config: Any) -> Any:
    """The model with one set of random weights, larger than transformers' own so that it looks somewhere."""
    torch.manual_seed(3)
    model = MODELS[name](attn_implementation=attention, **config)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(0.4 * torch.randn_like(each))
    return model.to(dtype).eval()


def answers(name: str, model: Any, padding: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Logits where there is a word, and the gradients of something of them."""
    torch.manual_seed(4)
    if name == "vit":
        given = {"pixel_values": torch.randn(2, 1, 8, 8).to(model.dtype)}
    else:
        given = {"input_ids": torch.randint(1, WORDS, (2, 7)), "attention_mask": padding}
    if name in ("t5", "bart"):
        given["decoder_input_ids"] = torch.randint(1, WORDS, (2, 5))
    logits = model(**given).logits
    if padding is not None and name not in ("t5", "bart"):
        logits = logits[padding.bool()]
    cost = (logits.log_softmax(-1) * torch.randn(logits.shape).to(logits)).mean()
    return logits, list(torch.autograd.grad(cost, list(model.parameters()), materialize_grads=True))


@pytest.fixture(autouse=True)
def soft():
    register("soft", over=rg.softmax)


@pytest.mark.parametrize(
    ("name", "padding"),
    [(name, padding) for name in MODELS for padding in PADDINGS if name != "vit" or padding == "none"],
)
def test_softmax_is_their_eager_attention(name: str, padding: str):
    close = partial(assert_close, atol=1e-6, rtol=1e-5)
    ours, theirs = (answers(name, made(name, how, torch.float32), PADDINGS[padding]) for how in ("soft", "eager"))
    close(ours[0], theirs[0])
    assert max(each.abs().max() for each in theirs[1]) > 1e-3
    for one, other in zip(ours[1], theirs[1], strict=True):
        close(one, other)


def test_a_mask_that_is_not_registered_would_be_seen():
    """The control of the tests above: without our mask a decoder knows what comes."""
    function = transformers.AttentionInterface()["soft"]
    transformers.AttentionInterface.register("maskless", function)
    ours, theirs = answers("llama", made("llama", "maskless")), answers("llama", made("llama", "eager"))
    assert (ours[0] - theirs[0]).abs().max() > 1e-3


def test_dropout_is_that_of_the_weights():
    """From the same random numbers, for the weights are dropped in the same order."""
    found = []
    for how in ("soft", "eager"):
        model = made("gpt2", how, attn_pdrop=0.3, resid_pdrop=0.0, embd_pdrop=0.0).train()
        found.append(answers("gpt2", model)[0])
    assert_close(*found)
    assert not torch.allclose(found[0], answers("gpt2", made("gpt2", "soft"))[0])


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_the_weights_are_returned_when_asked_for(name: str):
    given = {"input_ids": torch.randint(1, WORDS, (2, 6)), "attention_mask": PADDINGS["right"][:, :6]}
    given |= {"decoder_input_ids": torch.randint(1, WORDS, (2, 3))} if name == "t5" else {}
    ours, theirs = (made(name, how)(**given, output_attentions=True) for how in ("soft", "eager"))
    for part in ("encoder_attentions", "decoder_attentions", "cross_attentions") if name == "t5" else ("attentions",):
        assert len(ours[part]) == len(theirs[part]) == 2
        for one, other in zip(ours[part], theirs[part], strict=True):
            assert_close(one, other)
    assert made("bert", "soft")(given["input_ids"]).attentions is None


@pytest.mark.parametrize("bias", [0.0, -0.7])
def test_a_mask_of_floats_is_added(bias: float):
    """As a model with a mask of its own has it: the lowest numbers hide, the others are a bias."""
    lowest = torch.finfo(torch.float64).min
    mask = torch.tensor([0.0, bias, lowest, 0.0, bias, 0.0, 0.0], dtype=torch.float64).expand(2, 1, 7, 7)
    words = torch.randint(1, WORDS, (2, 7))
    assert_close(*(made("bert", how)(words, attention_mask=mask).logits for how in ("soft", "eager")))


# Every other distribution.


def plainly(over: Any, module, query, key, value, mask, scaling=None, position_bias=None, **_):
    """The same attention written out: every head of every sentence by itself, from its scores alone."""
    groups = query.shape[1] // key.shape[1]
    contexts = torch.empty(*query.shape[:-1], value.shape[-1], dtype=value.dtype)
    for row in range(len(query)):
        for head in range(query.shape[1]):
            scores = query[row, head] @ key[row, head // groups].T
            scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
            scores = scores if position_bias is None else scores + position_bias[0, head]
            seen = None if mask is None else mask[row, 0]
            contexts[row, head] = positions(over, scores, seen).mean @ value[row, head // groups]
    return contexts.transpose(1, 2), None


def register_plainly(over: Any) -> None:
    masks = transformers.AttentionMaskInterface()
    transformers.AttentionInterface.register("plain", partial(plainly, over))
    transformers.AttentionMaskInterface.register("plain", masks["soft"])


NO_QUERY = {"local-p", "addressing", "addressing, not circular", "monotonic(3)"}
"""Those that know more than scores, for which the function above would need the query."""
SPANNING = "chain", "semi_markov", "ctc", "tree", "constituency"
NOT_CAUSAL = {name for name in OVERS if name.startswith(SPANNING)}
WITH_A_STATE = {"local-m"} | {name for name in OVERS if name.startswith(("monotonic", "addressing"))}
SMALL = {"hidden_size": 4 * D, "num_hidden_layers": 1}
FOUR = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]])


@pytest.mark.parametrize("name", OVERS)
def test_every_distribution_trains_in_an_encoder(name: str):
    over = OVERS[name]()
    register("ours", over=over)
    model = made("bert", "ours", attention_probs_dropout_prob=0.0, **SMALL).train()
    logits = model(FOUR, attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])).logits
    logits.square().mean().backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    assert logits.isfinite().all() and model.bert.encoder.layer[0].attention.self.value.weight.grad.any()


@pytest.mark.parametrize(
    ("name", "model"),
    [(name, "bert") for name in OVERS if name not in NO_QUERY]
    + [(name, model) for name in OVERS if name not in NO_QUERY | NOT_CAUSAL for model in ("gpt2", "t5")],
)
def test_every_distribution_is_what_is_written_out(name: str, model: str):
    over = OVERS[name]()
    register("ours", over=over)
    register_plainly(over)
    config = {"bert": SMALL, "gpt2": {"n_embd": 4 * D, "n_layer": 1}, "t5": {"d_kv": D, "num_layers": 1}}[model]
    given = {"input_ids": FOUR, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
    given |= {"decoder_input_ids": FOUR} if model == "t5" else {}
    ours, theirs = (made(model, how, **config)(**given).logits for how in ("ours", "plain"))
    real = slice(None) if model == "t5" else given["attention_mask"].bool()
    assert_close(ours[real], theirs[real])


@pytest.mark.parametrize("padding", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("model", ["gpt2", "llama", "mistral"])
@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax(1.5)", "top_k(2)", "sigmoid", "subset(2)"])
def test_generation_with_a_cache_is_that_without(name: str, model: str, cache: str, padding: bool):
    register("ours", over=OVERS[name]())
    words = torch.randint(1, WORDS, (2, 7), generator=torch.Generator().manual_seed(7))
    mask = PADDINGS["left"] if padding else torch.ones_like(words)
    ours = made(model, "ours", torch.float32)
    found = generated(ours, words, mask, cache_implementation=cache)
    assert_close(found, generated(ours, words, mask, use_cache=False))
    if name == "softmax":
        assert_close(found, generated(made(model, "eager", torch.float32), words, mask))


@pytest.mark.parametrize("model", ["t5", "bart"])
def test_generation_of_a_decoder_with_an_encoder(model: str):
    register("ours", over=rg.entmax(1.5))
    for how in ("ours", "soft"):
        ours = made(model, how)
        found = generated(ours, FOUR, torch.ones_like(FOUR))
        assert_close(found, generated(ours, FOUR, torch.ones_like(FOUR), use_cache=False))
    assert_close(found, generated(made(model, "eager"), FOUR, torch.ones_like(FOUR)))


@pytest.mark.parametrize("name", [name for name in OVERS if name not in NOT_CAUSAL | WITH_A_STATE])
def test_every_distribution_generates(name: str):
    """Those that hand nothing from query to query, and do not know later queries: the others are refused below."""
    register("ours", over=OVERS[name]())
    model = made("gpt2", "ours", n_embd=2 * D, n_head=2, n_layer=1)
    prompt = FOUR[:1, :2]
    found = generated(model, prompt, torch.ones_like(prompt), length=2)
    assert_close(found, generated(model, prompt, torch.ones_like(prompt), length=2, use_cache=False))


def generated(model: Any, words: Tensor, mask: Tensor, length: int = 6, **how: Any) -> Tensor:
    """The scores of greedy generation, step by step."""
    settings = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False, "output_scores": True}
    found = model.generate(words, attention_mask=mask, return_dict_in_generate=True, **settings, **how)
    return torch.stack(found.scores)


# What cannot be right is refused.


@pytest.mark.unchecked
class TestRefused:
    @pytest.mark.parametrize("name", sorted(WITH_A_STATE))
    def test_a_state_with_a_cache(self, name: str):
        register("ours", over=OVERS[name]())
        model = made("gpt2", "ours", n_embd=2 * D, n_head=2, n_layer=1)
        assert model(FOUR, use_cache=False).logits.isfinite().all()
        with pytest.raises(ValueError, match=r"as many queries as keys, as with use_cache=False, but got 1 q"):
            generated(model, FOUR[:, :2], torch.ones(2, 2))

    @pytest.mark.parametrize("name", sorted(NOT_CAUSAL))
    @pytest.mark.parametrize("model", ["gpt2", "bart"])
    def test_what_knows_later_queries_in_a_decoder(self, name: str, model: str):
        register("ours", over=OVERS[name]())
        config = {"n_embd": 2 * D, "n_head": 2} if model == "gpt2" else {"d_model": 4 * D}
        with pytest.raises(ValueError, match=r"normalised over all queries of a call: expected an encoder's attention"):
            made(model, "ours", **config)(FOUR)

    def test_a_cap_on_the_scores(self):
        model = transformers.Gemma2ForCausalLM(
            transformers.Gemma2Config(**DECODER, head_dim=4, attn_implementation="soft")
        )
        with pytest.raises(ValueError, match=r"Gemma2Attention has a cap on the scores \(softcap\)"):
            model(FOUR)

    def test_sinks(self):
        config = transformers.GptOssConfig(**DECODER, head_dim=4, num_local_experts=2, attn_implementation="soft")
        with pytest.raises(ValueError, match=r"GptOssAttention has attention sinks \(s_aux\)"):
            transformers.GptOssForCausalLM(config)(FOUR)

    def test_dropout_of_a_draw(self):
        register("ours", read=rg.hard)
        message = r"of a read that draws it expected 0 \(the config's .*attention_probs_dropout_prob.*, but got 0\.1\.$"
        with pytest.raises(ValueError, match=message):
            made("bert", "ours").train()(FOUR)
        assert made("bert", "ours")(FOUR).logits.isfinite().all()

    @pytest.mark.parametrize("name", ["sdpa", "eager", "flash_mine", "me/mine", "paged|mine", ""])
    def test_a_name_of_theirs(self, name: str):
        with pytest.raises(ValueError, match=f"^name expected a word .* but got {name!r}.$".replace("|", r"\|")):
            register(name)

    def test_a_part_of_another_kind(self):
        with pytest.raises(TypeError, match=r"over expected a part such as regard\.softmax, but got scaled_dot"):
            register("ours", over=rg.scaled_dot)

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
        with pytest.raises(ValueError, match=r"^register needs the extra huggingface: pip install 'regard\[hugg"):
            register("ours")


# Where it looked.


def test_looked_says_where_every_layer_looked():
    model = made("llama", "soft")
    with looked(model) as seen, looked(made("llama", "soft")) as other:
        theirs = made("llama", "eager")(FOUR, output_attentions=True).attentions
        model(FOUR)
    assert list(seen) == ["model.layers.0.self_attn", "model.layers.1.self_attn"] and not other
    for (out,), weights in zip(seen.values(), theirs, strict=True):
        assert_close(out.weights, weights)
    model(FOUR)
    assert [len(outs) for outs in seen.values()] == [1, 1]


def test_looked_collects_every_call():
    model = made("gpt2", "soft")
    with looked(model) as seen:
        generated(model, FOUR, torch.ones_like(FOUR), length=3)
    assert [out.weights.shape[-2:] for out in seen["transformer.h.1.attn"]] == [(4, 4), (1, 5), (1, 6)]


def test_the_log_probability_of_what_was_drawn():
    register("ours", read=rg.sample)
    model = made("bert", "ours")
    with looked(model) as seen:
        model(FOUR)
    each = [out.positions.log_prob(out.z) for (out,) in seen.values()]
    assert each[0].shape == (2, 4, 4) and all(out.z.shape == (2, 4, 4) for (out,) in seen.values())
    assert_close(seen.log_prob, sum(each).sum(1))


@pytest.mark.unchecked
@pytest.mark.parametrize(("read", "calls"), [(rg.mean, 1), (rg.sample, 0), (rg.sample, 2)])
def test_the_log_probability_of_several_calls_or_of_none_is_refused(read: Any, calls: int):
    register("ours", read=read)
    model = made("bert", "ours")
    with looked(model) as seen:
        for _ in range(calls):
            model(FOUR)
    with pytest.raises(ValueError, match=rf"^log_prob expected one call .* but got {2 * calls} attentions"):
        _ = seen.log_prob


@pytest.mark.parametrize("trained", [True, False], ids=["reinforce", "without"])
def test_a_hard_read_learns_where_to_look(trained: bool):
    """Which of two words is in a sentence, among others: one layer that reads one word a head. Without the estimator
    the layer does not find it, and the loss stays."""
    register("hard", read=rg.hard)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(vocab_size=12, num_labels=2, attn_implementation="hard", **sizes, **still)
    model = transformers.BertForSequenceClassification(config)
    optimiser, draws, costs = torch.optim.Adam(model.parameters(), 1e-2), 4, []
    for _ in range(100):
        labels = torch.randint(2, (32,))
        words = torch.randint(4, 12, (32, 6)).scatter(1, torch.randint(1, 6, (32, 1)), 2 + labels[:, None])
        words[:, 0] = 1
        with looked(model) as seen:
            logits = model(words.repeat(draws, 1)).logits
        cost = nn.functional.cross_entropy(logits, labels.repeat(draws), reduction="none").view(draws, -1)
        chosen = seen.log_prob[:, 0].view(draws, -1)  # what the first word, which is classified, looked at
        loss = cost.mean() + (rg.leave_one_out(chosen, cost).mean() if trained else 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        costs.append(cost.mean().item())
    last = sum(costs[-10:]) / 10
    assert last < 0.1 if trained else last > 0.3


@pytest.mark.unchecked
def test_a_model_can_be_compiled():
    torch._dynamo.reset()
    model = made("llama", "soft")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(FOUR, use_cache=False).logits, model(FOUR, use_cache=False).logits)
