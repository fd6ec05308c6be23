"""The report of a run: one whole page that says what the files say, and what it does without them."""

import base64
import hashlib
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import reported
from PIL import Image

import minigrad as mg
from dcgan import console, markup, models, presets
from dcgan.errors import UserError
from dcgan.report import charts, findings, heatmaps, looking, networks, samples
from dcgan.report import page as whole
from dcgan.report.__main__ import main
from dcgan.report.drawing import Data
from dcgan.report.reading import Reading, read
from dcgan.run import checkpoint
from dcgan.run.checkpoint import Checkpoint
from dcgan.run.directory import RunDirectory
from dcgan.run.trained import load_discriminator, load_generator
from minigrad import nn

VOID = {"img", "input", "link", "meta"}


class Page(HTMLParser):
    """A page that must close every element that it opens.

    Attributes:
        elements: (name, attributes) of each; texts: by the name of the element that they stand in.
    """

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self):
        return " ".join(
            " ".join(part) for name, part in self.texts.items() if name not in ("script", "style")
        )

    @property
    def data(self):
        return json.loads(self.texts["script"][0])


def numbers(page, index):
    """An array of the page, by NumPy."""
    array = page.data["arrays"][index]
    kind = {"int32": "<i4", "float32": "<f4"}[array["kind"]]
    return np.frombuffer(base64.b64decode(array["base64"]), kind)


def lines_of(page, title):
    """{name: (steps, values)} of a chart."""
    (chart,) = (c for c in page.data["charts"] if c["title"] == title)
    return {
        one["name"]: (numbers(page, one["steps"]), numbers(page, one["values"])) for one in chart["lines"]
    }


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "run"
    images = reported.train_small(directory)
    return directory, images


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(trained[0], tmp_path / "run")


def report(run):
    """The page of a run, by the command."""
    assert main([str(run)]) == 0
    return Page((run / "report.html").read_text())


def page_of(run):
    """The same page, unwritten: a disk may be slow."""
    return Page(whole.page(read(run, None)))


# -- the page --------------------------------------------------------------------------------------


def test_the_page_is_whole_and_has_every_section(run, capsys):
    page = report(run)
    path = run / "report.html"
    assert f"{path}: quick after step 3, {path.stat().st_size / 1e6:.1f} MB" in capsys.readouterr().out
    wanted = [
        "findings",
        "samples",
        "curves",
        "real-and-generated",
        "evaluation",
        "layers",
        "recipe",
        "ledger",
    ]
    assert [s["id"] for s in page.all("section")] == [*wanted, "machine", "going-on"]
    assert [a["href"] for a in page.all("a")] == [f"#{s['id']}" for s in page.all("section")]
    assert page.texts["title"] == ["quick, step 3: run"]
    assert {str(run), "3 of 3", "mnist", "1"} <= set(page.texts["dd"])


def test_the_page_forbids_to_fetch_and_allows_its_own_style_and_script_alone(run):
    page = report(run)
    html = (run / "report.html").read_text()
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
    sources = [a[key] for _, a in page.elements for key in ("src", "srcset", "data", "action") if key in a]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)
    assert "url(" not in style
    assert "import" not in style


def test_equal_runs_make_equal_pages_and_nothing_else_changes(run):
    def files():
        return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "report.html"}

    before = files()
    report(run)
    first = (run / "report.html").read_bytes()
    report(run)
    assert (run / "report.html").read_bytes() == first
    assert files() == before


def test_out_names_another_file(run, tmp_path):
    assert main([str(run), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").read_text().startswith("<!doctype html>")
    assert not (run / "report.html").exists()


def test_attributes_are_escaped_too():
    evil = '" onload="alert(1)\' <b>'
    made = markup.tag("img", alt=evil, aria_label=None, hidden=True, data_chart=0)
    (image,) = Page(made).all("img")
    assert image == {"alt": evil, "hidden": None, "data-chart": "0"}
    assert markup.tag("p", "<b>", markup.tag("i", "&")) == "<p>&lt;b&gt;<i>&amp;</i></p>"


def test_what_files_say_is_text_and_never_html(trained, tmp_path):
    name = "<img src=x onerror=alert(1)> & \"'"
    run = shutil.copytree(trained[0], tmp_path / name)
    evil = "</script><script>alert(2)</script><!--"
    finding = {"sign": evil, "sentence": f"so {evil}", "remedy": evil}
    line = reported.vital_signs(3, [finding])
    line["layers"][0]["name"] = evil
    reported.write_lines(run / "vitals.jsonl", [line])
    config = json.loads((run / "config.json").read_text())
    config["machine"], config["versions"], config["data"] = evil, {evil: evil}, "\u202edesrever\x1b[2J"
    (run / "config.json").write_text(json.dumps(config))
    page = page_of(run)
    assert [s.get("type") for s in page.all("script")] == ["application/json", None]
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert f"so {evil}" in page.text
    assert name in page.text
    assert "\\u202edesrever\\x1b[2J" in page.text
    assert list(lines_of(page, "Gradient norms, generator")) == [f"{evil} Dense"]


@pytest.mark.parametrize(
    ("value", "said"),
    [([0, 1], ", 0 to 1 as black and white"), ([-1.0, 4095.5], ", -1 to 4095.5 as black and white"),
     (None, ""), ([1, 0], ""), (["<b>", 1], ""), ([0, 10**400], ""), ([0], ""), ("01", ""), ({}, ""),
     ([False, True], "")],
)  # fmt: skip
def test_the_range_of_the_data_is_said_if_it_is_one(run, value, said):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": "/x/d.npy", "range": value}))
    facts = page_of(run).texts["dd"]
    assert f"/x/d.npy{said}" in facts


# -- numbers ---------------------------------------------------------------------------------------


def test_the_curves_are_the_numbers_of_the_files(run):
    reported.write_lines(run / "vitals.jsonl", [reported.vital_signs(step) for step in (1, 3)])
    page, metrics = page_of(run), jsonl(run / "metrics.jsonl")
    drawn = {**lines_of(page, "Losses"), **lines_of(page, "D(x) and D(G(z))")}
    names = {"D": "loss_d", "G": "loss_g", "D(x), real": "d_x",
             "D(G(z)), fake, in the step's first half": "d_g_z1",
             "D(G(z)), fake, in its second half": "d_g_z2"}  # fmt: skip
    assert drawn.keys() == names.keys()
    for name, key in names.items():
        steps, values = drawn[name]
        assert steps.tolist() == [1, 2, 3]
        assert values.tolist() == [line[key] for line in metrics]
    speed = jsonl(run / "timing.jsonl")
    steps, values = lines_of(page, "Images per second")["images per second"]
    assert steps.tolist() == [line["step"] for line in speed]
    np.testing.assert_array_equal(values, np.float32([line["images_per_second"] for line in speed]))


def test_vital_signs_are_drawn_by_layer(run):
    reported.write_lines(run / "vitals.jsonl", [reported.vital_signs(step) for step in (1, 2, 4)])
    page = page_of(run)
    found = {c["title"]: {n: (s.tolist(), v.tolist()) for n, (s, v) in lines_of(page, c["title"]).items()}
             for c in page.data["charts"]}  # fmt: skip
    at = [1, 2, 4]
    for title in ("Gradient norms", "Update ratios"):
        assert found[f"{title}, generator"] == {"0 Dense": (at, [0.5, 0.25, 0.125])}
        assert found[f"{title}, discriminator"] == {"0 Conv2d": (at, [0.125, 0.0625, 0.03125])}
    assert found["Dead units, generator"] == {"2 LeakyReLU": (at, [0.25] * 3)}
    assert found["Dead units, discriminator"] == {"1 LeakyReLU": (at, [0.75] * 3)}
    assert found["Spread"] == {"spread": (at, [0.25, 0.5, 1.0])}
    assert found["BatchNorm gap, discriminator"] == {"3": (at, [0.5] * 3)}
    assert not any(title.startswith("Saturation") for title in found)  # all null
    assert {c["title"]: c["log"] for c in page.data["charts"]}["Gradient norms, generator"]
    assert "No vital signs" not in page.text


def test_null_and_what_is_no_number_leave_a_gap():
    lines = [{"step": 1, "x": None}, {"step": 2, "x": 10**400}, {"step": 3, "x": "1"}, {"step": 5, "x": True}]
    drawn = charts.line("x", [*lines, {"step": 7, "x": 2}, {"step": 8}], "x")
    assert drawn.steps.tolist() == [1, 2, 3, 5, 7]
    np.testing.assert_array_equal(drawn.values, [np.nan, np.nan, np.nan, np.nan, 2.0])


def test_thinning_keeps_every_spike_and_every_gap():
    values = np.sin(np.arange(10_000) / 50)
    values[[1234, 8765]] = 40.0, -30.0
    values[4000:4400] = np.nan
    values[[0, -1]] = 0.01, -0.02  # nothing that would be kept for its size
    steps, kept = charts.thinned(np.arange(10_000) + 1, values, 500)
    assert len(steps) <= 500
    assert len(steps) > 300
    assert (np.diff(steps) > 0).all()
    assert (steps[0], steps[-1]) == (1, 10_000)
    np.testing.assert_array_equal(kept, values[steps - 1])
    assert kept[steps == 1235] == 40.0
    assert kept[steps == 8766] == -30.0
    assert np.isnan(kept).sum() > 5
    for place in range(0, 10_000, 31):  # near each point there are kept ones as high and as low
        near = kept[np.abs(steps - 1 - place) < 2 * 10_000 / 498]
        if np.isfinite(values[place]):
            assert np.nanmax(near) >= values[place]
            assert np.nanmin(near) <= values[place]


def test_short_lines_are_not_thinned_and_long_ones_say_so(run, monkeypatch):
    steps, values = charts.thinned(np.arange(5), np.arange(5.0), 5)
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values.tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(charts, "MAX_POINTS", 1000)
    long = [{"step": step, "epoch": 1, "loss_d": step % 7} for step in range(1, 1011)]
    reported.write_lines(run / "metrics.jsonl", long)
    reading = read(run, None)
    charted = charts.of_metrics(reading.metrics, [])[0].lines[0]
    assert charted.thinned == 1010
    assert len(charted.steps) <= 1000
    assert "the longest has 1,010" in charts.curves(reading, Data())


# -- pictures --------------------------------------------------------------------------------------


def test_the_slider_has_every_frame_as_the_file_is(run):
    page = page_of(run)
    expected = [
        {"step": step, "src": f"data:image/png;base64,{base64.b64encode(content).decode()}"}
        for step in range(4)
        for content in [(run / "frames" / f"{step:08d}.png").read_bytes()]
    ]
    assert page.data["frames"] == expected
    (slider,) = (i for i in page.all("input") if i["type"] == "range")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "3", "3")
    (shown,) = (i for i in page.all("img") if i.get("id") == "frame-picture")
    assert shown["src"] == expected[-1]["src"]


def test_frames_are_left_out_evenly_where_they_are_too_many(run, monkeypatch):
    assert samples.evenly([10] * 9, 90) == list(range(9))
    assert samples.evenly([10] * 9, 50) == [0, 2, 4, 6, 8]
    assert samples.evenly([10] * 9, 5) == [8]
    assert samples.evenly([], 5) == []
    size = sum((run / "frames" / f"{step:08d}.png").stat().st_size for step in (0, 3))
    monkeypatch.setattr(samples, "MAX_FRAME_BYTES", size)
    page = page_of(run)
    assert [frame["step"] for frame in page.data["frames"]] == [0, 3]
    assert "2 of 4 frames are left out" in page.text


def test_a_damaged_frame_is_told_and_left_out(run):
    (run / "frames" / "00000002.png").write_bytes(b"<svg onload=alert(1)>")
    page = page_of(run)
    assert [frame["step"] for frame in page.data["frames"]] == [0, 1, 3]
    assert "00000002.png can't be shown" in page.text


def test_colours_are_blue_below_white_at_and_red_above_zero():
    values = np.array([[-2.0, -1.0, -0.5, 0.0], [0.5, 1.0, np.nan, np.inf]])
    assert heatmaps.indices(values, 1.0).tolist() == [[0, 0, 64, 127], [190, 254, 255, 254]]
    with Image.open(io.BytesIO(heatmaps.heatmap(values, 1.0))) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(int)
    assert pixels[0, 3].tolist() == [246, 246, 246, 255]
    assert pixels[0, 0].tolist() == [16, 52, 140, 255]
    assert pixels[1, 1].tolist() == [150, 20, 36, 255]
    assert pixels[1, 2, 3] == 0  # transparent
    assert pixels[0, 2, 2] > pixels[0, 2, 0] + 50
    assert pixels[1, 0, 0] > pixels[1, 0, 2] + 50


def test_maps_lie_row_by_row_with_a_gap():
    maps = np.arange(1, 7, dtype=float).reshape(3, 1, 2)
    gap = np.nan
    np.testing.assert_array_equal(
        heatmaps.tiled(maps, 2), [[1, 2, gap, 3, 4], [gap] * 5, [5, 6, gap, gap, gap]]
    )
    np.testing.assert_array_equal(heatmaps.strip(np.arange(5.0), 3), [[0, 1, 2], [3, 4, gap]])
    assert heatmaps.limit_of(np.array([-3.0, 1.0]), np.array([np.nan])) == pytest.approx(2.99)
    assert heatmaps.limit_of(np.zeros(3)) == 1.0
    assert heatmaps.limit_of(np.r_[np.zeros(999), 5.0]) == 5.0


# -- the layers at work ----------------------------------------------------------------------------


def last_tile(run):
    """The first image of the run's last frame, bytes (28, 28)."""
    with Image.open(run / "frames" / f"{reported.STEPS:08d}.png") as frame:
        return np.asarray(frame)[2:30, 2:30]


def test_the_last_layer_of_g_makes_the_first_picture_of_the_last_frame(trained):
    run, _ = trained
    state = checkpoint.load(run)
    looks = looking.look_at_generator(load_generator(state), state.preset, looking.fixed_z(state))
    assert [one.name for one in looks] == [str(i) for i in range(8)]
    pixels = np.rint((looks[-1].made[0, 0].astype(np.float64) + 1) * 127.5)
    assert np.abs(pixels - last_tile(run)).max() <= 1  # eval of one alone rounds otherwise than of six


def test_each_layer_is_given_what_the_one_before_it_made(trained):
    state = checkpoint.load(trained[0])
    images = np.random.default_rng(1).uniform(-1, 1, (2, 1, 28, 28)).astype(np.float32)
    discriminator = load_discriminator(state)
    looks = looking.look_at_discriminator(discriminator, images)
    assert not any(hook for _, m in discriminator.named_modules() for hook in m.forward_hooks)
    np.testing.assert_array_equal(looks[0].given, images)
    for before, after in itertools.pairwise(looks):
        np.testing.assert_array_equal(after.given, before.made)
    leaky = looks[1]
    np.testing.assert_allclose(
        leaky.made, np.where(leaky.given > 0, leaky.given, 0.2 * leaky.given), rtol=1e-6
    )
    weight, bias = (state.tensors[f"discriminator.0.{name}"].astype(float) for name in ("weight", "bias"))
    corner = (np.pad(images[1], ((0, 0), (1, 1), (1, 1)))[:, 2:6, 4:8] * weight[3]).sum() + bias[3]
    assert looks[0].made[1, 3, 1, 2] == pytest.approx(corner, abs=1e-5)
    likely = looking.words(state.preset, looks)
    assert likely == pytest.approx((1 / (1 + np.exp(-looks[-1].made.ravel().astype(float)))).tolist())


def test_statistics_of_the_batch_are_those_of_all_noise_and_leave_the_running_ones(trained):
    state = checkpoint.load(trained[0])
    generator = load_generator(state)
    before = {k: v.numpy() for k, v in generator.state_dict().items()}
    preset = state.preset.replaced({"statistics": "batch"})
    looks = looking.look_at_generator(generator, preset, looking.fixed_z(state))
    z = looking.fixed_z(state).numpy().astype(float)
    made = z @ state.tensors["generator_ema.0.weight"].astype(float).T
    normal = (made - made.mean(0)) / np.sqrt(made.var(0) + 1e-5)
    expected = normal * state.tensors["generator_ema.1.weight"] + state.tensors["generator_ema.1.bias"]
    np.testing.assert_allclose(looks[1].made, expected[:1], atol=1e-4)
    assert all(np.array_equal(before[k], v.numpy()) for k, v in generator.state_dict().items())


def test_the_real_picture_is_the_first_that_it_was_trained_on(trained):
    run, images = trained
    state = checkpoint.load(run)
    with Image.open(run / "training_images.png") as picture:
        grid = np.atleast_3d(np.asarray(picture))
    real = looking.first_real(state.preset, grid)
    assert real.shape == (1, 1, 28, 28)
    pixels = np.rint((real[0, 0] + 1) * 127.5)
    assert sum(np.array_equal(pixels, image) for image in images) == 1
    with pytest.raises(ValueError, match="a grid of"):
        looking.first_real(state.preset, grid[:-1])


def test_weights_of_a_dense_are_pictures_where_one_side_is_one():
    def looks_of(*layers):
        x = mg.tensor(np.zeros((2, 1, 4, 4), np.float32))
        return looking.look(nn.Sequential(*layers).eval(), x, 1)

    found = looks_of(nn.Flatten(), nn.Dense(16, 18), nn.ReLU(), nn.Reshape(2, 3, 3))
    assert networks._shape_before(found, 1) == (1, 4, 4)
    assert networks._shape_after(found, 1) == (2, 3, 3)
    chain = looks_of(nn.Flatten(), nn.Dense(16, 18), nn.Dense(18, 18), nn.Reshape(2, 3, 3))
    assert networks._shape_after(chain, 1) is None
    assert networks._shape_before(chain, 2) is None


def shown_numbers(figure, limit):
    """The numbers of a picture by its colours, to half a colour, with NaN for the gaps; and its caption."""
    page = Page(figure)
    (image,) = page.all("img")
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
        colours = np.asarray(picture).astype(float)
    return np.where(colours == 255, np.nan, (colours - 127) / 127 * limit), page.text


def test_filters_lie_by_their_channels_the_fewer_down():
    rng = np.random.default_rng(2)
    weight = rng.uniform(-1, 1, (20, 3, 2, 2))
    limit = heatmaps.limit_of(weight)
    shown, said = shown_numbers(networks._kernels(weight, "filters", "output", "input"), limit)
    assert "3 inputs down, 20 outputs across" in said
    assert shown.shape == (3 * 3 - 1, 20 * 3 - 1)
    clipped = np.clip(weight, -limit, limit)
    for i, o in ((0, 0), (2, 5), (1, 19)):
        np.testing.assert_allclose(
            shown[3 * i : 3 * i + 2, 3 * o : 3 * o + 2], clipped[o, i], atol=limit / 250
        )
    one, said = shown_numbers(networks._kernels(weight[:5, :1], "filters", "output", "input"), 1.0)
    assert "5 outputs" in said
    assert one.shape == (5, 8)  # in three columns


def test_weights_of_a_dense_show_what_they_make_and_what_they_see():
    rng = np.random.default_rng(3)
    first, second = nn.Dense(9, 5, bias=False), nn.Dense(5, 8, bias=False)
    x = mg.tensor(rng.uniform(-1, 1, (1, 1, 3, 3)).astype(np.float32))
    model = nn.Sequential(nn.Flatten(), first, second, nn.Reshape(2, 2, 2))
    looks = looking.look(model, x, 1)
    sees, makes = first.weight.numpy(), second.weight.numpy()
    limit = heatmaps.limit_of(sees)
    shown, _ = shown_numbers(networks._weights(looks, 1)[0], limit)
    np.testing.assert_allclose(
        shown[4:7, 4:7], np.clip(sees[4].reshape(3, 3), -limit, limit), atol=limit / 250
    )  # the fifth of five, in three columns
    limit = heatmaps.limit_of(makes)
    shown, said = shown_numbers(networks._weights(looks, 2)[0], limit)
    assert "2 output channels down, 5 inputs across" in said
    expected = np.clip(makes[4:8, 3].reshape(2, 2), -limit, limit)  # what input 3 adds to channel 1
    np.testing.assert_allclose(shown[3:5, 9:11], expected, atol=limit / 250)


SMALL = {"grid_rows": 1, "grid_columns": 2}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("tensorflow-baseline", {}),
        ("tensorflow", {}),
        ("flux", {}),
        ("flux-draft", {}),
        ("quick", {}),
        ("flowers", {"nz": 4, "ngf": 2, "ndf": 2}),
        ("pytorch", {"nz": 4, "ngf": 2, "ndf": 2, "image_size": 16, "channels": 4}),
    ],
)
def test_every_recipe_has_a_card_for_each_layer(name, overrides, tmp_path):
    preset = presets.get(name, **SMALL, **overrides)
    generator, discriminator = models.build(preset)
    named = {"generator": generator, "generator_ema": generator, "discriminator": discriminator}
    tensors = {
        f"{name}.{k}": v.numpy() for name, module in named.items() for k, v in module.state_dict().items()
    }
    state = Checkpoint(preset, {"step": 0, "epoch": 1}, tensors)
    reading = Reading(tmp_path, tmp_path, None, preset, {}, state, "", [], [], [], [], [])
    page = Page(networks.networks(reading))
    assert len(page.all("article")) == len(preset.generator) + len(preset.discriminator)
    weighted = [spec for spec in (*preset.generator, *preset.discriminator) if hasattr(spec, "init")]
    pictures = len(page.all("article")) + len(weighted) + 2  # each output, each weight, the picture twice
    assert len(page.all("img")) == pictures
    assert "training_images.png can't be shown" in page.text or "mnist_data.png can't be shown" in page.text


def test_the_weights_are_those_that_are_asked_for(run):
    average, last = (Page(networks.networks(read(run, weights))) for weights in (None, "last"))
    assert 'with the weights "ema"' in average.text
    assert 'with the weights "last"' in last.text
    assert average.all("img")[0]["src"] != last.all("img")[0]["src"]


# -- words -----------------------------------------------------------------------------------------


def test_findings_are_told_once_with_their_steps(run):
    def found(sign, sentence):
        return {"sign": sign, "sentence": sentence, "remedy": "Do something."}

    reported.write_lines(run / "vitals.jsonl", [
        reported.vital_signs(1, [found("collapse", "All alike at 1.")]),
        reported.vital_signs(2, [found("collapse", "All alike at 2."), found("saturated", "Full.")]),
        reported.vital_signs(3, [found("saturated", "Full still.")]),
    ])  # fmt: skip
    page = Page(findings.findings(read(run, None)))
    assert page.texts["strong"] == ["All alike at 2.", "Full still."]
    assert [text for text in page.texts["div"] if ":" in text] == [
        "collapse: steps 1 to 2, at 2 of 3 measurements, and no more at the last one",
        "saturated: steps 2 to 3, at 2 of 3 measurements, and at the last one",
    ]


def test_nothing_found_and_nothing_measured_differ(run):
    (run / "vitals.jsonl").unlink()
    assert "Not known" in findings.findings(read(run, None))
    reported.write_lines(run / "vitals.jsonl", [reported.vital_signs(1), reported.vital_signs(3)])
    assert "Nothing found: 2 measurements, the last at step 3" in findings.findings(read(run, None))


def test_the_first_heading_fits_what_was_found(run):
    def heading():
        return Page(findings.findings(read(run, None))).texts["h2"]

    (run / "vitals.jsonl").unlink()
    assert heading() == ["Findings"]
    reported.write_lines(run / "vitals.jsonl", [reported.vital_signs(1)])
    assert heading() == ["Findings"]
    found = {"sign": "collapse", "sentence": "All alike.", "remedy": "Start again."}
    reported.write_lines(run / "vitals.jsonl", [reported.vital_signs(1, [found])])
    assert heading() == ["What went wrong"]


def test_curves_that_there_are_no_numbers_of_are_named(run):
    line = reported.vital_signs(1)
    for layer in line["layers"]:
        layer["dead"] = None
    reported.write_lines(run / "vitals.jsonl", [line])
    page = Page(charts.curves(read(run, None), Data()))
    (said,) = [text for text in page.texts["p"] if text.startswith("Not drawn, for want of numbers: ")]
    assert "Dead units, generator; Dead units, discriminator" in said
    assert said.endswith("Dead units are counted of a ReLU, saturated outputs of a Tanh or a Sigmoid.")
    (run / "vitals.jsonl").unlink()
    assert "Not drawn" not in charts.curves(
        read(run, None), Data()
    )  # that none were measured is said already


def test_a_missing_folder_is_made_for_the_page(run, tmp_path):
    assert main([str(run), "--out", str(tmp_path / "new" / "er" / "page.html")]) == 0
    assert (tmp_path / "new" / "er" / "page.html").stat().st_size > 1000


def test_a_divergence_is_found_in_the_losses(run):
    lines = jsonl(run / "metrics.jsonl")
    lines[2]["loss_g"] = lines[2]["d_x"] = None
    reported.write_lines(run / "metrics.jsonl", lines)
    assert "At step 3 loss_g and d_x are not finite." in findings.findings(read(run, None))


def test_a_divergence_is_told_once_and_in_the_head(run):
    lines = jsonl(run / "metrics.jsonl")
    lines[2]["loss_g"] = None
    reported.write_lines(run / "metrics.jsonl", lines)
    found = {"sign": "not-finite", "sentence": "At step 3 it comes up in D.", "remedy": "Go slower."}
    reported.write_lines(run / "vitals.jsonl", [{**reported.vital_signs(3), "findings": [found]}])
    page = page_of(run)
    assert "At step 3 it comes up in D." in page.text
    assert "loss_g is not finite" not in page.text
    assert any("diverged at step 3" in text for text in page.texts["dd"])
    assert "not at its end yet" not in page.text


def test_lines_that_are_added_while_it_reads_are_no_damage(run, monkeypatch):
    right, more = RunDirectory.lines, jsonl(run / "metrics.jsonl")[-1]

    def meanwhile(self, name):
        if name == "metrics.jsonl":
            self.append(name, [{**more, "step": more["step"] + 1}])
        found = right(self, name)
        if name == "metrics.jsonl":
            self.append(name, [{**more, "step": more["step"] + 2}])
        return found

    monkeypatch.setattr(RunDirectory, "lines", meanwhile)
    assert read(run, None).notes == []


def test_the_evaluations_are_in_the_table_and_the_best_is_marked(run):
    floor = {"frechet": 2.0, "score": 9.5}
    lines = [
        {"step": s, "frechet": f, "kernel": 0.5, "score": 1.5, "precision": 0.25, "recall": None,
         "shares": [0.125, 0.875], "floor": floor} for s, f in ((1, 30.0), (2, 10.0), (3, 20.0))
    ]  # fmt: skip
    reported.write_lines(run / "evaluations.jsonl", lines)
    measured = {"samples": {"frechet": 12.345, "shares": [0.5, 0.5]}, "floor": floor, "step": 3,
                "count": 100, "weights": "ema", "statistics": "running", "about": "<others>",
                "features": "a judge"}  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps(measured))
    page = page_of(run)
    assert {"1", "2 (best)", "3", "30.00", "10.00", "500.000", "0.250", "12.5", "12.35", "2.00"} <= {
        text for name in ("td", "th") for text in page.texts[name]
    }
    assert "recall" not in page.texts["th"]
    assert "100 samples (ema weights, running statistics) against <others>, by a judge." in page.text
    steps, values = lines_of(page, "Fréchet distance")["samples"]
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [30, 10, 20])
    assert lines_of(page, "Fréchet distance")["real images"][1].tolist() == [2, 2, 2]


def test_the_recipe_marks_what_was_replaced_and_the_step_is_explained(run):
    page = page_of(run)
    assert {"8 (else 64)", "3 (else 0)", "5 (else 16)"} <= set(page.texts["mark"])
    assert "Replaced for this run: generator, discriminator, z_shape, batch_size, epochs, steps" in page.text
    assert "One step of quick." in page.texts["pre"][0]
    assert "Conv2d(1, 4)" in page.text
    config = json.loads((run / "config.json").read_text())
    assert {config["machine"], config["versions"]["numpy"], "cpu", config["kernels"]} <= set(page.texts["td"])
    commands = page.texts["code"]
    assert f"dcgan train --resume {run}" in commands
    assert f"dcgan sample {run} --out more.png --grid 8x8 --seed 1" in commands


# -- what is not there -----------------------------------------------------------------------------


def test_a_run_that_has_only_begun_says_what_is_missing(run):
    for path in run.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = page_of(run)
    for said in (
        "no step is done", "There are no frames", "There are no numbers yet",
        "training_images.png can't be shown", "Nothing was measured", "There is no checkpoint yet",
        "0 of 3, not at its end yet",
    ):  # fmt: skip
        assert said in page.text


def test_a_run_that_still_writes_and_one_that_is_damaged_are_read_as_far_as_they_go(run):
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole[:-20])  # a line that is being written
    page = page_of(run)
    assert lines_of(page, "Losses")["D"][0].tolist() == [1, 2]
    assert "damaged" not in page.text
    first, second, third = whole.splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(first + "{]\n" + second + third)
    (run / checkpoint.FILE_NAME).write_bytes(b"nothing")
    page = page_of(run)
    assert lines_of(page, "Losses")["D"][0].tolist() == [1, 2, 3]
    assert "metrics.jsonl: 1 damaged or repeated lines are left out." in page.text
    assert "The checkpoint can't be used" in page.text


def test_weights_that_are_not_finite_are_told(run):
    state = checkpoint.load(run)
    state.tensors["generator_ema.0.weight"][0, 0] = np.nan
    checkpoint.save(run / checkpoint.FILE_NAME, state.preset, state.position, {"": state.tensors})
    assert "hold numbers that are not finite" in page_of(run).text


def test_a_recipe_that_does_not_fit_together_is_told(run):
    config = json.loads((run / "config.json").read_text())
    del config["preset"]["generator"][0]
    (run / "config.json").write_text(json.dumps(config))
    assert "The recipe does not fit together" in page_of(run).text


@pytest.mark.parametrize(
    "vitals",
    [
        [{"step": 1, "layers": 3, "findings": {"a": 1}}],
        [{"step": 1, "layers": [7]}],
        [{"step": -5}],
        [{"step": 2, "batch_norm_gap": [{"gap": "x"}]}],
    ],
)
def test_odd_vital_signs_are_no_harm(run, vitals):
    reported.write_lines(run / "vitals.jsonl", vitals)
    reading = read(run, None)
    assert findings.findings(reading)
    assert all(not any(map(charts.has_numbers, chart.lines)) for chart in charts.of_vitals(reading.vitals))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/none",), "none: expected a run's directory or its checkpoint file"),
        (("{tmp}",), "no config.json and no checkpoint: expected the directory of a run"),
        (("{run}/metrics.jsonl",), "metrics.jsonl.*can't be read|not a checkpoint|safetensors"),
        (("{run}", "--out", "{tmp}/page.png"), "expected a name that ends in .html"),
        (("{run}", "--out", "{run}/config.json/page.html"), "--out .*the folder .*config.json can't be made"),
        (("{run}", "--weights", "best"), "--weights best: there is no"),
    ],
)
def test_a_mistake_is_told_with_exit_code_2(run, tmp_path, capsys, monkeypatch, arguments, message):
    given = [text.format(tmp=tmp_path, run=run) for text in arguments]
    with pytest.raises(UserError, match=message):
        main(given)
    monkeypatch.setattr("sys.argv", ["dcgan.report", *given])
    with pytest.raises(SystemExit) as left:
        console.run_command(main, "dcgan report")
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("dcgan report: ")
    assert not (run / "report.html").exists()


def test_weights_that_a_checkpoint_has_not_are_told(run):
    state = checkpoint.load(run)
    kept = {k: v for k, v in state.tensors.items() if not k.startswith("generator_ema")}
    checkpoint.save(run / checkpoint.FILE_NAME, state.preset, state.position, {"": kept})
    with pytest.raises(UserError, match="--weights ema: this checkpoint has none"):
        main([str(run), "--weights", "ema"])
