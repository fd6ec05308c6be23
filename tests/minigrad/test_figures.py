"""Figures are the same under any settings of matplotlib that a user may have, and leave those as they are."""

import os
import subprocess
import sys
from pathlib import Path

import drawing
import matplotlib
import numpy as np
import pytest
from drawing import DARK, SETTINGS, draw
from PIL import Image

from minigrad import nn, serialize
from minigrad.figures import saved_figure
from minigrad.inspect import geometry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder in which every process of `drawing` has one."""
    folder = tmp_path_factory.mktemp("drawn")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MPL")}
    subprocess.run(
        [sys.executable, "-W", "error", drawing.__file__, folder],
        env={**variables, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    return folder


def test_a_figure_is_the_same_under_any_settings(drawn):
    files = {name: (drawn / name / "figure.png").read_bytes() for name in SETTINGS}
    assert [name for name, content in files.items() if content != files["default"]] == []


def test_a_session_has_the_settings_that_an_import_of_its_own_gives_it(drawn):
    ours, theirs = (drawn / name / "settings" for name in ("dark", drawing.IMPORTED))
    assert "lines.linewidth: 9.0" in ours.read_text()
    assert "backend: svg" in ours.read_text()
    assert ours.read_text() == theirs.read_text()


def test_a_figure_is_what_matplotlib_draws_with_its_default_style(tmp_path):
    from matplotlib.figure import Figure

    def fill(figure):
        figure.subplots().plot([1, 3, 2])

    figure = Figure((4, 3), layout="constrained")
    fill(figure)
    figure.savefig(tmp_path / "theirs.png", dpi=90)
    with saved_figure(tmp_path / "ours.png", (4, 3), dpi=90) as figure:
        fill(figure)
    with Image.open(tmp_path / "ours.png") as ours, Image.open(tmp_path / "theirs.png") as theirs:
        assert ours.size == (360, 270)
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        assert "Software" not in ours.info


def settings():
    """All of matplotlib's, without looking for a backend, if none is chosen yet."""
    return dict(dict.items(matplotlib.rcParams))


def default_settings():
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg"})


@pytest.fixture
def dark():
    """Settings of a user's in this process, which keep a figure from being drawn."""
    with matplotlib.rc_context(DARK):
        yield settings()


def test_settings_of_the_process_have_no_effect_and_stay(tmp_path, dark):
    draw(tmp_path / "a.png")
    assert settings() == dark
    with default_settings():
        draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_settings_stay_if_several_threads_draw_at_once(tmp_path, dark, at_once):
    at_once(lambda number: draw(tmp_path / f"{number}.png"), 2)
    assert settings() == dark
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 1


def test_a_drawing_that_fails_writes_nothing_and_settings_stay(tmp_path, dark):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), saved_figure(tmp_path / "a.png", (4, 3)):
        _ = 1 / 0
    assert settings() == dark
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_a_figure_is_written_whole(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(serialize.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        draw(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.svg", "a", "png"])
def test_another_format_is_told_before_anything_is_drawn(tmp_path, name):
    with (
        pytest.raises(ValueError, match=rf"expected a path that ends in \.png, got .*{name}'"),
        saved_figure(tmp_path / name, (4, 3)),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_a_convolution_is_the_same_under_any_settings(tmp_path, dark):
    found = geometry(nn.ConvTranspose2d(1, 1, 3, 2), (4, 4))
    found.save(tmp_path / "a.png")
    with default_settings():
        found.save(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
