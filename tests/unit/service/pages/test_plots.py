"""Plots say the numbers they were given, and their bars stand where these put them."""

import math
import random
from collections.abc import Callable, Iterator

import pytest
from drawn import Mark, lines, marks, number, parsed

from service.pages.decision_plot import MOST_LINES, decision_plot
from service.pages.drawing import DIGITS, WIDTH, Scale, elided, short, signed
from service.pages.plots import LETTERS, bars, force, message, waterfall
from service.pages.steps import MOST_SHOWN, Path


def path_of(
    values: list[float], *, base: float = -0.25, names: list[str] | None = None, output: str = "bad"
) -> Path:
    names = names or [f"column {n}" for n in range(len(values))]
    ends = (base, base + math.fsum(values))
    cells: list[object] = [None, "x & <y>", 3, 0.1, True][: len(values)]
    cells += [n / 7 for n in range(len(values) - len(cells))]
    return Path.of(names, cells, values, None, ends=ends, output_name=output, unit="log-odds")


def drawn_values(n: int, seed: int = 3) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(-2, 2) for _ in range(n)]


TWENTY = path_of(drawn_values(20))


def by_name(found: list[Mark]) -> dict[str, Mark]:
    return {mark.name: mark for mark in found}


@pytest.mark.parametrize("n_columns", [1, 2, 12, 13, 14, 40])
def test_a_waterfall_has_the_strongest_columns_and_the_sum_of_the_others(n_columns: int) -> None:
    path = path_of(drawn_values(n_columns))
    first, *bars_drawn, last = marks(waterfall(path))
    assert (first.name, first.value) == ("base", path.base)
    assert (last.name, last.value) == ("output", path.output)
    steps = sorted(path.steps, key=lambda step: -abs(step.contribution))
    expected = [(step.name, step.contribution) for step in steps]
    if n_columns > MOST_SHOWN + 1:
        rest = math.fsum(value for _, value in expected[MOST_SHOWN:])
        expected = [*expected[:MOST_SHOWN], (f"{n_columns - MOST_SHOWN} other columns", rest)]
    assert [(mark.name, mark.value) for mark in bars_drawn] == expected


def test_its_text_is_the_number_to_the_stated_digits() -> None:
    for mark in marks(waterfall(TWENTY)):
        assert number(mark.shown) == float(f"{mark.value:.{DIGITS}g}")


def test_its_bars_lead_from_the_base_value_to_the_output() -> None:
    first, *steps, last = marks(waterfall(TWENTY))
    centre = {mark.name: sum(mark.span) / 2 for mark in (first, last)}
    unit = (centre["output"] - centre["base"]) / (last.value - first.value)
    at = first.value
    for mark in steps:
        left, right = sorted(
            centre["base"] + unit * (x - first.value) for x in (at, at + mark.value)
        )
        if right - left >= 1:
            assert mark.span == pytest.approx((left, right), abs=0.2)
        at += mark.value
    assert at == pytest.approx(last.value)


def test_a_bar_points_where_it_leads_and_says_so_by_its_style_too() -> None:
    for mark in marks(waterfall(TWENTY))[1:-1]:
        if mark.span[1] - mark.span[0] < 2:
            continue
        start, tip = mark.points[0][0], mark.points[2][0]
        assert (tip > start) == (mark.value > 0)
        assert mark.style == ("up" if mark.value > 0 else "down")


def test_what_contributes_nothing_is_a_hair_without_direction() -> None:
    (zero,) = (mark for mark in marks(waterfall(path_of([1.0, 0.0]))) if mark.value == 0)
    assert (zero.style, zero.shown) == ("none", "0")
    assert zero.span[1] - zero.span[0] == pytest.approx(1.0, abs=0.11)


def test_a_force_plot_has_all_columns_and_both_sides_meet_at_the_output() -> None:
    found = marks(force(TWENTY))
    ends, pushes = by_name(found[-2:]), found[:-2]
    assert {mark.name: mark.value for mark in pushes} == {
        step.name: step.contribution for step in TWENTY.steps
    }
    assert (ends["base"].value, ends["output"].value) == (TWENTY.base, TWENTY.output)
    output_x, base_x = ends["output"].span[0], ends["base"].span[0]
    raising = [mark.span for mark in pushes if mark.value > 0]
    lowering = [mark.span for mark in pushes if mark.value < 0]
    assert max(right for _, right in raising) == pytest.approx(output_x, abs=0.6)
    assert min(left for left, _ in lowering) == pytest.approx(output_x, abs=0.6)
    left, right = (f(mark.span[i] for mark in pushes) for i, f in enumerate((min, max)))
    unit = (right - left) / math.fsum(abs(mark.value) for mark in pushes)
    assert base_x == pytest.approx(output_x + unit * (TWENTY.base - TWENTY.output), abs=0.3)
    for mark in pushes:
        assert mark.span[1] - mark.span[0] == pytest.approx(max(1, unit * abs(mark.value)), abs=0.3)


@pytest.mark.parametrize("values", [[1.0, 2.0], [-1.0, -0.5], [0.0, 0.0]])
def test_a_force_plot_of_one_side_says_that_the_other_is_empty(values: list[float]) -> None:
    text = "".join(parsed(force(path_of(values))).itertext())
    assert text.count("no column") == (1 if any(values) else 2)


def test_a_decision_plot_has_every_output_and_contribution() -> None:
    paths = [path_of(drawn_values(20, seed), base=seed / 3, output=f"o{seed}") for seed in range(4)]
    found = lines(decision_plot(paths))
    assert found.keys() == {path.output_name for path in paths}
    for path in paths:
        base, output, contributions = found[path.output_name]
        own = {step.name: step.contribution for step in path.steps}
        assert (base, output) == (path.base, path.output)
        (rest,) = contributions.keys() - own.keys()
        assert rest == f"{20 - MOST_SHOWN} other columns"
        shown = {name: value for name, value in contributions.items() if name != rest}
        assert shown.items() <= own.items()
        left = [value for name, value in own.items() if name not in shown]
        assert contributions[rest] == math.fsum(left)


def test_of_many_outputs_the_largest_are_drawn_and_the_others_counted() -> None:
    paths = [path_of([float(n), 1.0], output=f"o{n}") for n in range(MOST_LINES + 3)]
    svg = decision_plot(paths)
    assert set(lines(svg)) == {f"o{n}" for n in range(3, MOST_LINES + 3)}
    assert "3 outputs with smaller scores are not drawn" in svg


def test_bars_have_their_numbers_and_lengths_in_proportion() -> None:
    items = [("a", 4.0), ("b", 2.0), ("c", 0.0)]
    found = marks(bars("Title", "unit", items))
    assert [(mark.name, mark.value) for mark in found] == items
    widths = [mark.span[1] - mark.span[0] for mark in found]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] == 1


PLOTS = {
    "waterfall": waterfall(TWENTY),
    "force": force(TWENTY),
    "decision": decision_plot([TWENTY, path_of(drawn_values(20, 9), output="good")]),
    "bars": bars("Title", "unit", [("a", 1.0)]),
    "message": message("Nobody asked for this explanation, so there is nothing to plot at all."),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_named_and_described_for_who_cannot_see_it(name: str) -> None:
    root = parsed(PLOTS[name])
    assert root.get("role") == "img"
    named = {each.get("id"): each.text for each in root if each.get("id")}
    assert root.attrib["aria-labelledby"].split() == list(named)
    assert all(named.values())


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_drawn_outside_of_a_plot(name: str) -> None:
    root = parsed(PLOTS[name])
    _, top, width, height = map(float, root.attrib["viewBox"].split())
    assert width == WIDTH
    for mark in marks(PLOTS[name]):
        for x, y in mark.points:
            assert -1 <= x <= width + 1
            assert top <= y <= top + height


@pytest.mark.parametrize("draw", [waterfall, force, lambda path: decision_plot([path, path])])
def test_names_and_values_are_text_whatever_they_hold(draw: object) -> None:
    assert callable(draw)
    hostile = '"><script>alert(1)</script>&amp;'
    root = parsed(draw(path_of([1.0, -2.0], names=[hostile, "b"], output=hostile)))
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert hostile in {each.get("data-feature") for each in root.iter()}


@pytest.mark.parametrize("draw", [waterfall, force, lambda path: decision_plot([path, path])])
@pytest.mark.parametrize("character", ["\u0001", "\ufffe", "\uffff", "\x1f", "\ud800"])
def test_what_xml_cannot_write_is_replaced(draw: Callable[[Path], str], character: str) -> None:
    name, written = f"a{character}\N{GRINNING FACE}", "a\ufffd\N{GRINNING FACE}"
    ends, names, cells = (0.0, 3.0), [name, "b"], [f"{name}\tc", name]
    path = Path.of(names, cells, [1.0, 2.0], None, ends=ends, output_name=name, unit="u")
    root = parsed(draw(path))
    assert written in "".join(root.itertext())
    assert {written, "b"} <= {each.get("data-feature") for each in root.iter()}


def test_other_plots_replace_it_too() -> None:
    parsed(bars("Title\u0001", "unit\ufffe", [("a\u0001", 1.0)]))
    parsed(message("why\u0001 there is none\ufffe"))


def test_texts_fit_above_their_bars() -> None:
    long = path_of([1.0, 0.5], names=["w" * 300, "\N{CJK UNIFIED IDEOGRAPH-5B57}" * 60])
    texts = [
        "".join(text.itertext())
        for text in parsed(waterfall(long)).iter()
        if text.tag.endswith("}text")
    ]
    assert max(map(len, texts)) <= LETTERS
    assert (
        elided("\N{CJK UNIFIED IDEOGRAPH-5B57}" * 4, 6)
        == "\N{CJK UNIFIED IDEOGRAPH-5B57}" * 2 + "…"
    )
    assert elided("abc", 3) == "abc"
    assert elided("abcd", 3) == "ab…"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (-3.2, 0.01), (5.0, 5.0), (0.0, 0.0), (-1e300, 1e300), (1e-12, 2e-12),
     (1e9, 1e9 + 1e-3), (-1.7e308, 1.7e308), (0.0, 5e-324)],
)  # fmt: skip
def test_any_numbers_have_a_scale(low: float, high: float) -> None:
    scale = Scale.over([low, high])
    assert scale.left <= scale.x(low) <= scale.x(high) <= scale.right
    ticks = scale.ticks()
    assert len(ticks) <= 7
    assert all(scale.left - 1 <= scale.x(tick) <= scale.right + 1 for tick in ticks)
    parsed(waterfall(path_of([low, high], base=0.0)))


def test_numbers_are_short_and_minus_is_a_minus() -> None:
    assert short(-0.123456) == "\N{MINUS SIGN}0.1235"
    assert signed(12.0) == "+12"
    assert signed(-1.23456e-7) == "\N{MINUS SIGN}1.235e\N{MINUS SIGN}07"
    assert signed(0.0) == "0"


def test_cutting_a_text_costs_what_is_kept() -> None:
    class Counted(str):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("the whole text was read")

    assert elided(Counted("w" * 1000), 5) == "wwww…"
