"""What recipes say of where they looked, and `regard faithfulness`, which asks whether it mattered."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from regard.app import cli, explaining
from regard.recipes import classify, glimpse, rationale, read

ROOT = Path(__file__).parent.parent
TEXTS = [
    (classify, {"attention": "soft"}),
    (classify, {"attention": "hard"}),
    (classify, {"attention": "mean"}),
    (read, {"reader": "sum"}),
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
    assert list(found) == list(explaining.MEANINGS)
    assert cli.main(["faithfulness", run, "--examples", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["given", "random", "oracle"] and len(lines) == 1 + len(found)
    assert lines[1].split()[:2] == ["deletion", f"{found['deletion']['given']:.4g}"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["weights/translate-self.safetensors"], 1, "the recipe translate does not say where this model looked"),
        (["weights/ram-28-6.safetensors", "--examples", "0"], 2, "--examples expected at least 1, but got 0"),
    ],
)
def test_what_cannot_be_told_is_said(words: list[str], status: int, message: str, capsys, monkeypatch, data_dir):
    monkeypatch.chdir(ROOT)
    words += ["--data", str(data_dir / "multi30k")] if "translate" in words[0] else []
    assert cli.main(["faithfulness", *words]) == status
    assert message in capsys.readouterr().err
