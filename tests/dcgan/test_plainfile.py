"""Links and special files in a run that somebody else may have made are not followed."""

import base64
import json
import os
from types import SimpleNamespace

import fuzz
import numpy as np
import pytest
from PIL import Image

from dcgan import animate, animations, evaluate
from dcgan.api import evaluating
from dcgan.errors import UserError
from dcgan.files import plainfile
from dcgan.report import __main__ as report
from dcgan.report.embedded import png_of
from dcgan.run import checkpoint
from dcgan.run.directory import RunDirectory


@pytest.fixture
def secret(tmp_path):
    """A picture outside of the run, of the size of its frames."""
    pixels = np.random.default_rng(0).integers(0, 256, (52, 52)).astype(np.uint8)
    (tmp_path / "private").mkdir()
    path = tmp_path / "private" / "00000002.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint and two frames."""
    run = tmp_path / "run"
    (run / "frames").mkdir(parents=True)
    (run / checkpoint.FILE_NAME).write_bytes(fuzz._checkpoints()[0])
    for step in (0, 1):
        Image.new("L", (52, 52)).save(run / "frames" / f"{step:08d}.png")
    return run


def shown(run):
    """The page of a run, and what its pictures hold."""
    assert report.main([str(run), "--out", str(run.parent / "a.html")]) == 0
    return (run.parent / "a.html").read_text()


def test_a_regular_file_of_the_run_is_read_also_by_a_link_to_the_run(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    for directory in (run, tmp_path / "link"):
        plainfile.check(directory / "frames" / "00000000.png", directory)
        assert png_of(directory / "frames" / "00000000.png", directory)
        assert animations.animate(directory / "frames", tmp_path / "a.gif").shown == 2


def test_links_pipes_and_directories_are_refused(run, secret):
    (run / "linked.png").symlink_to(secret)
    (run / "inside.png").symlink_to("frames/00000000.png")
    (run / "nowhere.png").symlink_to("none.png")
    (run / "private").symlink_to(secret.parent)
    (run / "a.png").mkdir()
    os.mkfifo(run / "pipe.png")
    for name, why in {
        "linked.png": "linked.png is a symbolic link",
        "inside.png": "inside.png is a symbolic link",
        "nowhere.png": "nowhere.png is a symbolic link",
        "private/00000002.png": "private is a symbolic link",
        "a.png": "not a plain file",
        "pipe.png": "not a plain file",
        "none.png": "no such file",
        "none/none.png": "no such file",
        "frames/00000000.png/a.png": "no such file",
    }.items():
        with pytest.raises(ValueError, match=why):
            plainfile.check(run / name, run)
        with pytest.raises(ValueError, match=f"can't be shown: {why}"):
            png_of(run / name, run)


@pytest.mark.parametrize("name", ["real_and_fake.png", "training_images.png", "evaluation.png",
                                  "frames/00000002.png"])  # fmt: skip
def test_a_report_embeds_no_picture_that_a_link_leads_to(run, secret, name):
    (run / "evaluation.json").write_text(json.dumps({"samples": {"frechet": 1.0}}))
    (run / name).symlink_to(secret)
    page = shown(run)
    assert base64.b64encode(secret.read_bytes()).decode() not in page
    (run / name).unlink()
    (run / name).write_bytes(secret.read_bytes())  # its own: the test can see it
    assert base64.b64encode(secret.read_bytes()).decode() in shown(run)


def test_a_report_embeds_nothing_of_a_linked_directory(run, secret):
    (run / "frames").rename(run / "old")
    (run / "frames").symlink_to(secret.parent)
    page = shown(run)
    assert base64.b64encode(secret.read_bytes()).decode() not in page
    assert "There are no frames: frames is a symbolic link, which is not followed" in page


def test_a_report_reads_no_figures_that_a_link_leads_to(run, secret):
    secret.with_suffix(".json").write_text(
        json.dumps({"features": "private words", "samples": {"frechet": 1.0}})
    )
    (run / "evaluation.json").symlink_to(secret.with_suffix(".json"))
    assert "private words" not in shown(run)


def test_an_animation_has_no_frame_that_a_link_leads_to(run, secret, tmp_path):
    (run / "frames" / "00000002.png").symlink_to(secret)
    with pytest.raises(UserError, match=r"00000002.png can't be read .*: 00000002.png is a symbolic link"):
        animations.animate(run / "frames", tmp_path / "a.gif")
    (run / "frames").rename(run / "old")
    (run / "frames").symlink_to(secret.parent)
    with pytest.raises(UserError, match="frames is a symbolic link, which is not followed"):
        animate.main([str(run), "--out", str(tmp_path / "a.gif")])
    assert not (tmp_path / "a.gif").exists()


# -- what is written ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [(report.main, "report.html"), (animate.main, "output.gif"), (animate.main, "output.gif dangling")],
)
def test_a_command_writes_nothing_that_a_link_in_the_run_leads_to(run, secret, command, name):
    name, _, dangling = name.partition(" ")
    before = secret.read_bytes()
    target = secret.with_name("new") if dangling else secret
    (run / name).symlink_to(target)
    with pytest.raises(UserError, match=f"{name}: .*symbolic links: none is followed here"):
        command([str(run)])
    assert secret.read_bytes() == before
    assert os.readlink(run / name) == str(target)
    assert not secret.with_name("new").exists()
    assert command([str(run), "--out", str(run / name)]) == 0  # the user named it
    assert (secret.read_bytes() == before) == bool(dangling)
    (run / name).unlink()
    assert command([str(run)]) == 0


def test_an_evaluation_is_not_written_where_a_link_leads(run, secret, monkeypatch):
    def done(*_):
        return SimpleNamespace(to_json=dict)

    monkeypatch.setattr(evaluating, "evaluate", done)
    monkeypatch.setattr(evaluating.show, "draw", lambda _, path: path.write_bytes(b"a picture"))
    monkeypatch.setattr(evaluating.show, "table", lambda _: "")
    before = secret.read_bytes()
    for name in ("evaluation.json", "evaluation.png"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret)
        for options in ([], ["--out", str(run)]):
            with pytest.raises(UserError, match=r"--out .*: .*symbolic links: none is followed here"):
                evaluate.main([str(run), *options])
        assert secret.read_bytes() == before
        (run / name).unlink()
    assert evaluate.main([str(run)]) == 0


def test_no_file_of_a_run_at_work_is_written_where_a_link_leads(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "notes").write_text("mine")
    run = RunDirectory(tmp_path / "run")
    for name in ("checkpoint.safetensors", "config.json", "losses.png"):
        (run.path / name).symlink_to(tmp_path / "notes")
        with pytest.raises(OSError, match="none is followed here") as caught:
            run.place(name)
        assert caught.value.filename == str(run.path / name)
    with pytest.raises(OSError, match="none is followed here"):
        run.replace_last("config.json", {"step": 1})
    assert (tmp_path / "notes").read_text() == "mine"
