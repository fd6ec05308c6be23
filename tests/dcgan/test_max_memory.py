"""Every command that opens a run refuses to take too much memory, before it takes any."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import fuzz
import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import (
    animate,
    animations,
    arguments,
    evaluate,
    export,
    import_weights,
    interpolate,
    latent,
    models,
    pictures,
    presets,
    sample,
    train,
)
from dcgan.animations import memory_of_animation
from dcgan.api import evaluating, generator
from dcgan.errors import UserError
from dcgan.evaluation import comparison
from dcgan.recipe import layers, memory
from dcgan.report import __main__ as report
from dcgan.report import needed, reading
from dcgan.run import checkpoint, trained

SMALL = fuzz.SMALL
HUGE = dataclasses.replace(
    SMALL, name="huge", z_shape=(16,), image_size=2048,
    generator=(layers.Reshape(1, 4, 4), layers.ConvTranspose(4, 16, 16), layers.ConvTranspose(1, 32, 32),
               layers.Tanh()),
    discriminator=(layers.Conv(1, 32, 32), layers.Flatten(), layers.Dense(1)),
)  # fmt: skip


@pytest.fixture
def refused():
    """Calls a command; the error that it ends with, having taken little memory."""

    def call(main, *arguments):
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match="of memory, more than --max-memory allows") as told:
                main(list(map(str, arguments)))
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken < 2**26
        return str(told.value)

    return call


def save(run, preset):
    """A checkpoint of a recipe with fresh weights."""
    run.mkdir(exist_ok=True)
    generator, discriminator = models.build(preset)
    parts = {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
    parts["generator_ema"] = generator.state_dict()
    checkpoint.save(run / checkpoint.FILE_NAME, preset, {"step": 1, "epoch": 1}, parts)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a small recipe, in the directory "run", with a frame and some images beside it."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "run", SMALL)
    (tmp_path / "run" / "frames").mkdir()
    for step in (0, 250):
        Image.new("L", (42, 42)).save(tmp_path / "run" / "frames" / f"{step:08d}.png")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"preset": SMALL.to_json(), "data": "d.npy"}))
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "d.npy", images)
    mg.save(models.build_generator(SMALL).state_dict(), tmp_path / "g.safetensors")
    return tmp_path / "run"


def sparse(path, size):
    """A file of `size` bytes that takes no room."""
    path.touch()
    os.truncate(path, size)


SAMPLE = (sample.main, "run", "--out", "a.png")
BETWEEN = (interpolate.main, "run", "--between", "1", "2", "--out")
COMMANDS = {
    "sample": SAMPLE,
    "sample --each": (sample.main, "run", "--each", "each"),
    "interpolate": (*BETWEEN, "a.png"),
    "interpolate to a GIF": (*BETWEEN, "a.gif"),
    "interpolate to a mean": (interpolate.main, "run", "--mean", "1", "--plus", "2", "--out", "a.png"),
    "animate": (animate.main, "run", "--out", "a.gif"),
    "evaluate": (evaluate.main, "run", "--count", "100", "--out", "evaluated"),
    "report": (report.main, "run", "--out", "a.html"),
    "export": (export.main, "run", "--out", "a.onnx"),
    "import_weights": (
        import_weights.main, "--preset", "quick", "--generator", "g.safetensors", "--out", "b",
        "--set", "image_size=8", "--set", "z_shape=(5,)",
        "--set", "generator=[Dense(16, bias=False), BatchNorm(), ReLU(), Reshape(4, 2, 2), "
        "ConvTranspose(4, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2), ConvTranspose(1, 4, 2, 1), "
        "Tanh()]",
        "--set", "discriminator=[Flatten(), Dense(1)]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_limit(run, refused, name):
    if name == "export":
        pytest.importorskip("onnx")
    main, *arguments = COMMANDS[name]
    before = sorted(run.parent.rglob("*.*"))
    assert "--max-memory" in refused(main, *arguments, "--max-memory", "4K")
    assert sorted(run.parent.rglob("*.*")) == before


@pytest.mark.parametrize("name", ["sample", "interpolate to a GIF", "animate", "import_weights"])
def test_a_command_goes_on_below_the_limit(run, name):
    main, *arguments = COMMANDS[name]
    assert main([*arguments, "--max-memory", "100M"]) == 0


def test_a_recipe_of_many_weights_is_refused_before_they_are_made(run, refused):
    wide = layers.Dense(20_000)
    specs = (wide, wide, layers.Dense(64), layers.Reshape(1, 8, 8), layers.Tanh())
    preset = dataclasses.replace(SMALL, generator=specs)
    (run / "config.json").write_text(json.dumps({"preset": preset.to_json()}))
    assert os.path.getsize(run / "config.json") < 4000
    said = refused(report.main, run, "--out", "a.html")
    assert said.startswith(f"a page of {run}, with both networks of the recipe 'small' at work, would take")
    (run / checkpoint.FILE_NAME).unlink()  # the recipe alone
    refused(report.main, run, "--out", "a.html")
    settings = [("--set", f"{name}={value}") for name, value in (
        ("image_size", 8), ("generator", "[Dense(20000), Dense(20000), Dense(64), Reshape(1, 8, 8)]"),
    )]  # fmt: skip
    words = [word for pair in settings for word in pair]
    refused(import_weights.main, "--preset", "quick", *words, "--generator", "g.safetensors", "--out", "b")


def test_large_images_of_a_small_file_are_refused(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "run", HUGE)
    assert os.path.getsize(tmp_path / "run" / checkpoint.FILE_NAME) < 70_000
    said = refused(*SAMPLE, "--max-memory", "2G")
    assert said.startswith("drawing 64 images of 2048 x 2048 by the recipe 'huge' would take about ")
    refused(*SAMPLE, "--grid", "40x40")
    refused(*BETWEEN, "a.png", "--frames", "1000")
    refused(*BETWEEN, "a.gif", "--frames", "100", "--max-memory", "2500M")
    refused(report.main, "run", "--max-memory", "1G")
    refused(export.main, "run", "--out", "a.onnx", "--statistics", "recalibrated", "--max-memory", "1G")
    mean = ("run", "--mean", *["1"] * 100, "--plus", "2", "--out", "a.png")
    refused(interpolate.main, *mean, "--statistics", "running")
    np.save("z.npy", np.zeros((500, 16), np.float32))
    refused(*SAMPLE, "--z", "z.npy")


def test_much_noise_is_refused(run, refused):
    wide = dataclasses.replace(SMALL, z_shape=(1, 1024, 1024), generator=(layers.Conv(1, 128, 128),))
    save(run, wide)
    refused(*SAMPLE, "--grid", "100x100")
    refused(*BETWEEN[:-1], "9/9999", "--out", "a.png")
    with pytest.raises(UserError, match=r"drawing the noise 3/9999 would take .* --max-memory"):
        latent.by_seed(wide, "3/9999")
    header = run.parent / "z.npy"
    with open(header, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (5000, 1, 1024, 1024)}
        )
    os.truncate(header, header.stat().st_size + 5000 * 2**22)
    assert "reading --z" in refused(*SAMPLE, "--z", header)


def test_a_line_without_an_end_is_refused_by_the_report(run, refused):
    sparse(run / "metrics.jsonl", 2**33)
    assert "reading the lines of" in refused(report.main, run)
    sparse(run / "metrics.jsonl", 2**27)
    tracemalloc.start()
    found = reading.read(run, None)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.metrics == []
    assert taken < 2**26


@pytest.mark.parametrize("limit", ["4G", "8G"])
def test_a_sparse_file_of_tensors_is_refused(run, refused, limit):
    for name in (checkpoint.FILE_NAME, checkpoint.BEST_NAME):
        sparse(run / name, 2**33)
    best = ("--weights", "best", "--max-memory", limit)
    for command in (SAMPLE, (*BETWEEN, "a.png"), (evaluate.main, run), (export.main, run, "--out", "a.onnx")):
        if command[0] is not export.main:
            assert "best.safetensors" in refused(*command, *best)
        refused(*command, "--max-memory", limit)
    refused(report.main, run, "--max-memory", limit)
    with pytest.raises(UserError, match="--max-memory"):
        checkpoint.load(run)
    sparse(run.parent / "g.safetensors", 2**33)
    assert "reading g.safetensors" in refused(*COMMANDS["import_weights"], "--max-memory", limit)


TWO_ROWS = pictures.memory_of_still(Path("a.png"), (220, 1020))  # of ten, each pixel ten times as large


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--between", "1", "2", "3", "--out", "a.png"), (19, TWO_ROWS)),
        (("--between", "1", "2", "--out", "a.mp4"), (25, memory_of_animation(25, (8, 8, 1), ".mp4"))),
        (
            ("--between", "1", "2", "--frames", "5", "--out", "a.GIF"),
            (6, memory_of_animation(6, (8, 8, 1), ".gif")),
        ),
        (("--mean", "1", "2", "--plus", "3", "--out", "a.png"), (6, pictures.memory_of_figure(6, (8, 8, 1)))),
    ],
    ids=range(4),
)  # fmt: skip
def test_an_interpolation_counts_its_images_and_the_picture_of_them(run, monkeypatch, words, expected):
    counted = []

    def check(what, loaded, wanted, count, limit, further):
        counted.append((count, further))

    monkeypatch.setattr(generator, "check_memory", check)
    generate = generator.generate
    monkeypatch.setattr(generator, "generate", lambda g, z, s: counted.append(len(z)) or generate(g, z, s))
    assert interpolate.main(["run", *words, "--statistics", "running"]) == 0
    count, _ = expected
    assert counted == [expected, (count, 0), count]


def test_many_frames_are_refused_after_the_first(run, refused, monkeypatch):
    for step in range(1, 200):
        os.link(run / "frames" / "00000000.png", run / "frames" / f"{step:08d}.png")
    seen = []
    monkeypatch.setattr(
        animations, "_frame", lambda file: seen.append(file) or np.zeros((4000, 4000, 3), np.uint8)
    )
    said = refused(animate.main, "run", "--out", "a.mp4")
    assert "animating the 201 frames" in said
    assert len(seen) == 1


def test_an_evaluation_of_many_large_images_is_refused_before_they_are_drawn(run, refused, monkeypatch):
    images = np.broadcast_to(np.zeros((1, 2048, 2048, 3), np.uint8), (10_000, 2048, 2048, 3))
    real = comparison.RealImages(images, images, images, "none")
    monkeypatch.setattr(comparison, "real_images", lambda *_, **__: real)
    monkeypatch.setattr(comparison, "sample", lambda *_: pytest.fail("images were drawn"))
    assert "evaluating 1000 images" in refused(evaluate.main, "run", "--count", "1000")


# ---- sizes in words ----


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 2**32), ("500M", 500 * 2**20), ("1.5g", 3 * 2**29), ("2048K", 2**21), ("7", 7), (" 1T ", 2**40)],
)
def test_sizes_are_read(text, size):
    assert arguments.size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.1", "-1G", "4 G", "4GB", "G", "1e9", "9" * 5000, "nan", "٤G", "4G\n4"]
)
def test_what_is_no_size_is_told(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size such as 500M or 4G") as told:
        arguments.size(text)
    assert len(str(told.value)) < 120


def test_a_check_says_how_much_and_what_to_do():
    memory.check("drawing", 2**30, 2**30)
    said = (
        r"^drawing would take about 1\.5 GiB of memory, more than --max-memory allows \(1\.0 GiB\); "
        r"allow more by --max-memory SIZE"
    )
    with pytest.raises(UserError, match=said):
        memory.check("drawing", 3 * 2**29, 2**30)
    with pytest.raises(UserError, match=r"over 10\^21 GiB"):
        memory.check("drawing", 10**4200, 2**30)


# ---- estimates ----


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_default_lets_every_recipe_train_and_be_evaluated(name):
    preset = presets.get(name)
    assert memory.of_training(preset) < memory.DEFAULT / 4
    assert memory.of_sampling(preset, 100, 100) < memory.DEFAULT / 8
    sizes = (10_000, preset.image_size, preset.image_size, preset.channels)
    images = np.broadcast_to(np.zeros((), np.uint8), sizes)
    real = comparison.RealImages(images, images, images, "none")
    further = evaluating.needed(10_000, real)
    assert memory.of_sampling(preset, preset.batch_size, preset.batch_size) + further < memory.DEFAULT


@pytest.mark.parametrize("name", ["flowers", "pytorch"])
def test_the_default_lets_images_of_128_pixels_train(name):
    assert memory.of_training(presets.get(name, image_size=128)) < memory.DEFAULT


def test_estimates_grow_with_what_is_asked_for():
    preset = presets.get("quick")
    assert memory.of_sampling(preset, 1000, 100) > memory.of_sampling(preset, 100, 100)
    assert memory.of_sampling(preset, 100, 100) > memory.of_sampling(preset, 100, 10)
    larger = presets.get("quick", batch_size=2 * preset.batch_size)
    assert memory.of_steps(larger) > memory.of_steps(preset)
    assert memory.of_training(preset) > memory.of_steps(preset)
    assert memory_of_animation(9, (300, 300, 3), ".mp4") > memory_of_animation(9, (300, 300, 3), ".gif")


STEPS = """
import resource, sys
from dcgan import presets
from dcgan.benchmark.ours import our_step
import numpy as np
np.ones((9, 9), np.float32) @ np.ones((9, 9), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step = our_step(presets.get(sys.argv[1]))
step(), step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("name", ["flux", "quick", "flowers", "tensorflow", "pytorch"])
def test_the_estimate_of_steps_is_near_what_they_take(name):
    # A process's peak begins at that of the one that started it: a shell, not this one.
    command = ["sh", "-c", f'"{sys.executable}" -c "$0" {name}; exit $?', STEPS]
    taken = 1024 * int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert 0.9 * taken < memory.of_steps(presets.get(name)) < 2 * taken


def test_lines_are_estimated_near_what_their_values_take(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for line in ({"step": 1, "loss_d": 0.6931471, "d_x": 0.5123}, {"step": 1}, {"step": 1, "a": [[]] * 300}):
        path.write_text("".join(json.dumps({**line, "step": step}) + "\n" for step in range(300)))
        tracemalloc.start()
        found = reading._lines(tmp_path, "metrics", [])
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(found) == 300
        assert 0.9 * taken < memory.of_lines(path) < 3 * taken
    assert memory.of_lines(tmp_path / "none") == memory.of_file(tmp_path) == 0


def test_a_page_counts_its_pictures_and_its_lines(run):
    read = reading.read(run, None)
    before = needed.of_page(read, memory.DEFAULT)
    Image.effect_noise((1000, 1000), 50).save(run / "real_and_fake.png")
    pictures = needed.of_page(read, memory.DEFAULT) - before
    assert pictures == needed.PICTURE * os.path.getsize(run / "real_and_fake.png")
    (run / "metrics.jsonl").write_text('{"step": 1}\n' * 1000)
    lines = needed.of_page(read, memory.DEFAULT) - before - pictures
    assert lines == memory.of_lines(run / "metrics.jsonl") > 0


def test_a_recipe_that_does_not_fit_together_is_still_reported(run):
    odd = dataclasses.replace(SMALL, discriminator=(layers.Dense(1),))
    (run / "config.json").write_text(json.dumps({"preset": odd.to_json()}))
    assert report.main(["run", "--out", "a.html"]) == 0
    assert "The recipe does not fit together: discriminator, layer 0" in (run.parent / "a.html").read_text()


def test_a_run_is_loaded_up_to_the_limit_that_is_given(run):
    size = memory.of_file(run / checkpoint.FILE_NAME)
    assert trained.load_run(run, None, size).position["step"] == 1
    with pytest.raises(UserError, match=r"reading .*checkpoint\.safetensors would take"):
        trained.load_run(run, None, size - 1)


def test_activations_that_no_layer_takes_along_are_counted():
    """190 leaky ReLUs in a row make 190 arrays; the first of them alone has a layer before it to join."""
    deep = (layers.Conv(4, 4, 2, 1), *[layers.LeakyReLU(0.2)] * 190, layers.Flatten(), layers.Dense(1))
    flat = (layers.Conv(4, 4, 2, 1), layers.LeakyReLU(0.2), layers.Flatten(), layers.Dense(1))
    one = 4 * 64 * 4 * 14 * 14  # bytes of a layer's output, of a batch of 64
    more = memory.of_training(presets.get("quick", discriminator=deep))
    assert more - memory.of_training(presets.get("quick", discriminator=flat)) > 150 * one


def test_brackets_are_counted_as_values(tmp_path):
    (tmp_path / "timing.jsonl").write_text('{"step": 1, "a": ' + "[" * 500 + "]" * 500 + "}\n")
    assert memory.of_lines(tmp_path / "timing.jsonl") > 500 * 64


def test_a_run_is_resumed_within_the_limit_alone(run):
    with pytest.raises(UserError, match=f"training {run} would take about .* allow more by --max-memory"):
        train.main(["--resume", str(run), "--steps", "9", "--max-memory", "40M"])
