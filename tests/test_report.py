"""The report: what stands on the page, that it is written whole or not at all, and how it behaves in a browser."""

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from regard.app.report import drawings, image_figures, looking
from regard.app.report.layout import chart, page, write_report
from regard.app.report.report import Column, Look, Picture, Report
from regard.app.training.errors import Failure
from regard.images import Glimpses, grid

IMAGES, STEPS, SCALES, SIZE = 4, 6, 3, 12


def look(how: str, images: int = IMAGES, height: int = 60, width: int = 60, channels: int = 1) -> Look:
    """A look at pictures of noise, the first answer right and the second wrong."""
    pixels = torch.rand(images, channels, height, width)
    box = torch.tensor([[5.0, 10.0, 25.0, 30.0]]).expand(images, 4)
    known = Look(pixels, torch.arange(images) % 10, torch.zeros(images, dtype=torch.long), boxes=box)
    if how == "soft":
        places = grid(height, width, SIZE)
        return replace(known, weights=torch.randn(images, STEPS, len(places)).softmax(-1), grid=places)
    if how == "hard":
        locations = torch.rand(images, STEPS, 2) * 2 - 1
        patches = Glimpses(pixels, SIZE, SCALES).read(locations.transpose(0, 1)).transpose(0, 1)
        return replace(known, locations=locations, patches=patches)
    if how == "sampled":
        places = grid(height, width, SIZE)
        weights, locations = torch.randn(images, 1, len(places)).softmax(-1), places[:STEPS].expand(images, -1, -1)
        patches = Glimpses(pixels, SIZE, 1).read(locations.transpose(0, 1)).transpose(0, 1)
        spans = torch.full((images, STEPS), float(SIZE))
        return replace(known, weights=weights, grid=places, locations=locations, patches=patches, spans=spans)
    return known


def report(**changes) -> Report:
    """A report with something of everything, of three models."""
    looks = {how: look(how) for how in ("soft", "hard", "cnn")}
    curves = {how: [(10.0 * i, 0.9 / i) for i in range(1, 6)] for how in looks}
    full = Report(
        title="Soft and hard",
        question="Which errs less?",
        data="Noise, 4 images.",
        answer="Neither.",
        models={how: f"What {how} is." for how in looks},
        columns=[Column(f"column {i}", "%", f"What column {i} means.") for i in range(8)],
        rows={how: ["4.1 ± 0.2", 10800, 0.5, -2.25, None, 71.3, 1234.5, 1] for how in looks},
        curves=curves,
        looks=looks,
        failures={how: look(how, 2) for how in looks},
        command="regard compare",
        config="seed: 0",
        mattered={how: {"deletion": {"given": 0.25, "random": 0.5, "tau": 0.9}} for how in ("soft", "hard")},
    )
    return replace(full, **changes)


# What is on the page


def test_the_page_holds_everything_and_asks_for_nothing():
    text = page(report())
    for words in ("Which errs less?", "Neither.", "Noise, 4 images.", "What hard is.", "What column 7 means.", "seed"):
        assert words in text
    sources = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert "default-src 'none'" in text


def test_text_is_escaped():
    evil = "<script>alert('x')</script>"
    names = replace(look("hard"), classes=[evil] * 10)
    text = page(
        Report(evil, evil, evil, evil, {evil: evil}, [Column(evil, evil, evil)], {evil: [evil]},
               {evil: [(1.0, 0.5)]}, evil, evil, {evil: names, "b": names}, {evil: names}, evil, evil,
               {evil: [Picture(evil, evil, b"")]})
    )  # fmt: skip
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


def test_numbers_in_the_table_are_readable():
    cells = re.findall(r"<td>(.*?)</td>", page(report()))
    assert cells[:8] == ["4.1 ± 0.2", "10,800", "0.5", "−2.25", "–", "71.3", "1,234", "1"]


@pytest.mark.parametrize(
    "missing", ["answer", "models", "rows", "curves", "looks", "failures", "mattered", "command", "config"]
)
def test_a_piece_that_is_missing_leaves_no_heading_behind(missing):
    full, less = report(), report(**{missing: type(getattr(report(), missing))()})
    assert len(page(less)) < len(page(full))
    headings = {"models": "What was compared", "rows": "Results", "curves": "How they", "failures": "Where they failed"}
    headings |= {"mattered": "Did it matter"}
    if missing in headings:
        assert headings[missing] in page(full)
        assert headings[missing] not in page(less)


def test_whether_it_mattered_stands_beside_chance_and_the_truth():
    figures = {"deletion": {"given": 0.25, "random": 0.5, "oracle": 0.2, "tau": 0.9}, "unread": {"given": 0.0}}
    text = page(Report("Title", "Question?", "Data.", mattered={"hard": figures}))
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    cells = {name: re.findall(r"<td>(.*?)</td>", each) for name, each in rows}
    assert cells == {"where it looked": ["0.25", "0"], "a random order": ["0.5", "–"], "the truth": ["0.2", "–"]}
    assert "Area below the answer while what was looked at most is hidden first: small is good." in text
    assert "0 certifies" in text and "comprehensiveness" not in text


def test_a_report_of_words_alone():
    text = page(Report("Title", "Question?", "Data."))
    assert "<h1>Title</h1>" in text
    assert "<h2" not in text


def test_pictures_have_a_heading_a_title_and_words():
    drawn = {"Trees": [Picture("Time flies.", "Time is below flies.", b"bytes")]}
    text = page(Report("Title", "Question?", "Data.", pictures=drawn))
    assert '<a href="#pictures-1">Trees</a>' in text and '<h2 id="pictures-1-title">Trees</h2>' in text
    assert '<img src="data:image/png;base64,Ynl0ZXM=" alt="Time is below flies.">' in text
    assert '<figcaption class="caption">Time flies.</figcaption>' in text


def test_looks_without_boxes_or_patches_or_images():
    bare = replace(look("hard"), boxes=None, patches=None)
    text = page(report(looks={"hard": bare}, failures={"hard": look("cnn", 0)}))
    assert "6 glimpses" in text
    assert "what it saw there" not in text
    assert "what it saw there, the sharpest" in page(report())
    assert 'class="box"' not in text
    assert "No wrong answer to show." in text


def test_what_was_read_lies_on_the_weights_that_it_was_chosen_by():
    text = page(Report("Sampled", "Where?", "Noise.", looks={"sampled": look("sampled")}))
    assert text.count('class="heat all"') == text.count('"note">in the box: ') == IMAGES
    assert text.count('class="frames lasting') == text.count('alt="What glimpse') == IMAGES * STEPS
    assert "squares</b> what was read of it" in text and 'class="path"' not in text and "glimpse by glimpse" not in text
    others = page(report())
    assert "by the largest of the image" in text and "by the largest of the image" not in others
    assert "squares</b>" not in others and 'class="frames lasting' not in others


@pytest.mark.parametrize(("epochs", "points"), [(1, 1), (10, 10), (11, 0)])
def test_the_points_of_a_short_curve_are_drawn_or_one_epoch_would_not_be_seen(epochs: int, points: int):
    curves = {"soft": [(float(n), 0.9 / n) for n in range(1, epochs + 1)]}
    assert page(report(curves=curves)).count('<path class="point"') == points
    (line,) = image_figures.learning_curves(curves).axes[0].lines
    assert line.get_marker() == ("o" if points else "")


def test_curves_leave_out_what_is_not_finite():
    drawn = chart({"soft": [(0, float("nan")), (10, 0.5), (20, 0.25)], "hard": [(1, float("inf"))], "cnn": []})
    assert drawn is not None
    assert [(line.model, line.last, line.best) for line in drawn.lines] == [("soft", "25%", "25%")]
    assert chart({"hard": [(1, float("inf"))]}) is None


def test_names_of_curves_that_end_together_do_not_cover_each_other():
    drawn = chart({f"{i}": [(0, 0.9), (10, 0.01 * i)] for i in range(6)})
    assert drawn is not None
    places = sorted(line.label for line in drawn.lines)
    assert np.diff(places).min() > 5.9
    assert places[-1] <= 100


def test_five_models_on_twelve_images_are_less_than_two_megabytes():
    looks = {f"{how} {i}": look(how, 12) for i in range(2) for how in ("soft", "hard")}
    images = (look("soft", 12).images > 0.9).float()
    looks = {model: replace(each, images=images) for model, each in looks.items()} | {"cnn": look("cnn", 12)}
    assert len(page(report(looks=looks))) < 2_000_000


def test_a_model_keeps_its_colour_whoever_is_beside_it():
    alone, beside = drawings.colours(["hard"]), drawings.colours(["other", "soft", "hard"])
    assert alone["hard"] == beside["hard"]
    assert len(set(beside.values())) == 3


# Messages


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(4, 2, 8, 8)}, r"expected images \(N, 1 or 3, Y, X\), got \(4, 2, 8, 8\)"),
        ({"images": torch.rand(4, 8, 8)}, r"expected images \(N, 1 or 3, Y, X\), got \(4, 8, 8\)"),
        ({"labels": torch.zeros(3)}, r"expected labels to begin with the sizes \(4,\), got \(3,\)"),
        ({"boxes": torch.zeros(4, 2)}, r"expected boxes to begin with the sizes \(4, 4\), got \(4, 2\)"),
        ({"locations": torch.zeros(4, 6, 3)}, r"expected locations to begin with .*\(4, 6, 2\), got \(4, 6, 3\)"),
        ({"patches": torch.zeros(4, 5, 1, 1, 8, 8)}, r"expected patches to begin with .*\(4, 6\), got \(4, 5, 1"),
        ({"weights": torch.zeros(4, 6, 9)}, "expected weights and the grid that they are of, got one without the"),
        ({"weights": torch.zeros(4, 6, 9), "grid": torch.zeros(9, 2)}, r"expected weights .*\(4, 1\), got \(4, 6, 9\)"),
        ({"weights": torch.zeros(4, 1, 9), "grid": torch.zeros(8, 2)}, r"expected grid .*\(9, 2\), got \(8, 2\)"),
    ],
)
def test_looks_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(look("hard"), **changes)


def test_rows_that_do_not_fit_the_columns_are_refused():
    with pytest.raises(ValueError, match="expected 8 cells in the row of 'soft', one for each column, got 1"):
        report(rows={"soft": [1]})


def test_looks_at_different_images_are_refused():
    with pytest.raises(ValueError, match=r"expected looks at the same images, .*'soft': 4, 'hard': 3"):
        report(looks={"soft": look("soft"), "hard": look("hard", 3)})


# The file


def test_the_file_is_written_and_written_again(tmp_path):
    path = tmp_path / "run" / "report.html"
    assert write_report(path, Report("One", "?", ".")) == path
    write_report(str(path), Report("Two", "?", "."))
    assert "<h1>Two</h1>" in path.read_text(encoding="utf-8")
    assert os.listdir(path.parent) == ["report.html"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch, function):
    path = write_report(tmp_path / "report.html", Report("Old", "?", "."))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(Failure, match=r"report.html could not be written \(No space left on device\)"):
        write_report(path, Report("New", "?", "."))
    assert "<h1>Old</h1>" in path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["report.html"]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for put in (lambda: write_report(tmp_path / "link" / "a.html", Report("One", "?", ".")),
                lambda: looking.draw(tmp_path / "link", [Picture("One", "Two.", b"png")], "hard")):  # fmt: skip
        with pytest.raises(Failure, match="link is a link, which nothing is written through"):
            put()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_importing_the_report_draws_nothing_yet():
    heavy = "{'matplotlib', 'jinja2', 'PIL'}"
    code = f"import sys, regard.app.report.report; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Where things go on a picture


def test_the_outlines_are_what_the_sensor_reads():
    image, location = torch.rand(1, 1, 40, 52), torch.tensor([[0.3, -0.4]])
    patch = Glimpses(image, size=9, scales=2).read(location)[0, 0, 0]  # (9, 9)
    (top, left, side), (coarse_top, coarse_left, coarse_side) = drawings.windows(
        drawings.pixels(location[0], 40, 52), size=9, scales=2
    )
    cut = image[0, 0, int(top) : int(top) + side, int(left) : int(left) + side]
    assert torch.equal(cut, patch)
    assert coarse_side == 2 * side
    assert coarse_top < top
    assert coarse_left < left


@pytest.mark.parametrize(("height", "width"), [(60, 60), (30, 45), (250, 130)])
def test_heat_gives_each_place_its_share_of_the_image(height, width):
    places = grid(height, width, 15)
    seen = drawings.heat(torch.arange(len(places)).float(), places, height, width)
    y, x = drawings.pixels(places, seen.shape[0], seen.shape[1]).long().unbind(-1)
    assert torch.equal(seen[y, x], torch.arange(len(places)).float())
    assert seen.shape == (min(height, drawings.FINEST), min(width, drawings.FINEST))


def test_a_tint_grows_with_the_weight_alone():
    tint = drawings.tint(torch.linspace(0, 1, 11)[None], "#102030")
    assert (np.diff(tint[0, :, 3].astype(int)) > 0).all()
    assert (tint[..., :3] == (0x10, 0x20, 0x30)).all()


def test_numbers_move_apart_within_the_picture():
    points = torch.full((8, 2), 199.0) - torch.rand(8, 2)  # a corner
    marks = drawings.marks(points, 17.0, 200.0, 200.0)
    places = torch.tensor([mark.place for mark in marks])
    assert torch.pdist(places).min() > 16
    assert places.max() < 200
    assert torch.pdist(points).max() < 2  # they did lie on each other


def test_glimpses_at_one_place_share_a_number():
    assert [mark.text for mark in drawings.marks(torch.full((6, 2), 30.0), 17.0, 60, 60)] == ["1–6"]


def test_photographs_become_small_and_drawings_stay_exact():
    photograph = np.random.default_rng(0).integers(0, 255, (900, 600, 3), np.uint8)
    assert drawings.embed(photograph).startswith("data:image/jpeg")
    assert len(drawings.embed(photograph)) < 200_000
    assert drawings.embed(np.zeros((60, 60), np.uint8)).startswith("data:image/png")
    tint = drawings.tint(torch.rand(96, 96), "#102030")
    assert drawings.embed(tint).startswith("data:image/png") and len(drawings.embed(tint)) > drawings.HEAVY


# Figures


def test_figures_are_drawn_without_global_state(tmp_path):
    from matplotlib._pylab_helpers import Gcf

    soft, hard = look("soft"), look("hard", channels=3)
    assert soft.weights is not None and soft.grid is not None
    assert hard.locations is not None and hard.patches is not None
    figures = [
        image_figures.learning_curves(report().curves),
        image_figures.learning_curves({}),
        image_figures.path(hard.images[0], hard.locations[0], hard.patches[0]),
        image_figures.path(hard.images[0], hard.locations[0]),
        image_figures.heat(soft.images[0], soft.weights[0], soft.grid, torch.tensor([1.0, 2.0, 9.0, 9.0])),
        image_figures.attended(look("sampled"), 0),
        *(image_figures.gallery(look(how), how) for how in ("soft", "hard", "sampled", "cnn")),
    ]
    for i, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{i}.png")
    assert not Gcf.figs
    assert [axes.get_title() for axes in figures[-1].axes] == ["✓ 0", "✗ 0, not 1", "✗ 0, not 2", "✗ 0, not 3"]


# In a browser


def test_every_picture_has_words(visit):
    tab = visit(report())
    images = tab.locator("img").evaluate_all("all => all.map(i => [i.alt, i.naturalWidth])")
    assert len(images) == 6 * STEPS  # four images and two failures of the hard model
    assert all(alt and width for alt, width in images)
    drawings = tab.locator("svg:not([aria-hidden=true])").evaluate_all("all => all.map(s => s.ariaLabel)")
    assert "Image 1, truth 0: cnn, answered 0, which is right." in drawings
    assert all(drawings)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(visit, scheme):
    names = replace(look("hard"), classes=["a class with quite a long name, and a_word_without_any_end_to_it"] * 10)
    curves = {"a model with a long name": [(1.0, 0.9), (1_000_000.0, 0.3)]}
    tab = visit(report(looks={"hard": names, "soft": look("soft")}, curves=curves), width=390, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    table = tab.locator("#results .wide")
    assert table.evaluate("t => t.scrollWidth > t.clientWidth")
    table.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_timeout(300)  # it scrolls smoothly
    assert table.evaluate("t => t.scrollLeft") > 0


def test_light_and_dark_follow_the_reader(visit):
    def shades(scheme):
        script = "getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
        tab = visit(report(), scheme=scheme)
        return [tab.evaluate(f"name => {script}", name) for name in ("backgroundColor", "color")]

    (page_light, text_light), (page_dark, text_dark) = shades("light"), shades("dark")
    assert page_light - text_light > 500
    assert text_dark - page_dark > 500


def test_the_keyboard_reaches_every_control_and_works_it(visit):
    tab = visit(report())
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("(e => e.id || e.className || e.tagName + e.textContent)(document.activeElement)"))
    for control in ("skip", "wide", "step-all", "SUMMARYConfiguration"):
        assert control in reached
    tab.locator("#step-all").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#step-1").is_checked()
    assert tab.locator(".looks .frames.s1").first.is_visible()
    assert not tab.locator(".looks .frames.s2").first.is_visible()
    assert tab.locator(".heat.s1").first.is_visible()
    assert not tab.locator(".heat.all").first.is_visible()
    assert tab.locator(".mark:not(.s1)").first.evaluate("m => getComputedStyle(m).opacity") == "0.3"
    tab.locator("summary").focus()
    tab.keyboard.press("Enter")
    assert tab.get_by_text("seed: 0").is_visible()


def test_focus_is_seen(visit):
    tab = visit(report())
    tab.keyboard.press("Tab")
    assert tab.locator(".skip").evaluate("s => s.getBoundingClientRect().top") >= 0
    tab.locator("#step-all").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#step-1 + span").evaluate("s => getComputedStyle(s).outlineStyle") == "solid"


def test_pointing_at_a_number_shows_what_was_read_there(visit):
    tab = visit(report(looks={"hard": look("hard")}, failures={}))
    frames = tab.locator(".look").first.locator(".frames.s3")
    assert not frames.is_visible()
    tab.locator(".look").first.locator("li.s3").hover()
    assert frames.is_visible()
    tab.mouse.move(0, 0)
    assert not frames.is_visible()


def test_choosing_none_shows_the_picture_plain(visit):
    tab = visit(report())
    assert tab.locator(".mark").first.is_visible()
    tab.locator("label", has_text="none").click()
    assert not tab.locator(".mark").first.is_visible()
    assert not tab.locator(".heat.all").first.is_visible()


def test_names_that_look_like_code_are_shown_as_they_are(visit):
    tab = visit(report(looks={"<script>alert(1)</script>": look("hard"), "b": look("soft")}))
    assert tab.locator(".cells .tag", has_text="<script>alert(1)</script>").first.is_visible()


def test_a_long_name_at_the_end_of_a_curve_stays_on_the_page(visit):
    name = "a-run-with-a-name-of-many-words-seed0"
    tab = visit(report(curves={name: [(1.0, 0.5), (2.0, 0.4)]}), width=1280)
    tag = tab.locator(".plot .tag")
    assert tag.is_visible() and tag.evaluate("tag => tag.getBoundingClientRect().right") <= 1280
    assert tab.evaluate("document.documentElement.scrollWidth") == 1280
    assert tab.locator(".legend", has_text=name).is_visible()


@pytest.mark.parametrize("missing", ["models", "rows", "curves", "looks", "failures"])
def test_a_page_with_a_piece_missing_still_stands(visit, missing):
    tab = visit(report(**{missing: {}}), width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    links = tab.locator("nav a").evaluate_all("all => all.map(a => !!document.querySelector(a.hash))")
    assert links
    assert all(links)


def test_paper_has_no_controls_and_shows_the_whole_table(visit):
    tab = visit(report(), width=720)
    tab.emulate_media(media="print")
    assert not tab.locator(".chooser").is_visible()
    rights = tab.locator("table").evaluate_all("all => all.map(t => t.getBoundingClientRect().right)")
    assert len(rights) == 2 and max(rights) <= 720
