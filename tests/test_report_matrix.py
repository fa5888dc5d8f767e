"""Weights of words over words: subwords merged, what is said of each word, the picture, and the table in a browser."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from regard.app.report import drawings
from regard.app.report.layout import page
from regard.app.report.matrix import Matrix, merged
from regard.app.report.report import Picture, Report
from regard.app.report.text_figures import png, squares
from regard.positions import OneHot

SOURCE, TARGET = ["die", "kleine", "Katze"], ["the", "small", "cat", "."]
WEIGHTS = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.7, 0.3], [0.004, 0.026, 0.97], [0.0, 0.0, 0.0]])
"""The last word looks nowhere."""


def made(weights: torch.Tensor = WEIGHTS, source=SOURCE, target=TARGET) -> Matrix:
    return Matrix(source, target, weights)


def shown(*matrices: Matrix) -> Report:
    """A report with matrices, and a picture of another kind."""
    pictures = [Picture(f"Sentence {n}", f"In words {n}.", b"never", each) for n, each in enumerate(matrices, 1)]
    return Report("Title", "Question?", "Data.", pictures={"Looks": [*pictures, Picture("A tree", "Words.", b"png")]})


# Merging


def enumerated(weights: torch.Tensor, source_groups: list[int], target_groups: list[int]) -> list[list[float]]:
    """The merged weights, word by word and piece by piece."""
    rows = []
    for i in range(max([-1, *target_groups]) + 1):
        mine = [weights[q] for q, word in enumerate(target_groups) if word == i]
        sums = [
            [sum(float(row[k]) for k, word in enumerate(source_groups) if word == j) for row in mine]
            for j in range(max([-1, *source_groups]) + 1)
        ]
        rows.append([sum(each) / len(mine) if mine else 0.0 for each in sums])
    return rows


groups = st.lists(st.integers(-1, 4), max_size=7)


@given(groups, groups)
def test_merged_is_a_sum_over_source_pieces_and_a_mean_over_target_pieces(source: list[int], target: list[int]):
    weights = torch.rand(len(target), len(source), dtype=torch.float64)
    found, expected = merged(weights, source, target), enumerated(weights, source, target)
    assert found.shape == (len(expected), max([-1, *source]) + 1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64).view(found.shape))


def test_merging_the_other_way_round_is_noticed():
    weights, source, target = torch.rand(4, 3, dtype=torch.float64), [0, 1, 1], [0, 0, 1, 1]
    other = merged(weights.mT, target, source).mT
    assert (other - torch.tensor(enumerated(weights, source, target))).abs().max() > 0.1


def test_rows_still_sum_to_one_and_pieces_of_no_word_are_left_out():
    weights = torch.rand(5, 6).softmax(-1)
    assert merged(weights, [0, 0, 1, 2, 2, 2], [0, 1, 1, 1, 2]).sum(-1) == pytest.approx([1, 1, 1])
    less = merged(weights, [0, 0, 1, 1, 1, -1], [0, 1, 1, 1, -1])
    assert less.shape == (2, 2)
    assert less[0].sum() == pytest.approx(1 - float(weights[0, 5]))


def test_events_of_a_hard_read_are_merged_as_weights_are():
    positions = OneHot(torch.rand(3, 4).softmax(-1))
    events = torch.tensor([1, -1, 3])
    found = merged(positions.indicator(events), [0, 0, 1, 1], [0, 1, 1])
    assert found.tolist() == [[1, 0], [0, 0.5]]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([0, 1], [0, 1], "expected the word of each of 3 pieces in source_groups, got 2 words"),
        ([0, 1, 1], [0], "expected the word of each of 2 pieces in target_groups, got 1 words"),
    ],
)
def test_groups_that_do_not_fit_are_refused(source, target, message):
    with pytest.raises(ValueError, match=message):
        merged(torch.rand(2, 3), source, target)


@pytest.mark.unchecked
def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"target words by the source words, \(4, 3\), got \(3, 4\)"):
        made(WEIGHTS.mT)


# In words and squares


def test_each_word_says_what_it_looked_at_most_first():
    drawn = made()
    assert drawn.looked[1:] == [
        "“small” looked at “kleine” 70 %, “Katze” 30 %.",
        "“cat” looked at “Katze” 97 %, “kleine” 3 %.",
        "“.” looked at no word.",
    ]
    assert drawn.seen[2] == "“Katze” was looked at by “cat” 97 %, “small” 30 %."
    many = Matrix(list("abcde"), ["x"], torch.full((1, 5), 0.2))
    assert many.looked == ["“x” looked at “a” 20 %, “b” 20 %, “c” 20 %."]


def test_breadth_is_the_mean_over_words_of_exp_of_the_entropy_of_their_shares():
    expected = 0.0
    for row in WEIGHTS.double().tolist():
        shares = [each / sum(row) for each in row if each]
        expected += math.exp(-sum(each * math.log(each) for each in shares)) / len(WEIGHTS) if shares else 0.0
    assert made().breadth == pytest.approx(expected, rel=1e-5)
    assert made(2 * WEIGHTS).breadth == pytest.approx(expected, rel=1e-5), "of shares"
    assert Matrix(["a"] * 5, ["b"], torch.full((1, 5), 0.2)).breadth == pytest.approx(5)
    assert Matrix(["a"] * 5, ["b"], torch.eye(5)[:1]).breadth == pytest.approx(1)


def test_squares_are_darker_the_larger_the_weight():
    drawn = Matrix(list("abcde"), ["x"], torch.tensor([[0.0, 0.004, 0.05, 0.4, 1.3]])).squares[0]
    assert [square.number for square in drawn] == ["", "", "5", "40", "130"]
    assert [square.opacity for square in drawn] == sorted({square.opacity for square in drawn})
    assert drawn[-1].opacity == pytest.approx(drawings.OPAQUE)
    assert [square.deep for square in drawn] == [False, False, False, True, True]


def test_a_matrix_holds_numbers_alone():
    weights = torch.rand(1, 1, dtype=torch.bfloat16, requires_grad=True)
    kept = Matrix(["a"], ["b"], weights).weights
    assert kept.dtype == torch.float32 and not kept.requires_grad


# As a picture


def test_the_figure_has_every_word_and_the_large_weights():
    (axes,) = squares(made()).axes
    assert [text.get_text() for text in axes.texts] == [*SOURCE, *TARGET, "90", "10", "70", "30", "97"]
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["90"] == (places["die"][0], places["the"][1])
    assert places["97"] == (places["Katze"][0], places["cat"][1])
    assert places["70"] == (places["kleine"][0], places["small"][1])
    middles = [(patch.get_x() + patch.get_width() / 2, patch.get_y() + 0.5) for patch in axes.patches]
    drawn = dict(zip(middles, (to_rgba(patch.get_facecolor())[3] for patch in axes.patches), strict=True))
    shades = [drawn[places[number]] for number in ("10", "30", "70", "90", "97")]
    assert len(drawn) == 6 and shades == sorted(shades)


@pytest.mark.parametrize("size", [0, 1, 40])
def test_matrices_of_any_size_are_drawn_and_written(size: int):
    words = ["$x_1$"] * size
    assert png(squares(Matrix(words, [*words, "Donaudampfschifffahrt"], torch.eye(size + 1, size)))).startswith(
        b"\x89PNG"
    )


# On the page


def test_the_table_has_every_word_and_number():
    text = page(shown(made()))
    headings = re.findall(r'<th scope="(\w+)"><label><input [^>]*><span>(.*?)</span>', text)
    assert headings == [("col", word) for word in SOURCE] + [("row", word) for word in TARGET]
    cells = re.findall(r'<td(?: style="--shade:(\d+)%")?(?: class="deep")?>(\d*)</td>', text.split("<tbody>")[1])
    assert [number for _, number in cells] == ["90", "10", "", "", "70", "30", "", "3", "97", "", "", ""]
    assert [int(shade) for shade, number in cells if number] == [87, 42, 80, 60, 27, 89]
    assert "“cat” looked at “Katze” 97 %, “kleine” 3 %." in text
    assert "bmV2ZXI=" not in text, "the table stands in the place of the picture"
    assert 'alt="Words."' in text, "and other pictures are shown as ever"
    assert "<b>Sentence 1</b> In words 1." in text


def test_words_are_escaped():
    evil = '"><script>'
    text = page(shown(Matrix([evil], [evil], torch.ones(1, 1))))
    assert "<script" not in text
    assert text.count("&#34;&gt;&lt;script&gt;") == 2 + 2 * 2


def test_a_report_without_matrices_has_no_word_of_them():
    assert "matrix" not in page(Report("Title", "?", ".", pictures={"Trees": [Picture("A", "B", b"")]}))


def test_twenty_long_sentences_are_less_than_two_megabytes():
    words = ["Wort"] * 40
    assert len(page(shown(*[Matrix(words, words, torch.rand(40, 40).softmax(-1))] * 20))) < 2_000_000


# In a browser


def visible(tab) -> list[str]:
    """The sentences that are seen."""
    return tab.locator(".said p").evaluate_all(
        "all => all.filter(p => getComputedStyle(p).visibility == 'visible').map(p => p.textContent)"
    )


def numbers(tab) -> list[str]:
    """The numbers that are seen."""
    return tab.locator(".matrix tbody td:not(:empty)").evaluate_all(
        "all => all.filter(d => getComputedStyle(d).color != 'rgba(0, 0, 0, 0)').map(d => d.textContent)"
    )


def chosen(tab) -> list[str]:
    """The words that stand out."""
    return tab.locator(".matrix label").evaluate_all(
        "all => all.filter(l => getComputedStyle(l).backgroundColor != 'rgba(0, 0, 0, 0)').map(l => l.innerText.trim())"
    )


def test_pointing_at_a_square_shows_its_words_and_weights(visit):
    tab = visit(shown(made()))
    assert (visible(tab)[0][:8], numbers(tab), chosen(tab)) == ("Point at", [], [])
    tab.locator(".matrix tbody tr").nth(1).locator("td").nth(2).hover()
    assert visible(tab) == ["“small” looked at “kleine” 70 %, “Katze” 30 %."]
    assert numbers(tab) == ["70", "30"]
    assert chosen(tab) == ["Katze", "small"]


def test_pointing_at_a_source_word_shows_what_looked_at_it(visit):
    tab = visit(shown(made()))
    tab.locator(".matrix thead label").nth(1).hover()
    assert visible(tab) == ["“kleine” was looked at by “small” 70 %, “the” 10 %, “cat” 3 %."]
    assert numbers(tab) == ["10", "70", "3"]
    assert chosen(tab) == ["kleine"]


def test_the_keyboard_goes_from_word_to_word_and_from_matrix_to_matrix(visit):
    tab = visit(shown(made(), made(WEIGHTS[:1], target=["alone"])))
    tab.locator(".matrix input").first.focus()
    tab.keyboard.press("ArrowRight")
    assert chosen(tab) == ["kleine"]
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    assert (numbers(tab), chosen(tab)) == (["3", "97"], ["cat"])
    assert visible(tab)[0] == "“cat” looked at “Katze” 97 %, “kleine” 3 %."
    described = tab.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    assert described == visible(tab)[0]
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert (numbers(tab), chosen(tab)) == (["90", "10"], ["alone"])
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Shift+Tab")
    assert chosen(tab) == ["cat"], "where it was left"


def test_what_one_points_at_goes_before_what_has_the_focus(visit):
    tab = visit(shown(made()))
    tab.locator(".matrix tbody input").nth(2).focus()
    tab.locator(".matrix tbody th").nth(0).hover()
    assert (visible(tab), numbers(tab)) == ([made().looked[0]], ["90", "10"])
    tab.mouse.move(0, 0)
    assert (visible(tab), numbers(tab)) == ([made().looked[2]], ["3", "97"])


@pytest.mark.parametrize(("width", "fits"), [(1280, True), (390, False)])
def test_forty_words_are_readable_and_their_headings_stay(visit, width: int, fits: bool):
    words = [f"Donaudampfschifffahrtsgesellschaft{n}" for n in range(40)]
    tab = visit(shown(Matrix(words, words, torch.eye(40))), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator(".scroll").evaluate("s => s.scrollWidth <= s.clientWidth") == fits
    sides = tab.locator(".matrix tbody td").evaluate_all("all => all.map(d => [d.offsetWidth, d.offsetHeight]).flat()")
    assert min(sides) >= 20 and max(sides) <= 24
    tab.locator(".matrix tbody input").first.focus()
    tab.keyboard.press("ArrowUp")  # from the first to the last
    boxes = [
        tab.locator(each).bounding_box()
        for each in (".scroll", ".matrix thead th >> nth=0", ".matrix tbody th >> nth=39")
    ]
    pane, above, beside = boxes
    assert pane["y"] <= above["y"] < above["y"] + above["height"] <= beside["y"] < pane["y"] + pane["height"]
    assert beside["x"] >= 0 and beside["width"] < width / 2
    tab.keyboard.press("ArrowDown")
    first = tab.locator(".matrix tbody th").first.bounding_box()
    above = tab.locator(".matrix thead th").first.bounding_box()
    assert chosen(tab) == [words[0]] and first["y"] >= above["y"] + above["height"] - 1, "not below the heading"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_on_every_square(visit, scheme: str):
    weights = torch.linspace(0.005, 1, 60)
    tab = visit(shown(Matrix(["word"] * 60, ["x"], weights.unsqueeze(0))), scheme=scheme)
    tab.locator(".matrix tbody input").focus()
    page_colour, colours = tab.evaluate(
        """() => { const rgba = text => { const c = new OffscreenCanvas(1, 1).getContext('2d'); c.fillStyle = text;
        c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
        const all = [...document.querySelectorAll('.matrix tbody td')].map(d => getComputedStyle(d));
        return [rgba(getComputedStyle(document.body).backgroundColor),
                all.map(s => [rgba(s.backgroundColor), rgba(s.color)])]; }"""
    )
    for ground, ink in colours:
        share = ground[3] / 255
        seen = [share * over + (1 - share) * under for over, under in zip(ground[:3], page_colour, strict=False)]
        assert contrast(seen, ink) > 4.4


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast of two colours (WCAG 2.2)."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[float]) -> float:
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=False))


def test_paper_shows_all_of_it(visit):
    words = ["Wort"] * 40
    tab = visit(shown(Matrix(words, words, torch.eye(40))))
    tab.emulate_media(media="print")
    assert not tab.locator(".said").is_visible()
    assert tab.locator(".scroll").evaluate(
        "s => s.clientHeight >= s.scrollHeight && getComputedStyle(s).overflow == 'visible'"
    )
