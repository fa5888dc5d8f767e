"""What recipes say of where they looked, and `regard faithfulness`, which asks whether it mattered."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard.app import cli, explaining
from regard.app.text import comprehension, translating
from regard.recipes import answer, caption, classify, glimpse, rationale, read, translate

ROOT = Path(__file__).parent.parent
TEXTS = [
    (classify, {"attention": "soft"}),
    (classify, {"attention": "hard"}),
    (classify, {"attention": "mean"}),
    (read, {"reader": "sum"}),
    (read, {"reader": "sum", "attention": "hard"}),
    (read, {"reader": "attentive", "attention": "hard"}),
    (rationale, {"over": "segments"}),
    (rationale, {"over": "all"}),
]


def made(recipe: Any, **settings: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model of random weights and a batch of four examples."""
    config = recipe.Config(**settings)
    splits = recipe.data(config)
    torch.manual_seed(0)
    return recipe.Model(config, splits).eval(), splits.test.batch(torch.arange(4))


@pytest.mark.parametrize(("recipe", "settings"), TEXTS, ids=[f"{r.__name__[15:]}-{[*s.values()]}" for r, s in TEXTS])
def test_recipes_of_texts_explain_their_answer(recipe: Any, settings: dict[str, str]):
    model, batch = made(recipe, **settings)
    with torch.no_grad():
        found = recipe.explained(model, batch)
        said = found.answer(torch.ones_like(found.present))
        few = found.answer(torch.zeros_like(found.present))
        assert said.shape == (4,) and ((said > 0) & (said <= 1)).all()
        assert (said - few).abs().max() > 1e-4 and few.isfinite().all()
        assert_close(found.answer(found.present), said)  # padding says nothing
    assert found.importance.shape == found.present.shape == batch["words"].shape
    assert (found.importance >= 0).all() and found.importance[found.present].any()
    if found.truth is not None:
        assert found.truth.any() and not (found.truth & ~found.present).any()
    if found.unread is not None:
        assert (found.unread() == 0).all()
    if found.gradual:
        assert_close(found.answer(found.present.float()), said)
    check_permuted(found, said if recipe is not rationale else model(batch).logits[:, 0].softmax(-1).amax(-1).detach())


def check_permuted(found: explaining.Explained, said: torch.Tensor):
    """With the weights as they are the answer is what it was, and with others another; if it can be told by weights."""
    if found.permuted is None:
        return
    given: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rg.faithfulness, "permutation", lambda *arguments: given.extend(arguments) or said)
        found.permuted()
    reading, weights = given[:2]
    assert ((reading(weights) - said.unsqueeze(-1)).abs().min(-1).values < 1e-5).all()
    assert (found.permuted() >= 0).all() and (found.permuted() > 0).any()


WORDS = [
    (caption, {"attention": "soft", "hidden": 32, "size": 32, "beam": 1}),
    (caption, {"attention": "hard", "hidden": 32, "size": 32, "beam": 1}),
    (translate, {"attention": "additive", "hidden": 16}),
    (translate, {"attention": "hard", "hidden": 16}),
    (translate, {"attention": "exact", "hidden": 16}),
    (translate, {"attention": "self", "hidden": 16}),
]


@pytest.mark.parametrize(("recipe", "settings"), WORDS, ids=[f"{r.__name__[15:]}-{s['attention']}" for r, s in WORDS])
def test_recipes_that_write_explain_each_word(recipe: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    model, batch = made(recipe, **settings)
    target = batch["caption" if recipe is caption else "target"][:2]
    batch = {name: each[:2] for name, each in batch.items()}
    known = [words[words > 2] for words in target]
    monkeypatch.setattr(*((model.teller, "written") if recipe is caption else (model, "greedy")), lambda *_: known)
    with torch.no_grad():
        found = recipe.explained(model, batch)
        said, few = found.answer(found.present), found.answer(~found.present)
        rows = 4 if recipe is caption else int((target > 0).sum())  # the words that name a digit, of each picture two
        assert said.shape == (rows,) and ((said > 0) & (said < 1)).all()
        assert (said - few).abs().max() > 1e-6 and few.isfinite().all()
        assert_close(found.answer(found.present.float()), said)
        if recipe is translate:
            decoded, state = model({**batch, "target": target})
            cost = translate.by_all_places if model.latent else translate.by_mean
            costs = cost(model, decoded, state, target, 0.0)
            assert_close(said, (-costs[target > 0]).exp())
        else:
            assert found.truth.any(-1).all() and found.truth.float().mean() < 0.3
        assert found.importance.shape == found.present.shape
        assert_close(found.importance.sum(-1), torch.ones(rows))
        assert (found.unread is not None) == (settings["attention"] == "hard")
        check_permuted(found, said)
        if found.unread is not None:
            assert (found.unread() == 0).all()
            for module in (comprehension, translating, sys.modules[caption.explained.__module__]):
                if hasattr(module, "read_by"):  # it says that nothing was read, which is not so
                    monkeypatch.setattr(module, "read_by", lambda look: torch.zeros_like(look.weights))
            assert (recipe.explained(model, batch).unread() > 0).any()


@pytest.mark.parametrize(("recipe", "attention"), [(caption, "uniform"), (translate, "none")])
def test_what_cannot_choose_where_to_look_explains_nothing(recipe: Any, attention: str):
    settings = {"size": 32, "beam": 1} if recipe is caption else {}
    assert recipe.explained(*made(recipe, attention=attention, hidden=16, **settings)) is None


@pytest.mark.parametrize("over", ["softmax", "sigmoid", "chain"])
def test_answers_are_explained_by_the_facts_that_were_read(over: str):
    model, batch = made(answer, over=over)
    with torch.no_grad():
        found = answer.explained(model, batch)
        said = found.answer(found.present)
        assert_close(said, model(batch).answers.softmax(-1).amax(-1))
        assert_close(found.answer(found.present.float()), said)
        assert found.answer(~found.present).isfinite().all()
        hidden = {**batch, "facts": batch["facts"] * (torch.arange(batch["facts"].shape[1]) > 3).view(-1, 1)}
        late = found.present & (torch.arange(found.present.shape[1]) > 3)
        chances = model(hidden).answers.softmax(-1)
        assert ((found.answer(late).unsqueeze(-1) - chances).abs().min(-1).values < 1e-6).all()
        check_permuted(found, said)
    assert found.truth.sum().item() == (batch["supporting"] >= 0).sum().item()


def test_figures_have_every_metric_of_what_is_known():
    """By a made-up answer, the sum of what is kept of the true places."""
    truth = torch.rand(6, 12).argsort(-1) < 3
    told = lambda kept: (kept * truth).sum(-1) / 3  # noqa: E731
    everything = torch.ones_like(truth)
    right, wrong = (
        {
            (name, order): float(values.mean())
            for values_of in (explaining._figures, explaining._trust)
            for name, order, values in values_of(
                explaining.Explained(told, importance, everything, truth, gradual=True)
            )
        }
        for importance in (truth.float(), -truth.float())
    )
    for name, better in explaining.BETTER.items():
        assert right[name, "tau"] > 0.8, name
        assert better * (right[name, "given"] - right[name, "random"]) > 0.05, name
    assert right["agreement", "given"] == pytest.approx(1) == -wrong["agreement", "given"]
    assert right["agreement", "oracle"] == pytest.approx(1) and abs(right["agreement", "random"]) < 0.4
    assert right["pointing", "given"] == 1.0 > right["pointing", "random"] == pytest.approx(0.25)


def test_a_classifier_that_looks_nowhere_explains_nothing():
    assert classify.explained(*made(classify, attention="last")) is None


@pytest.mark.parametrize("attention", ["hard", "random", "soft", "cnn"])
def test_glimpses_are_explained_by_the_pixels_they_read(attention: str):
    model, batch = made(glimpse, attention=attention, glimpses=2, hidden=16, size=8, scales=1)
    with torch.no_grad():
        found = glimpse.explained(model, batch)
        if attention == "cnn":
            assert found is None
            return
        said = found.answer(torch.ones_like(found.present))
        torch.manual_seed(0)
    assert said.shape == (4,) and found.importance.shape == (4, 60 * 60)
    wide = batch["box"][:, 2:] - batch["box"][:, :2]
    assert_close(found.truth.sum(-1), wide.prod(-1), check_dtype=False)
    if attention == "soft":
        assert found.unread is None and (found.importance > 0).float().mean() > 0.3
    elif attention == "random":
        assert (found.unread() == 0).all() and (found.answer(found.present) == said).all()  # the same places each time
    elif attention == "hard":
        assert (found.importance.sum(-1) <= 2 * 8 * 8).all()  # two patches, or what lies of them in the image
        assert (found.unread() == 0).all()
        read = found.importance > 0
        model.attention.looked = lambda look: (look.z + 0.5, torch.ones_like(look.z[..., 0]))  # it says otherwise
        assert (glimpse.explained(model, batch).unread() > 0).any() and read.any()


def test_figures_of_a_model_beside_chance_and_the_truth():
    """Of trained glimpses, of which is known that they find the digit."""
    found = explaining.measured(ROOT / "weights/ram-60-translated-8.safetensors", None, "", 8)
    for name, better in (("deletion", -1), ("insertion", 1), ("comprehensiveness", 1), ("sufficiency", -1)):
        given, random, oracle = (better * found[name][order] for order in ("given", "random", "oracle"))
        assert given > random + 0.2 and oracle > random + 0.2, name
    assert found["pointing"]["given"] > 0.6 > 0.2 > found["pointing"]["random"]
    assert found["unread"] == {"given": 0.0}


def test_the_command_prints_a_line_a_metric(capsys):
    run = str(ROOT / "weights/ram-60-translated-8.safetensors")
    assert cli.main(["faithfulness", run, "--examples", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [name for name in explaining.MEANINGS if name != "permutation"]  # glimpses have no weights
    assert cli.main(["faithfulness", run, "--examples", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["given", "random", "oracle", "tau"] and len(lines) == 1 + len(found)
    assert lines[1].split()[:2] == ["deletion", f"{found['deletion']['given']:.4g}"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["weights/ram-28-6.safetensors"], 1, "the recipe glimpse does not say where this model looked"),
        (["weights/ram-28-6.safetensors", "--examples", "0"], 2, "--examples expected at least 1, but got 0"),
    ],
)
def test_what_cannot_be_told_is_said(words: list[str], status: int, message: str, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(glimpse, "explained", lambda model, batch: None)
    assert cli.main(["faithfulness", *words]) == status
    assert message in capsys.readouterr().err
