"""The caption recipe: each attention reads, writes and learns; what is measured and shown of where it looked."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import data as datasets
from regard.app.cli import main
from regard.app.data.generators.composed import Composed
from regard.app.data.mnist import SAMPLE, read_folder
from regard.app.prediction import load
from regard.app.text.captioning import ended
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import OpenedRun, open_run
from regard.app.vision.features import Frozen
from regard.app.vision.places import Learned, boxes_of, moved, overlap, pointing
from regard.recipes import caption
from regard.recipes.base import open_recipe
from regard.recipes.caption import Config, Model

KINDS = get_args(get_type_hints(Config)["attention"])
SMALL = Config(size=32, stride=8, hidden=32, dropout=0.0, smoothing=0.0, soft=0.0, beam=2)

attentions = pytest.mark.parametrize("attention", KINDS)


def scenes(count: int = 400) -> datasets.Splits:
    digits = read_folder(SAMPLE)
    images, labels = digits.images[:count], digits.labels[:count]
    parts = (Composed(images, labels, seed=seed) for seed in (None, 1, 2))
    return datasets.Splits(*parts, f"{count} scenes", (), (1, 60, 60))


SPLITS = scenes()


def batch(count: int = 6) -> dict[str, Tensor]:
    return SPLITS.test.batch(torch.arange(count))


def made(attention: str, **settings: Any) -> Model:
    torch.manual_seed(0)
    return Model(replace(SMALL, attention=attention, **settings), SPLITS)


def test_every_kind_is_explained():
    assert set(KINDS) == set(caption.KINDS)
    assert set(caption.BLIND) | set(caption.ONE_PLACE) | {"soft"} == set(KINDS)


@attentions
def test_a_step_of_training_reaches_every_weight_and_lowers_the_loss(attention: str):
    model, seen = made(attention), batch(32)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        cost, _ = caption.loss(model, seen)
        cost.backward()
        optimizer.step()
        losses.append(cost.item())
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    unread = {"teller.seen.weight", "teller.gate.weight", "teller.gate.bias", "teller.where"}
    assert still == (unread if attention == "none" else set())
    assert losses[-1] < losses[0] - 0.1


@attentions
def test_words_one_by_one_are_all_words_at_once(attention: str):
    """What decoding says of each word of a caption costs what `evaluate` says it does."""
    model, seen = made(attention).eval(), batch()
    if attention == "random":
        model.teller.attention.read = rg.mode
    with torch.no_grad():
        state, words, costs = model.begin(seen), torch.ones(6, dtype=torch.long), []
        for word in seen["caption"].unbind(1):
            log_probs, state = model.teller.step(words, state)
            assert_close(log_probs.exp().sum(-1), torch.ones(6))
            costs.append(-log_probs.gather(1, word.unsqueeze(1)))
            words = word
        told, state = model(seen)
        wanted = model.teller.cost(told, told.looked.context, seen["caption"])
    # <unknown> is never said, so that the others have its share
    assert_close(torch.cat(costs, 1)[seen["caption"] > 0], wanted[seen["caption"] > 0], rtol=0.1, atol=0.0)


@attentions
def test_how_many_places_a_word_reads(attention: str):
    model = made(attention).eval()
    values = caption.evaluate(model, batch())
    words = [len(each) + 1 for each in model.teller.written(model.begin(batch()), 2)] if attention != "random" else None
    each = {"soft": 64, "uniform": 64, "none": 0}.get(attention, 1)
    assert words is None or values["places"].tolist() == [each * count for count in words]


@pytest.mark.parametrize("attention", caption.ONE_PLACE)
def test_a_word_that_reads_one_place_is_told_by_nothing_else(attention: str):
    """Changing what lies at all other places changes no bit of what the word is told from."""
    model = made(attention).eval()
    with torch.no_grad():
        told, state = model(batch())
        z = told.looked.z  # (B, T)
        values = torch.randn_like(state.memory.values)
        rows = torch.arange(6).unsqueeze(-1)
        values[rows, z] = state.memory.values[rows, z]
        again = told.looked.positions.gather(values, z)
    assert torch.equal(model.teller.features(told, again), model.teller.features(told, told.looked.context))


def test_draws_are_compared_with_each_other_word_by_word():
    """On average over the draws, the gradient in the scores is that of the expected cost of each word."""
    model, seen = made("hard", draws=4000).double(), batch(2)
    seen["picture"] = seen["picture"].double()
    model.teller.seen.weight.data *= 20  # or it hardly matters where a word looks
    told, state = model(seen)
    scores = (3 * torch.randn_like(told.looked.weights)).requires_grad_()
    positions = rg.OneHot(scores=scores)
    places = torch.arange(scores.shape[-1]).view(-1, 1, 1).expand(-1, *seen["caption"].shape)
    costs = model.teller.cost(told, positions.gather(state.memory.values, places), seen["caption"]).detach()
    (wanted,) = torch.autograd.grad((scores.softmax(-1) * costs.movedim(0, -1)).sum(), scores)
    told = told._replace(looked=rg.Attended(told.looked.context, z=positions.sample(), formed=positions))
    found = caption.by_draws(model, told, state, seen["caption"], 0.0)
    (found,) = torch.autograd.grad(found.sum(), scores)
    assert_close(found, wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))
    assert float(wanted.abs().max()) > 1e-3


def test_the_likeliest_places_are_a_mixture_of_words():
    model, seen = made("top-k", draws=64).double(), batch(2)
    seen["picture"] = seen["picture"].double()
    told, state = model(seen)
    places = torch.arange(64).view(-1, 1, 1).expand(-1, *seen["caption"].shape)
    costs = model.teller.cost(told, told.looked.positions.gather(state.memory.values, places), seen["caption"])
    all_places = -(told.looked.weights.log() - costs.movedim(0, -1)).logsumexp(-1)
    found, present = caption.by_likeliest(model, told, state, seen["caption"], 0.0), seen["caption"] > 0
    assert_close(found[present], all_places[present])
    assert (found[~present] == 0).all()


@pytest.mark.parametrize("attention", ["hard", "reinforce"])
def test_what_trains_the_policy_changes_nothing_but_the_way_to_the_scores(attention: str):
    """The surrogate has the value zero, and no gradient of a drawn word's cost reaches the scores of the places."""
    model = made(attention)
    told, state = model(batch())
    caption.LATER[attention](model, told, state, batch()["caption"], 0.0).sum().backward()
    of_policy = [weight.grad for name, weight in model.named_parameters() if "attention.score" in name]
    assert all(grad is not None and grad.any() for grad in of_policy)
    model.zero_grad()
    told, state = model(batch())
    model.teller.cost(told, told.looked.context, batch()["caption"]).sum().backward()
    of_policy = [weight.grad for name, weight in model.named_parameters() if "attention.score" in name]
    assert all(grad is None or not grad.any() for grad in of_policy)


def test_those_that_read_one_place_begin_as_soft_attention():
    model = made("hard", soft=0.5, epochs=2, batch=100)  # 8 steps
    assert model(batch())[0].looked.z is None
    for _ in range(4):
        assert not model.drawing
        caption.after_step(model)
    assert model.drawing
    assert model(batch())[0].looked.z is not None
    assert model.eval()(batch())[0].looked.z is not None


def test_pointing_counts_right_words_that_look_at_their_digit():
    seen = batch(2)
    words, boxes = seen["caption"], seen["boxes"]
    centres = (boxes[..., :2] + boxes[..., 2:]).nan_to_num() / 2 / 7.5
    z = (centres[..., 0].long() * 8 + centres[..., 1].long()).clamp(0, 63)
    assert pointing((8, 8), seen, words, z).tolist() == [1, 1, 1, 1]
    assert pointing((8, 8), seen, words[:, :2], z[:, :2]).sum() == 2  # what is not said is a miss
    assert pointing((8, 8), seen, words, (z + 32) % 64).tolist() == [0, 0, 0, 0]
    assert pointing((8, 8), seen, words.roll(1, 1), z).tolist() == [0, 0, 0, 0]


def test_boxes_and_their_overlap():
    boxes = boxes_of((8, 8), (60, 60))
    assert boxes.shape == (64, 4)
    assert boxes[-1].tolist() == [52.5, 52.5, 60, 60]
    assert overlap(boxes, boxes.roll(1, 0)).sum() == 0  # places beside each other have no part in common
    assert not overlap(boxes[:1], torch.full((1, 4), math.nan)).any()


def test_pictures_are_moved_by_chance_and_not_far():
    picture = torch.zeros(1, 1, 64, 64)
    picture[..., 30:34, 30:34] = 1
    centres = []
    for seed in range(20):
        torch.manual_seed(seed)
        there = moved(picture, 0.1)[0, 0].nonzero().float().mean(0)
        centres.append(there)
    spread = torch.stack(centres) - 31.5
    assert 1 < spread.abs().max() < 64 * 0.12


@pytest.mark.parametrize(("size", "stride", "grid"), [(32, 4, (15, 15)), (64, 8, (8, 8)), (7, 16, (4, 4))])
def test_a_grid_of_places(size: int, stride: int, grid: tuple[int, int]):
    network = Learned((1, 60, 60), size, stride)
    assert network.grid == grid
    found = network(torch.rand(2, 1, 60, 60))
    assert found.shape == (2, grid[0] * grid[1], size)
    found.sum().backward()
    with pytest.raises(ValueError, match="stride expected 4, 8 or 16 pixels from one place to the next, but got 5"):
        Learned((1, 60, 60), 32, 5)


@pytest.mark.unchecked
def test_composed_digits_are_learned_in_seconds():
    """From 400 scenes of zeros and ones: what they are and how they lie; soft at first, then hard."""
    digits = read_folder(SAMPLE)
    rows = torch.isin(digits.labels, torch.tensor([0, 1])).nonzero().flatten()[:300]
    scenes = (Composed(digits.images[rows], digits.labels[rows], 44, seed) for seed in (None, 1, 2))
    splits = datasets.Splits(*scenes, "", (), (1, 44, 44))
    torch.manual_seed(0)
    config = replace(SMALL, attention="hard", epochs=8, batch=25, hidden=64, learning_rate=8e-3, soft=0.7)
    model = Model(config, splits)
    optimizer, schedule = open_recipe("caption").optimiser(model, config, 8 * 12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for rows in torch.randperm(300, generator=generator).split(25):
            loss, _ = caption.loss(model.train(), splits.train.batch(rows, generator))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            caption.after_step(model)
    found = averages(OpenedRun(open_recipe("caption"), config, splits, model), splits.test)
    assert found["bleu"] > 40


def write_pictures(folder: Path, count: int = 12) -> Path:
    """Squares in two colours, with what is said of them."""
    folder.mkdir()
    lines = ["image,caption"]
    for n in range(count):
        colour = ("red", "blue")[n % 2]
        Image.new("RGB", (24, 24), colour).save(folder / f"{n}.png")
        lines += [f"{n}.png,a {colour} square", f"{n}.png,the square is {colour}"]
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.unchecked
def test_a_folder_of_ones_own_from_training_to_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder, run = write_pictures(tmp_path / "own", 40), tmp_path / "runs" / "caption" / "own"
    flags = ["--size", "32", "--hidden", "32", "--stride", "8", "--epochs", "8", "--batch", "4", "--attention", "hard"]
    flags += ["--learning_rate", "0.01", "--dropout", "0", "--smoothing", "0"]
    assert main(["train", "caption", "--data", str(folder), "--name", "own", *flags]) == 0
    assert main(["predict", str(run), str(folder / "0.png"), str(folder / "1.png"), str(tmp_path / "none.png")]) == 1
    out, err = capsys.readouterr()
    first, second = (line.split("\t")[0].split() for line in out.splitlines()[-2:])
    assert "red" in first and "blue" in second
    assert "none.png" in err
    assert load(run).predict([folder / "1.png"])[0].split() == second
    assert main(["look", str(run)]) == 0


def test_frozen_features_are_computed_once_and_those_of_another_network_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, run = write_pictures(tmp_path / "own", 20), tmp_path / "run"

    def tiny(seed: int) -> Frozen:
        torch.manual_seed(seed)
        return Frozen(torch.nn.Conv2d(3, 8, 4, stride=4), side=16, name="hf:tiny")

    monkeypatch.setattr(caption, "open_features", lambda _: tiny(0))
    config = replace(SMALL, data=str(folder), features="hf:tiny", epochs=1, batch=8)
    train(caption, config, run, Fit(accelerator="cpu", threads=1, progress="none"))
    assert sorted(file.name for file in run.glob("*.npy")) == [
        f"features-{part}.npy" for part in ("test", "train", "valid")
    ]
    opened = open_run(run)
    seen = opened.splits.test.batch(torch.arange(2))
    assert seen["features"].shape == (2, 16, 8)
    with torch.no_grad():
        told, _ = opened.model(seen)
        again, _ = opened.model({**seen, "features": tiny(0).of(seen["picture"])})
    assert_close(again.looked.weights, told.looked.weights, rtol=1e-2, atol=1e-3)
    assert load(run).predict([folder / "1.png"])
    monkeypatch.setattr(caption, "open_features", lambda _: tiny(1))
    with pytest.raises(ValueError, match="hf:tiny is another network than the one whose features the run has learned"):
        open_run(run)
    with pytest.raises(
        ValueError, match="hf:tiny expected pictures that stay as they are, but these are composed anew"
    ):
        caption.kept(replace(config, data="digits"), SPLITS, tmp_path)


def test_what_is_asked_wrongly():
    for wrong, sentence in (
        ({"draws": 1}, "--draws expected at least 2, as draws are compared, but got 1"),
        ({"beam": 0}, "--beam expected at least 1, but got 0"),
        ({"moved": 2.0}, "--moved expected"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(SMALL, **wrong)


def test_a_run_goes_on_with_its_own_words(tmp_path: Path):
    folder = write_pictures(tmp_path / "own", 20)
    config = replace(SMALL, data=str(folder), epochs=1, batch=8)
    train(caption, config, tmp_path / "run", Fit(accelerator="cpu", threads=1, progress="none"))
    opened = open_run(tmp_path / "run")
    assert opened.model.vocabulary.words == opened.splits.test.vocabulary.words
    other = write_pictures(tmp_path / "other", 20)
    (other / "captions.csv").write_text("image,caption\n" + "\n".join(f"{n}.png,green square" for n in range(20)))
    tested = open_run(tmp_path / "run", str(other)).splits.test
    assert tested.vocabulary.words == opened.model.vocabulary.words
    assert ended([tested.numbers[0]]).max() < len(tested.vocabulary)
