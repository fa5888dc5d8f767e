"""The glimpse recipe: what its parts see, where its gradients go, and that it learns what there is to learn."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import data as datasets
from regard.app.vision.early import stop_early
from regard.app.vision.networks import ResidualEye, spread
from regard.recipes import glimpse
from regard.recipes.glimpse import Config

KINDS = list(glimpse.KINDS)
SMALL = Config(glimpses=4, hidden=64, draws=3, batch=32)


@pytest.fixture(scope="module")
def splits() -> datasets.Splits:
    return glimpse.data(SMALL)


def made(kind: str, splits: datasets.Splits, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return glimpse.Model(replace(SMALL, attention=kind, **settings), splits)


def batch(splits: datasets.Splits, count: int = 8) -> dict[str, Tensor]:
    return splits.test.batch(torch.arange(count))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_each_image(kind: str, splits: datasets.Splits):
    values = glimpse.evaluate(made(kind, splits).eval(), batch(splits))
    assert all(value.shape == (8,) for value in values.values())
    assert set(values["error"].tolist()) <= {0.0, 1.0}
    read = {"soft": 25 * 2 * 144, "grid": 4 * 3600, "cnn": 3600}.get(kind, 4 * 2 * 144)
    assert (values["pixels"] == read).all()
    assert ("on_digit" in values) == (kind != "cnn") and ("entropy" in values) == (kind in ("soft", "grid"))


@pytest.mark.parametrize("kind", ["hard", "random", "fixed"])
def test_a_glimpse_that_zooms_is_one_patch_at_the_scale_that_was_chosen(kind: str, splits: datasets.Splits):
    model, images = made(kind, splits, zoom=True), batch(splits)
    assert (glimpse.evaluate(model.eval(), images)["pixels"] == 4 * 144).all()
    z = torch.stack([look.z[0] for look in model.train()(images["image"]).looks])  # (T, B, 3)
    patches, scales = rg.Glimpses(images["image"], 12, 2).read(z[..., :2]), (z[..., 2] < 0).long()
    assert kind == "fixed" or len(scales.unique()) == 2
    seen = model.sensor(images["image"]).read(z)
    assert_close(seen[:, :, 0], patches.gather(2, scales[..., None, None, None, None].expand_as(seen))[:, :, 0])


def test_how_far_to_zoom_is_learned_with_where_to_look(splits: datasets.Splits):
    """Fine patches are right, coarse ones wrong: the policy comes to choose fine ones."""
    model, images = made("hard", splits, zoom=True), batch(splits, 16)["image"]
    optimizer = torch.optim.Adam(model.attention.policy.parameters(), 0.01)
    for _ in range(60):
        output = model(images)
        fine = torch.stack([look.z[..., 2] for look in output.looks], 2) > 0
        surrogate = rg.leave_one_out(log_prob(model, output), (~fine).float())
        optimizer.zero_grad()
        surrogate.mean().backward()
        optimizer.step()
    assert fine.float().mean() > 0.9


def test_look_frames_what_a_glimpse_that_zooms_has_seen(splits: datasets.Splits):
    found = glimpse.look(made("hard", splits, zoom=True).eval(), batch(splits))
    assert found.locations.shape == (8, 4, 2) and found.patches.shape == (8, 4, 1, 1, 12, 12)
    assert set(found.spans.unique().tolist()) <= {12.0, 24.0} and found.spans.shape == (8, 4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_an_eye_with_filters_sees_each_scale_through_the_same(kind: str, splits: datasets.Splits):
    model, images = made(kind, splits, filters=5), batch(splits)
    total, _ = glimpse.loss(model, images)
    assert gradients(model, total)["eye"] > 0
    patches, location = torch.rand(3, 8, 2, 1, 12, 12), torch.rand(3, 8, 2)
    eye = model.eye
    scales = [torch.nn.functional.max_pool2d(eye.filters(patches[1, :, s]), 2).relu() for s in range(2)]
    what = torch.stack(scales, 1).movedim(2, -1).flatten(1)
    assert_close(eye(patches, location)[1], (eye.what(what) + eye.where(location[1])).relu())


def test_a_residual_eye_sees_each_scale_through_the_same():
    eye = ResidualEye((2, 3, 11), filters=2, hidden=5).eval()
    patches, location = torch.rand(3, 8, 2, 3, 11, 11), torch.rand(3, 8, 2)
    scales = [eye.layers(patches[1, :, s]).mean((2, 3)) for s in range(2)]
    what = torch.cat(scales, 1)
    assert_close(eye(patches, location)[1], (eye.what(what) + eye.where(location[1])).relu())


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_has_what_the_report_draws(kind: str, splits: datasets.Splits):
    output = glimpse.look(made(kind, splits).eval(), batch(splits))
    assert len(output) == 8 and output.steps == (0 if kind == "cnn" else 4)
    if kind == "soft":
        assert_close(output.weights.sum(-1), torch.ones(8, 4))
    elif kind != "cnn":
        assert output.patches.shape == (8, 4, 1 if kind == "grid" else 2, 1, 12, 12)
    assert (output.spans is not None) == (kind == "grid")


def test_a_grid_begins_in_the_middle_over_half_of_the_image(splits: datasets.Splits):
    model = made("grid", splits).eval()
    for part in (model.attention.policy.place.weight, model.attention.policy.place.bias):
        torch.nn.init.zeros_(part)
    seen = glimpse.look(model, batch(splits))
    assert (seen.locations == 0).all()
    assert_close(seen.spans, torch.full((8, 4), 30.0))
    locations, shares = model.attention.looked(model(batch(splits)["image"]).looks[0])
    assert locations.shape == (3600, 1, 2)
    assert_close(shares.sum(0), torch.ones(8))
    assert shares[(locations.abs() < 0.7).all(-1).squeeze(1)].sum(0).min() > 0.95


def test_every_part_of_a_grid_is_trained_by_the_answers_alone(splits: datasets.Splits):
    model, images = made("grid", splits), splits.train.batch(torch.arange(16))
    total, logs = glimpse.loss(model, images)
    sizes = gradients(model, total)
    assert sizes["policy"] > 0 and all(size > 0 for size in sizes.values())
    assert set(logs) == {"error"}


def test_the_middle_is_fixed_and_random_is_everywhere(splits: datasets.Splits):
    images = batch(splits, 256)["image"]
    fixed, random = (made(kind, splits).eval()(images).looks for kind in ("fixed", "random"))
    assert (torch.stack([look.z for look in fixed]) == 0).all()
    locations = torch.stack([look.z for look in random]).flatten(0, -2)
    assert_close(locations.std(0), torch.full((2,), 3**-0.5), atol=0.03, rtol=0)
    assert locations.abs().max() > 0.98


def gradients(model: torch.nn.Module, cost: Tensor) -> dict[str, float]:
    """The size of the gradient that reaches each part of the model."""
    model.zero_grad()
    cost.backward(retain_graph=True)
    sizes: dict[str, float] = {}
    for name, weight in model.named_parameters():
        part = "policy" if "policy" in name else name.split(".")[0]
        sizes[part] = sizes.get(part, 0.0) + (0.0 if weight.grad is None else weight.grad.abs().sum().item())
    return sizes


def test_no_gradient_of_the_classifier_reaches_the_policy_and_none_of_the_policy_the_core(splits: datasets.Splits):
    model, images = made("hard", splits), splits.train.batch(torch.arange(16))
    output = model(images["image"])
    classified = gradients(model, output.answers.square().sum() + output.alone.square().sum())
    assert classified.pop("policy") == 0 and classified.pop("baseline") == 0
    assert all(size > 0 for size in classified.values())
    moved = gradients(model, log_prob(model, output).sum())
    assert moved.pop("policy") > 0
    assert all(size == 0 for size in moved.values())
    expected = gradients(model, model.baseline(torch.cat((output.before.memory, output.before.glimpse), -1)).sum())
    assert expected.pop("baseline") > 0
    assert all(size == 0 for size in expected.values())


def test_the_policy_s_gradient_reaches_the_core_and_the_encoder_if_asked_for(splits: datasets.Splits):
    model, images = made("hard", splits, policy_trains_core=True), splits.train.batch(torch.arange(16))
    output = model(images["image"])
    moved = gradients(model, log_prob(model, output).sum())
    assert all(moved[part] > 0 for part in ("policy", "eye", "remember", "take_in"))
    assert all(moved[part] == 0 for part in ("classify", "classify_alone", "baseline"))


def log_prob(model: torch.nn.Module, output: glimpse.Output) -> Tensor:
    """Of the locations that were drawn, (S, B, T)."""
    return model.attention.policy(output.before).log_prob(torch.stack([look.z for look in output.looks], 2))


def test_the_locations_follow_the_policy_that_is_trained(splits: datasets.Splits):
    """What is known before each glimpse, all steps at once, gives the centre that each step drew around."""
    model = made("hard", splits).eval()
    torch.nn.init.normal_(model.attention.policy.move.weight)
    output = model(batch(splits)["image"])
    centre = model.attention.policy(output.before).mode
    assert_close(centre, torch.stack([look.z for look in output.looks], 2))
    assert centre.std() > 0.1


def test_the_value_of_the_loss_is_that_of_its_costs(splits: datasets.Splits):
    """The policy's surrogate adds nothing to the number that is printed."""
    model, images = made("hard", splits), splits.train.batch(torch.arange(16), torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    total, _ = glimpse.loss(model, images)
    torch.manual_seed(1)
    output = model(images["image"])
    answers, alone = (glimpse._cross_entropy(each, images["label"]) for each in (output.answers, output.alone))
    costs = rg.to_go(answers, 0.5) + alone
    expected = model.baseline(torch.cat((output.before.memory, output.before.glimpse), -1))
    assert_close(total, answers.mean() + alone.mean() + (expected - costs).square().mean())


@pytest.mark.parametrize("settings", [{"credit": "last", "alone": 0.0}, {"credit": "each", "alone": 2.0}])
def test_what_a_glimpse_is_credited_with(settings: dict, splits: datasets.Splits):
    """The baseline is fitted to the costs: with a baseline of zero, the fit is the mean square of the costs."""
    model, images = made("hard", splits, **settings), splits.train.batch(torch.arange(16))
    for weights in model.baseline.parameters():
        torch.nn.init.zeros_(weights)
    output = model(images["image"])
    answers, alone = (glimpse._cross_entropy(each, images["label"]).detach() for each in (output.answers, output.alone))
    if settings["credit"] == "last":
        answers = answers * torch.tensor([0.0, 0.0, 0.0, 1.0])
    costs = rg.to_go(answers, 0.5) + settings["alone"] * alone
    value, logs = glimpse._policy_loss(
        model,
        output,
        *(glimpse._cross_entropy(each, images["label"]).detach() for each in (output.answers, output.alone)),
    )
    assert_close(value, costs.square().mean())
    assert set(logs) == {"signal_to_noise", "policy_entropy"}


def test_entropy_is_a_term_of_its_own(splits: datasets.Splits):
    values = []
    for weight in (0.0, 0.5):
        model, images = (
            made("hard", splits, entropy=weight),
            splits.train.batch(torch.arange(16), torch.Generator().manual_seed(0)),
        )
        torch.manual_seed(1)
        total, logs = glimpse.loss(model, images)
        values.append(total + weight * logs["policy_entropy"])
    assert_close(values[0], values[1])


def test_draws_narrow_from_step_to_step(splits: datasets.Splits):
    model, images = (
        made("hard", splits, width=0.2, final_width=0.02, epochs=2, batch=4500),
        splits.train.batch(torch.arange(4)),
    )
    for expected in (0.2, 0.2 / 10**0.25, 0.2 / 10**0.5, 0.2 / 10**0.75, 0.02):
        assert model.attention.policy.width.item() == pytest.approx(expected, rel=1e-4)
        glimpse.loss(model, images)
        glimpse.after_step(model)
    width = model.attention.policy.width.clone()
    glimpse.loss(model, images)
    glimpse.evaluate(model.eval(), images)
    assert model.attention.policy.width == width, "nothing else changes it"


def test_one_draw_has_the_learned_baseline_alone(splits: datasets.Splits):
    model, images = made("hard", splits, draws=1), splits.train.batch(torch.arange(16))
    total, _ = glimpse.loss(model, images)
    assert gradients(model, total)["policy"] > 0


def test_placed_locations_are_inside_and_do_not_add_up(splits: datasets.Splits):
    model = made("hard", splits, locations="placed").eval()
    torch.nn.init.normal_(model.attention.policy.move.weight, std=10)
    locations = torch.stack([look.positions.centre for look in model(batch(splits)["image"]).looks])
    assert locations.abs().max() <= 1 and locations.abs().max() > 0.9


@pytest.mark.parametrize("glimpses", [1, 4, 5, 6])
def test_a_scan_begins_as_a_grid_and_is_learned(glimpses: int, splits: datasets.Splits):
    model = made("hard", splits, locations="scanned", glimpses=glimpses, scan=0.5)
    torch.nn.init.zeros_(model.attention.policy.move.weight)
    output = model.eval()(batch(splits)["image"])
    locations = torch.stack([look.z[0] for look in output.looks], 1)  # (B, T, 2)
    assert_close(locations, (0.5 * spread(glimpses)).expand(8, -1, -1))
    assert len(locations[0].unique(dim=0)) == glimpses
    total, _ = glimpse.loss(model.train(), splits.train.batch(torch.arange(16)))
    total.backward()
    assert (model.attention.policy.scan.grad != 0).all()


def test_a_collapsed_policy_is_named():
    row = {"epoch": 3, "valid_spread": 0.001, "train_policy_entropy": -1.0}
    assert "the policy has collapsed: its paths are alike for all images" in glimpse.warning(row)
    assert glimpse.warning(row | {"valid_spread": 0.1}) == ""
    assert glimpse.warning({"epoch": 3, "valid_spread": 0.0}) == "", "fixed attention is alike for all on purpose"


@pytest.mark.parametrize(
    "settings", [{"glimpses": 0}, {"draws": 0}, {"width": 0.0}, {"final_width": float("nan")}, {"clip": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(ValueError, match=f"--{next(iter(settings))} expected"):
        Config(**settings)


def test_signal_to_noise_is_large_for_a_gradient_that_all_images_share_and_about_one_for_noise():
    centre, known = torch.zeros(1, 400, 1, 2, requires_grad=True), torch.ones(1, 400, 1, 3)
    shared, noise = centre.sum(-1), torch.randn(1, 400, 1)
    assert glimpse._signal_to_noise(shared * (1 + 0.01 * noise), centre, known) > 100
    assert 0.1 < glimpse._signal_to_noise(shared * noise, centre, known) < 4


class TestStoppingEarly:
    @pytest.mark.parametrize("kind", ["hard", "fixed", "soft"])
    def test_a_threshold_of_one_uses_every_glimpse_and_of_zero_the_first_alone(self, kind, splits: datasets.Splits):
        model, images = made(kind, splits).eval(), batch(splits)["image"]
        output = model(images)
        for threshold, last in ((1.0, 4), (0.0, 1)):
            stopped = stop_early(model, images, threshold)
            assert (stopped.glimpses == last).all()
            assert_close(stopped.answers, output.answers[0, :, last - 1])
            assert stopped.pixels == (output.pixels if kind == "soft" else output.pixels * last // 4)

    @pytest.mark.parametrize("kind", ["hard", "soft"])
    def test_each_image_stops_at_its_first_sure_answer(self, kind: str, splits: datasets.Splits):
        model, images = made(kind, splits).eval(), batch(splits, 64)["image"]
        for weights in (model.classify.weight, model.remember.weight, model.take_in.weight):
            torch.nn.init.normal_(weights, std=0.5)
        answers = model(images).answers[0]  # (B, T, classes)
        confidence = answers.softmax(-1).amax(-1)
        threshold = confidence[:, 0].median().item()
        sure = confidence > threshold
        first = torch.where(sure.any(1), sure.int().argmax(1), 3)
        assert len(first.unique()) > 1, "or nothing is tested"
        stopped = stop_early(model, images, threshold)
        assert torch.equal(stopped.glimpses, first + 1)
        assert_close(stopped.answers, answers[torch.arange(64), first], rtol=1e-4, atol=1e-5)
        if kind == "hard":
            assert stopped.pixels == stopped.glimpses.sum() * 2 * 144, "only what was looked at was read"

    def test_a_threshold_that_is_no_probability_is_refused(self, splits: datasets.Splits):
        with pytest.raises(ValueError, match=r"threshold expected a probability from 0 to 1, but got 1\.5"):
            stop_early(made("hard", splits), batch(splits)["image"], 1.5)


@pytest.mark.parametrize(
    ("side", "expected"), [(28, (6, 2)), (60, (12, 2)), (100, (20, 2)), (512, (32, 4)), (8, (4, 1))]
)
def test_a_glimpse_fits_the_image(side: int, expected: tuple[int, int]):
    assert glimpse.patches(Config(), side) == expected
    assert glimpse.patches(Config(size=7, scales=3), side) == (7, 3)


def final_error(kind: str, splits: datasets.Splits, shuffled: bool = False) -> float:
    """The error on other images after training for a few seconds on digits that have no clutter."""
    config = Config(attention=kind, glimpses=3, hidden=64, draws=2, batch=64, size=12, scales=2, learning_rate=5e-3)
    torch.manual_seed(0)
    model = glimpse.Model(config, splits)
    optimizer, scheduler = glimpse.optimiser(model, config, steps=150)
    generator = torch.Generator().manual_seed(0)
    labels = splits.train.labels[torch.randperm(len(splits.train), generator=generator)]
    for _ in range(150):
        indices = torch.randint(len(splits.train), (config.batch,), generator=generator)
        images = splits.train.batch(indices, generator)
        if shuffled:
            images["label"] = labels[indices]
        optimizer.zero_grad()
        glimpse.loss(model, images)[0].backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        return glimpse.evaluate(model.eval(), batch(splits, 1000))["error"].mean().item()


def test_gradients_are_cut_if_asked_for(splits: datasets.Splits):
    for clip, longest in ((1e-3, 1e-3), (None, torch.inf)):
        model = made("grid", splits, clip=clip)
        optimizer, _ = glimpse.optimiser(model, model.config, steps=10)
        glimpse.loss(model, batch(splits))[0].backward()
        optimizer.step()
        norm = torch.stack([each.grad.norm() for each in model.parameters() if each.grad is not None]).norm()
        assert norm <= longest * (1 + 1e-4) and (clip is not None or norm > 1e-2)


@pytest.mark.parametrize("kind", ["hard", "soft", "fixed", "cnn"])
def test_it_learns(kind: str):
    assert final_error(kind, datasets.digits("embedded", canvas=28, clutter=0)) < 0.35


def test_it_does_not_learn_what_is_not_there():
    assert final_error("hard", datasets.digits("embedded", canvas=28, clutter=0), shuffled=True) > 0.8
