"""The results of `inspect` as notebooks show them: well-formed, escaped, with the numbers of `str()`."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import minigrad as mg
from minigrad import inspect, nn
from minigrad.markup import Markup, bar, details, html_table, paragraph, preformatted, tag, text
from minigrad.tables import table

pytestmark = pytest.mark.cpu_only("about text, whatever the device")

FIXED = re.compile(
    r"[;\"\s](?:color|background(?:-color)?): *(?:#|[a-z]+[;\"])"
)  # and no rgba, which is a shade


class Page(HTMLParser):
    """HTML that is read: fails where an element is not closed in its turn.

    Attributes:
        elements: (name, attributes, text within), in the order of their ends.
        tables: for each table its rows of the cells' text.
    """

    def __init__(self, markup):
        super().__init__()
        self.open, self.elements, self.tables = [], [], []
        self.feed(markup)
        self.close()
        assert self.open == [], "not closed"

    def handle_starttag(self, name, attributes):
        self.open.append((name, dict(attributes), []))
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])

    def handle_data(self, data):
        for _, _, within in self.open:
            within.append(data)

    def handle_endtag(self, name):
        assert self.open, f"</{name}> closes nothing"
        opened, attributes, within = self.open.pop()
        assert opened == name, f"</{name}> closes <{opened}>"
        self.elements.append((name, attributes, "".join(within)))
        if name in ("td", "th"):
            self.tables[-1][-1].append("".join(within))

    def all(self, name):
        """The texts of all elements of a name."""
        return [within for element, _, within in self.elements if element == name]


def page_of(shown):
    markup = shown._repr_html_()
    assert not FIXED.search(markup), "a colour that one theme can't show"
    return Page(markup)


def words(lines):
    """The text of a table without its spaces."""
    return ["".join(line).replace(" ", "") for line in lines]


def network():
    rng = np.random.default_rng(0)
    layers = nn.Sequential(nn.Dense(3, 8), nn.Reshape(2, 2, 2), nn.ConvTranspose2d(2, 1, 3, 2), nn.Tanh())
    return layers, mg.tensor(rng.normal(size=(2, 3)), "float32")


def profiled():
    model, x = network()
    with inspect.profile(model) as found:
        model(x).sum().backward()
    return found


def launched():
    found = inspect.launches(network()[0])
    given = (("0 Dense(3, 8)", "forward"), ("0 Dense(3, 8)", "forward"), ("", "backward"))
    for layer, phase in given:
        found.launches.append(
            inspect.Launch("fill<float>", (3, 2), 4096, 500_000, layer=layer, operation="dense", phase=phase)
        )
    return found


# -- the parts of a page ----------------------------------------------------------------------------


@pytest.mark.parametrize("markup", ["<p>", "</p>", "<p><b></p></b>", "<p></p></p>"])
def test_the_tests_see_what_is_not_balanced(markup):
    with pytest.raises(AssertionError, match="clos"):
        Page(markup)


def test_text_is_escaped_wherever_it_stands():
    bad = "<script>\"&'"
    for made in (
        text(bad),
        paragraph(bad),
        preformatted([bad]),
        details(bad, bad),
        bar(0.5, bad),
        tag("p", title=bad),
        html_table([("a", bad), (bad, "b"), (bad,)], "<", foot=1),
    ):
        assert "<script" not in made
        assert bad in (Page(made).all("p") + Page(f"<p>{made}</p>").all("p") + _titles(made))


def _titles(made):
    found = [attributes.get("title") for _, attributes, _ in Page(made).elements]
    cells = [cell for rows in Page(made).tables for row in rows for cell in row]
    return found + cells + Page(made).all("summary")


def test_markup_is_not_escaped_again():
    assert tag("p", tag("b", "1 < 2"), " & ", Markup("<i></i>")) == "<p><b>1 &lt; 2</b> &amp; <i></i></p>"


def test_attributes():
    assert (
        tag("p", fill_opacity=0.5, open=True, hidden=False, title=None) == '<p fill-opacity="0.5" open></p>'
    )


def test_a_table_has_heads_sums_and_headings_across_it():
    made = Page(
        html_table([("a", "b", "c"), ("all of it",), ("x", "1", "2"), ("sum", "3", "4")], "<>", foot=1)
    )
    assert made.tables == [[["a", "b", "c"], ["all of it"], ["x", "1", "2"], ["sum", "3", "4"]]]
    assert (made.all("thead"), made.all("tfoot")) == (["abc"], ["sum34"])
    cells = {within: attributes for name, attributes, within in made.elements if name in ("td", "th")}
    assert cells["all of it"]["colspan"] == "3"
    assert [cells[name]["style"].split(";")[0] for name in "x12"] == [
        "text-align: left",
        "text-align: right",
        "text-align: right",
    ]


def test_rows_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        html_table([("a", "b", "c"), ("1", "2")], "<")


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0%"), (-0.1, "0.0%"), (1.7, "100.0%")])
def test_a_bar_is_as_long_as_its_share(share, width):
    made = bar(share, "label")
    assert re.findall(r"[\d.]+%", made) == [width, width]
    assert Page(made).all("div") == ["label"]


# -- the results ------------------------------------------------------------------------------------


def test_a_summary_is_the_table_of_its_text():
    found = inspect.summary(network()[0], (3,))
    (rows,) = page_of(found).tables
    assert words(rows) == words(str(found).splitlines())
    assert table(rows, "<<<>") == str(found)
    assert page_of(found).all("tfoot") == ["all" + "".join(rows[-1][1:])]


@pytest.mark.parametrize("limits", [None, inspect.Limits(1234.0, 56.0, 512)])
def test_a_profile_is_the_table_of_its_text_with_bars(limits):
    found = profiled()
    found.limits = limits
    page = page_of(found)
    (rows,) = page.tables
    lines = str(found).splitlines()
    if limits is not None:
        assert page.all("p") == [lines.pop()]
        assert page.all("p") == [f"limits: {limits}"]
        assert Page(limits._repr_html_()).all("p") == [str(limits)]
    assert words(rows) == words(lines)
    bars = re.findall(r"rgba\([^)]*\) ([\d.]+)%", found._repr_html_())
    shares = [row[4].rstrip("%") for row in rows[1:]]
    np.testing.assert_allclose([*map(float, bars)], [*map(float, shares)], atol=0.051)


def test_launches_stand_under_their_layers():
    found = launched()
    (rows,) = page_of(found).tables
    assert [row for row in rows if len(row) == 1] == [
        ["0 Dense(3, 8), forward"],
        ["outside of layers, backward"],
    ]
    assert [*words(rows), *words(page_of(found).all("p"))] == words(str(found).splitlines())
    assert rows[2][2] == "fill<float>"


def test_launches_of_nothing_are_the_heads():
    (rows,) = page_of(inspect.launches()).tables
    assert len(rows) == 1


def squares(found):
    """The numbers of a geometry's picture with their shades, in rows."""
    page = page_of(found)
    shades = [float(a["fill-opacity"]) for name, a, _ in page.elements if name == "rect"]
    numbers = [int(number) for number in page.all("text")]
    places = [(int(a["y"]), int(a["x"])) for name, a, _ in page.elements if name == "rect"]
    assert places == sorted(places)
    across = len({x for _, x in places}) or 1
    return np.reshape(numbers, (-1, across)), np.reshape(shades, (-1, across)), page


def test_a_geometry_is_its_text_and_a_picture():
    found = inspect.geometry(nn.ConvTranspose2d(8, 4, 3, 2, 1), (2, 3))
    numbers, shades, page = squares(found)
    np.testing.assert_array_equal(numbers, found.touched)
    np.testing.assert_allclose(shades / shades.max(), found.touched / found.touched.max(), atol=0.01)
    shown = "\n".join([*page.all("p"), *page.all("pre")])
    lines = [line.strip() for line in str(found).splitlines()]
    for line in [*lines[:6], lines[-1]]:
        assert line in shown
    assert found.warning in shown


def test_the_picture_of_a_large_image_is_a_part_of_it_and_says_so():
    found = inspect.geometry(nn.ConvTranspose2d(8, 4, 3, 2, 1), (32, 8))
    numbers, _, page = squares(found)
    np.testing.assert_array_equal(numbers, found.touched[:32])
    for shown in (page.all("pre")[0], str(found)):
        assert "written to 1 to 4 times (the first 32 x 15 pixels):" in shown


def test_an_even_geometry_has_no_picture():
    found = inspect.geometry(nn.ConvTranspose2d(1, 1, 2, 2), (3, 3))
    assert "svg" not in found._repr_html_()
    assert "each pixel of the output is written to 1 times" in page_of(found).all("pre")[0]


def test_a_graph_is_its_picture_with_colours_of_its_own():
    model, x = network()
    found = inspect.graph(model(x), model)
    picture = found._repr_svg_()
    assert picture == found.svg()
    texts = re.findall("<text[^>]*>", picture)
    assert len(texts) == 3 * len(found.boxes)
    assert all('fill="#1a1a1a"' in each for each in texts)
    assert all('stroke="#888888"' in each for each in re.findall("<(?:polyline|rect)[^>]*>", picture))


def test_a_difference_is_its_sentence():
    found = inspect.Difference("0 <Dense>", "dense", "forward", 0.5, (1, 2), 0.25, 0.125)
    assert page_of(found).all("p") == [str(found)]


# -- an explanation ---------------------------------------------------------------------------------


def test_an_explanation_has_its_steps_and_its_checks():
    layer = nn.ConvTranspose2d(1, 1, 3, 2)
    found = inspect.explain(layer, np.ones((1, 1, 2, 2)))
    page = page_of(found)
    steps = [*found.forward, *found.backward]
    assert len(page.all("li")) == len(steps)
    for shown, step in zip(page.all("li"), steps, strict=True):
        bare = re.sub(r"\s", "", shown)
        assert bare == re.sub(r"\s", "", str(step))
    (rows,) = page.tables
    marked = [line.replace("✓", "") for line in words(rows)]
    assert marked == words(found._table().splitlines())
    assert page.all("h5") == ["forward", "backward, from dy", "checked on the spot"]
    assert found.loop in page.all("pre")
    assert page.all("p")[:2] == [f"✓ {str(found).splitlines()[-1]}", found.heading]
    assert all(note in page.all("p") for note in found.notes)


def test_a_check_that_fails_is_crossed_and_named_first():
    found = inspect.explain(nn.Tanh(), np.ones((2, 3)))
    wrong = dataclasses.replace(found.checks[0], error=1.0)
    page = page_of(dataclasses.replace(found, checks=(wrong, *found.checks[1:])))
    assert page.all("p")[0] == "✗ WRONG: 1 checks failed"
    assert page.all("li")[0] == str(wrong)
    verdicts = [row[-1] for row in page.tables[0][1:]]
    assert verdicts == ["✗ NOT EQUAL", *["✓ equal"] * (len(found.checks) - 1)]
    assert page_of(wrong).all("p") == [f"✗ {wrong}"]


def test_layers_of_a_sequential_are_behind_a_click_and_open_where_they_are_wrong():
    model, x = network()
    found = inspect.explain(model, x)
    names = [f"{name} {part.layer}" for name, part in found.parts.items()]
    assert [within for within in page_of(found).all("summary") if within[2:] in names] == [
        f"✓ {name}" for name in names
    ]
    part = found.parts["2"]
    wrong = dataclasses.replace(part, checks=(dataclasses.replace(part.checks[0], error=1.0),))
    page = page_of(dataclasses.replace(found, parts={**found.parts, "2": wrong}))
    shown = {
        within[2:].partition("x (")[0]: "open" in attributes
        for name, attributes, within in page.elements
        if name == "details" and within[:1] in "✓✗"
    }
    assert shown == {name: name.startswith("2 ") for name in names}


def test_numbers_that_are_many_are_behind_a_click():
    few, many = np.ones((2, 2)), np.ones((20, 20))
    for values, is_open in ((few, True), (many, False)):
        markup = inspect.Step("fill", "y", "ones", values)._repr_html_()
        assert ("<details open>" in markup) is is_open
        assert "<details" in markup
    assert "<details" not in inspect.Step("fill", "y", "nothing", np.ones((0, 2)))._repr_html_()
