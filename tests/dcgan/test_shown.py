"""Values as notebooks show them: recipes, ledgers, evaluations and the logs of a run."""

import base64
import dataclasses
import doctest
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from reported import vital_signs

from dcgan import losses, notebook, pictures, presets, steps
from dcgan.describe import step as described
from dcgan.describe.ledger import Ran, Updated
from dcgan.describe.step import explain, ledger
from dcgan.errors import UserError
from dcgan.evaluation import show
from dcgan.evaluation.comparison import EvaluationResult
from dcgan.presets import PRESETS
from dcgan.recipe import layers, shown, sizes
from dcgan.recipe.preset import Preset
from dcgan.run import logs
from dcgan.run.logs import Episode, Metrics, Vitals
from dcgan.steps import StepLine
from dcgan.vitals import diagnosis, picture
from dcgan.vitals.line import VitalsLine
from minigrad.markup import VOID

HOSTILE = "<script>alert('a & b')</script>"
TINY = {"image_size": 8, "channels": 1, "nz": 3, "ngf": 2, "ndf": 2}


class Page(HTMLParser):
    """HTML of which every element is closed in its turn: its elements, its text, the rows of its tables."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.pictures, self.text, self.tables = [], [], "", []
        self._open = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def hostile_preset():
    """A recipe whose texts are HTML."""
    return dataclasses.replace(presets.get("quick"), summary=HOSTILE, sample_name="<b>{step}.png")


def shown_as(value):
    """The page of a value's HTML; it has a style, and no script."""
    html = value._repr_html_()
    assert html.startswith('<div class="dcgan-shown"><style>')
    cells = re.findall("<(?:td|th|caption)(?: [^>]*)?>", html)  # aligned without a style sheet, too
    assert cells
    assert all(f'style="{notebook.CELL}"' in cell for cell in cells)
    page = Page(html)
    assert "script" not in page.elements
    return page


class Printer:
    """IPython's printer, as far as values use it."""

    def __init__(self):
        self.said = ""

    def text(self, text):
        self.said += text


def printed(value):
    """The text that IPython shows of a value."""
    printer = Printer()
    value._repr_pretty_(printer, cycle=False)
    return printer.said


def test_the_style_sets_no_colour_of_text_and_is_for_our_tables_alone():
    assert not re.search(r"(?<![-\w])color:", notebook.STYLE)
    selectors = [one for rule in notebook.STYLE.split("}") if rule for one in rule.split("{")[0].split(",")]
    assert selectors
    assert all(selector.startswith(".dcgan-shown ") for selector in selectors)


# -- recipes ---------------------------------------------------------------------------------------------


def networks_of(page):
    """The rows of both tables of layers, without their heads."""
    generator, discriminator = page.tables[-2:]
    return generator[1:], discriminator[1:]


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_shows_its_fields_and_the_sizes_of_its_layers(name):
    preset = presets.get(name)
    page = shown_as(preset)
    assert page.text.startswith(f"{name}: {preset.summary}")
    fields = dict(row for table in page.tables[:-2] for row in table[1:])
    expected = {f.name: getattr(preset, f.name) for f in dataclasses.fields(preset)}
    for field in shown.APART:
        del expected[field]
    assert fields.pop("z_shape") == " × ".join(map(str, expected.pop("z_shape")))
    assert fields == {field: str(value) for field, value in expected.items()}
    for network, rows in zip(("generator", "discriminator"), networks_of(page), strict=True):
        found = getattr(sizes, f"of_{network}")(preset)
        made = [" × ".join(map(str, each.made)) for each in found]
        assert [row[0] for row in rows] == [str(i) for i in range(len(found))]
        assert [eval(row[1], vars(layers)) for row in rows] == list(getattr(preset, network))
        assert [row[2] for row in rows] == made
        assert [int(row[3].replace(",", "")) for row in rows] == [each.parameters for each in found]
        assert f", {sizes.parameters(found):,} parameters" in page.text
    assert "do not fit" not in page.text


def test_a_recipe_whose_texts_are_html_shows_them_as_text(hostile_preset):
    page = shown_as(hostile_preset)
    assert HOSTILE in page.text
    assert "<b>{step}.png" in page.text
    assert "b" not in page.elements


def test_of_layers_that_do_not_fit_those_before_are_shown():
    wrong = (layers.Dense(5), layers.Conv(3, 2), layers.Tanh())
    preset = dataclasses.replace(presets.get("quick"), generator=wrong)
    page = shown_as(preset)
    generator, discriminator = networks_of(page)
    assert generator == [
        ["0", "Dense(5)", "5", "85"],
        ["1", "Conv(3, 2)", "?", "?"],
        ["2", "Tanh()", "?", "?"],
    ]
    with pytest.raises(UserError) as error:
        sizes.of_generator(preset)
    assert f"The layers do not fit: {error.value}." in page.text
    assert "generator: from 16, at least 85 parameters" in page.text
    assert discriminator[-1] == ["9", "Dense(1)", "1", "257"]


def test_networks_that_make_something_else_say_so():
    preset = dataclasses.replace(presets.get("quick"), generator=(layers.Dense(4),), discriminator=())
    page = shown_as(preset)
    assert "The layers do not fit: generator: it makes 4, not 1 × 28 × 28." in page.text
    assert "The layers do not fit: discriminator: it makes 1 × 28 × 28, not 1." in page.text
    assert networks_of(page) == ([["0", "Dense(4)", "4", "68"]], [])


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_is_written_as_the_call_that_makes_it(name):
    preset = presets.get(name)
    written = repr(preset)
    assert eval(written, {**vars(layers), "Preset": Preset}) == preset
    assert "plot_with_samples" not in repr(presets.get("quick"))  # it has its default
    assert "batch_size=64" in repr(presets.get("quick"))
    assert len(written) < 1500


# -- ledgers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", steps.RULES)
def test_a_ledger_shows_the_sentences_of_its_text(rule):
    found = ledger(presets.get("flowers", **TINY, step=rule))
    assert str(found) == explain(found.preset) == printed(found)
    said = " ".join(str(found).split())
    page = shown_as(found)
    events, short = page.tables
    heads, *rows = events
    assert heads == list(described.HEADS)
    titles = [row[0] for row in rows if len(row) == 1]
    rows = [row for row in rows if len(row) > 1]
    assert len(titles) == 2
    assert all(title in said for title in titles)
    assert [row[0] for row in rows] == [str(i + 1) for i in range(len(found.events))]
    for (number, network, on, moved, statistics, sentence), event in zip(rows, found.events, strict=True):
        assert f" {number}. {sentence}" in said
        ran = isinstance(event, Ran)
        assert on == (event.on if ran else "")
        assert statistics == (f"{len(event.buffers)} of {event.network[0]}" if ran and event.buffers else "")
        updated = isinstance(event, Updated)
        assert moved == (f"{len(event.moved)} of {event.network}" if updated else "")
        assert network == getattr(event, "network", "")
    assert all(" ".join(row) in said for row in short)
    assert len(short) == 3
    assert described._UNUSED in page.text


def test_a_ledger_is_of_the_step_that_happened(monkeypatch):
    rule = steps.RULES["same_fakes"]

    def with_a_second_update(gan, real):
        rule(gan, real)
        gan.optimizer_d.step()

    preset = presets.get("flowers", **TINY)
    right = ledger(preset)
    monkeypatch.setitem(steps.RULES, "same_fakes", with_a_second_update)
    wrong = ledger(preset)
    assert len(wrong.events) == len(right.events) + 1
    assert "Part 3: the discriminator learns" in shown_as(wrong).text
    assert "Part 3" not in shown_as(right).text
    assert repr(wrong) == f"<Ledger of flowers: {len(wrong.events)} events of one step>"


def test_a_ledger_shows_a_formula_as_text(monkeypatch):
    preset = presets.get("flowers", **TINY)
    changed = dataclasses.replace(losses.LOSSES[preset.loss], formula=HOSTILE)
    monkeypatch.setitem(losses.LOSSES, preset.loss, changed)
    assert HOSTILE in shown_as(ledger(preset)).text


def test_a_step_that_updates_nothing_has_no_ledger(monkeypatch):
    monkeypatch.setitem(steps.RULES, "same_fakes", lambda gan, real: None)
    with pytest.raises(UserError, match="the step updates no network"):
        ledger(presets.get("flowers", **TINY))


# -- evaluations -----------------------------------------------------------------------------------------


def evaluation(**changed):
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1)).astype(np.uint8)
    shares = [0.05, 0.15, *[0.1] * 8]
    samples = EvaluationResult(12.5, 0.002, 0.75, 0.5, 9.125, shares, 2.5)
    floor = EvaluationResult(2.5, 0.001, 0.875, 0.625, 9.5, [0.1] * 10, 3.25)
    made = show.Evaluation(
        "quick", 600, 1, "ema", "running", 1000, f"digits of {HOSTILE}", "a classifier", 0.995, samples,
        floor, images, images[:10], images[:10],
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


@pytest.fixture
def no_figure(monkeypatch):
    """A few bytes in the place of the picture, which takes most of the time."""
    monkeypatch.setattr(show, "png", lambda _: b"the picture")


def picture_of(page):
    (shown_picture,) = page.pictures
    kind, _, content = shown_picture["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert shown_picture["alt"]
    return base64.b64decode(content)


def test_an_evaluation_shows_the_numbers_of_its_text(no_figure):
    made = evaluation()
    text = str(made)
    assert text == show.table(made) == printed(made)
    page = shown_as(made)
    measures, digits = page.tables
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert all(" ".join(row).strip() in lines for row in measures + digits)
    assert ["Fréchet distance", "12.50", "2.50"] in [row[:3] for row in measures]
    assert digits[1] == ["share of samples, %", "5.0", "15.0", *["10.0"] * 8]
    assert len(measures) == 1 + len(show.MEASURES)
    assert "quick after step 600: 1000 samples (ema weights, running statistics)" in page.text
    assert "a classifier, which finds 99.50% of the test digits." in page.text
    assert f"against digits of {HOSTILE}" in page.text
    assert picture_of(page) == b"the picture"


def test_an_evaluation_without_digits_shows_none(no_figure):
    without = {"score": None, "shares": None}
    made = evaluation()
    result = dataclasses.replace(made.samples, **without)
    page = shown_as(dataclasses.replace(made, samples=result, floor=result, accuracy=None))
    (measures,) = page.tables
    assert [row[0] for row in measures[1:3]] == ["Fréchet distance", "kernel distance x 1000"]
    assert "digit" not in " ".join(row[0] for row in measures)


def test_an_evaluations_picture_is_that_of_its_file(tmp_path):
    made = evaluation()
    path = tmp_path / "made" / "for" / "it.png"
    made.save(str(path))
    assert path.read_bytes() == picture_of(shown_as(made))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "grid" not in repr(made)


def test_an_evaluation_is_saved_as_png_alone(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg: expected a file name that ends in \.png"):
        evaluation().save(tmp_path / "a.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.png: the folder .*file can't be made"):
        evaluation().save(tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# -- metrics ---------------------------------------------------------------------------------------------


def metrics(count, **last):
    """Lines whose numbers tell them apart."""
    lines = [StepLine(i, 1 + i // 4, i / 2, i / 4, 1 / i, 0.25, 0.125) for i in range(1, count + 1)]
    return Metrics([*lines[:-1], dataclasses.replace(lines[-1], **last)])


def test_metrics_are_a_sequence_of_lines():
    found = metrics(7)
    lines = [StepLine.from_json(json.loads(json.dumps(line.to_json()))) for line in found]
    assert len(found) == 7
    assert found[0].step == 1
    assert found[-1] == lines[6] == StepLine(7, 2, 3.5, 1.75, 1 / 7, 0.25, 0.125)
    assert isinstance(found[2:5], Metrics)
    assert [line.step for line in found[2:5]] == [3, 4, 5]
    assert found[2:5] == Metrics(lines[2:5]) != found[2:6]
    assert lines[3] in found
    assert found.index(lines[3]) == 3
    assert [line.step for line in reversed(found)] == [7, 6, 5, 4, 3, 2, 1]
    with pytest.raises(IndexError):
        found[7]


def test_metrics_have_columns():
    found = metrics(5, loss_g=None, epoch=None)
    np.testing.assert_array_equal(found["step"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found["epoch"], [1, 1, 1, 2, 0])
    np.testing.assert_array_equal(found["loss_d"], [0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_array_equal(found["loss_g"], [0.25, 0.5, 0.75, 1, np.nan])
    columns = found.columns
    assert list(columns) == [field.name for field in dataclasses.fields(StepLine)]
    for name, column in columns.items():
        assert column.dtype == (np.int64 if name in ("step", "epoch") else np.float64)
        np.testing.assert_array_equal(column, found[name])
    assert all(column.shape == (0,) for column in Metrics().columns.values())


def test_an_unknown_column_names_those_that_there_are():
    with pytest.raises(KeyError) as error:
        metrics(2)["loss"]
    (said,) = error.value.args
    listed = "step, epoch, loss_d, loss_g, d_x, d_g_z1, d_g_z2"
    assert said == f"no column 'loss': expected one of {listed}; did you mean loss_d or loss_g?"
    with pytest.raises(KeyError, match=f'{listed}"$'):
        metrics(2)["accuracy"]


def test_metrics_as_text_end_with_the_last_lines():
    said = str(metrics(7, d_x=None)).splitlines()
    assert said[:2] == ["7 steps, 1 to 7. The last 5:", ""]
    assert said[2].split() == ["step", "epoch", "loss_d", "loss_g", "d_x", "d_g_z1", "d_g_z2"]
    assert [line.split()[0] for line in said[3:]] == ["3", "4", "5", "6", "7"]
    assert said[-1].split() == ["7", "2", "3.5000", "1.7500", "-", "0.2500", "0.1250"]
    assert str(metrics(1)).startswith("1 step, 1.\n")
    assert "The last" not in str(metrics(5))
    assert printed(metrics(2)) == str(metrics(2))
    assert repr(metrics(7)) == "<Metrics of 7 steps, 1 to 7>"


def test_metrics_without_lines_are_a_sentence():
    empty = Metrics()
    assert str(empty) == "The log has no steps."
    assert empty._repr_png_() is None
    assert list(empty) == []


def test_metrics_are_shown_as_the_curves_of_their_file(tmp_path):
    found = metrics(9, loss_d=None)
    pictures.save_losses(list(found), tmp_path / "losses.png")
    assert found._repr_png_() == (tmp_path / "losses.png").read_bytes()


# -- vital signs -----------------------------------------------------------------------------------------


def vitals(**signs):
    """Measured steps, such as s100=("collapse",): the step, and the signs that were found at it."""
    lines = []
    for name, names in signs.items():
        step = int(name[1:])
        found = [diagnosis.finding(sign, step, f"{sign} at {step}").to_json() for sign in names]
        lines.append(VitalsLine.from_json(vital_signs(step, found)))
    return Vitals(lines)


COMES_AND_GOES = {
    "s1": (), "s100": ("generator-wins",), "s200": ("collapse", "generator-wins"), "s300": ("collapse",),
    "s400": ("generator-wins",),
}  # fmt: skip


def episode(sign, first, last):
    return Episode(sign, first, last, f"At step {last} {sign} at {last}.", diagnosis.REMEDIES[sign])


def test_vitals_are_a_sequence_whose_findings_begin_and_end():
    found = vitals(**COMES_AND_GOES)
    assert [line.step for line in found] == [1, 100, 200, 300, 400]
    assert isinstance(found[1:], Vitals)
    assert found[-1].findings[0].sign == "generator-wins"
    assert found.findings == (
        episode("generator-wins", 100, 200),
        episode("collapse", 200, 300),
        episode("generator-wins", 400, 400),
    )
    assert found[2:4].findings == (
        episode("collapse", 200, 300),
        episode("generator-wins", 200, 200),
    )
    assert found[:1].findings == Vitals().findings == ()


def test_vitals_as_text_name_the_findings_and_their_remedies():
    found = vitals(**COMES_AND_GOES)
    first, *items = str(found).split("\n- ")
    assert first == "5 measured steps, 1 to 400: 3 findings."
    items = [" ".join(item.split()) for item in items]
    remedies = diagnosis.REMEDIES
    assert items == [
        "generator-wins, steps 100 to 200: At step 200 generator-wins at 200. " + remedies["generator-wins"],
        "collapse, steps 200 to 300: At step 300 collapse at 300. " + remedies["collapse"],
        "generator-wins, step 400 (the last one measured): At step 400 generator-wins at 400. "
        + remedies["generator-wins"],
    ]
    assert max(map(len, str(found).splitlines())) <= 100
    assert str(found[:1]) == "1 measured step, 1: no sign of trouble."
    assert str(found[:2]).startswith("2 measured steps, 1 to 100: 1 finding.\n")
    assert printed(found) == str(found)
    assert repr(found) == "<Vitals of 5 measured steps, 1 to 400>"


def test_few_vitals_have_no_picture():
    one = vitals(s1=())
    assert one._repr_png_() is None
    assert Vitals()._repr_png_() is None
    assert str(Vitals()) == "The log has no measured steps."


def test_vitals_are_shown_as_the_curves_of_their_file(tmp_path, monkeypatch):
    """The curves themselves take seconds, and other tests draw them: the steps stand in their place."""

    def draw_steps(figure, lines):
        figure.text(0, 0, str([line.step for line in lines]))

    monkeypatch.setattr(picture, "_draw_in", draw_steps)
    found = vitals(s1=(), s100=("collapse",))
    picture.save(list(found), tmp_path / "vitals.png")
    assert found._repr_png_() == (tmp_path / "vitals.png").read_bytes()
    assert vitals(s1=(), s200=("collapse",))._repr_png_() != found._repr_png_()


def test_the_examples_of_the_docstrings_hold():
    result = doctest.testmod(logs)
    assert result.attempted >= 4
    assert result.failed == 0
