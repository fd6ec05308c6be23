"""The command of training: what it leaves, that it repeats, and what it says to bad input."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import animate, console, pictures, presets, sample, train
from dcgan.errors import UserError
from dcgan.run import checkpoint, outputs, progress
from dcgan.run.trained import load_generator
from dcgan.sampling import generate
from dcgan.steps import StepLine
from minigrad.backend import cpu_kernels
from minigrad.backend import get as get_backend

pytestmark = pytest.mark.usefixtures("digests")

SMALL = ("--preset", "quick", "--steps", "3", "--batch-size", "8", "--set", "frame_every=1")


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_run_leaves_all_that_it_names(run, tmp_path):
    code, said = run(*SMALL, "--set", "sample_every=2")
    assert code == 0
    left = files(tmp_path / "run")
    assert set(left) == {
        "config.json", "metrics.jsonl", "timing.jsonl", "vitals.jsonl", "checkpoint.safetensors",
        "losses.png", "output.gif", "training_images.png", "real_and_fake.png",
        "checkpoints/00000002.safetensors",
        *(f"samples/quick_steps_{n:06d}.png" for n in (0, 2, 3)), *(f"frames/{n:08d}.png" for n in range(4)),
    }  # fmt: skip
    for name in ("output.gif", "losses.png", "metrics.jsonl", "checkpoint.safetensors", "samples"):
        assert str(tmp_path / "run" / name) in said
    lines = [json.loads(line) for line in left["metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(
        set(line) == {"step", "epoch", "loss_d", "loss_g", "d_x", "d_g_z1", "d_g_z2"} for line in lines
    )
    assert all(0 <= line[key] <= 1 for line in lines for key in ("d_x", "d_g_z1", "d_g_z2"))
    config = json.loads(left["config.json"])
    assert config["preset"]["batch_size"] == 8
    assert config["device"] == "cpu"
    assert config["kernels"] == cpu_kernels().name


def test_two_runs_of_one_seed_are_equal_bit_for_bit(run, tmp_path):
    for name in ("a", "b"):
        mg.manual_seed(len(name) + ord(name))  # whatever was drawn before does not matter
        assert run(*SMALL, "--seed", "5", out=name)[0] == 0
    a, b = (files(tmp_path / name) for name in ("a", "b"))
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name] and name != "timing.jsonl"] == []


def test_another_seed_gives_another_run(run, tmp_path):
    for seed in ("5", "6"):
        run(*SMALL, "--seed", seed, out=seed)
    a, b = (files(tmp_path / seed) for seed in ("5", "6"))
    assert all(
        a[name] != b[name]
        for name in ("metrics.jsonl", "checkpoint.safetensors", "samples/quick_steps_000003.png")
    )


def test_the_number_of_threads_changes_nothing(run, tmp_path):
    pool = get_backend("cpu").pool
    before = pool.threads
    try:
        for threads in (1, 3):
            pool.resize(threads)
            run("--preset", "quick", "--steps", "2", out=str(threads))
    finally:
        pool.resize(before)
    a, b = (files(tmp_path / name) for name in ("1", "3"))
    assert [name for name in a if a[name] != b[name] and name != "timing.jsonl"] == []


def test_flux_trains_too(run, tmp_path):
    code, said = run("--preset", "flux", "--steps", "2", "--batch-size", "4")
    assert code == 0
    assert "2 steps of 4" in said
    assert {p.name for p in (tmp_path / "run" / "samples").iterdir()} == {
        "dcgan_steps_000000.png",
        "dcgan_steps_000002.png",
    }


def test_the_epochs_end_a_run_and_the_partial_batch_is_kept(run, tmp_path):
    assert run("--preset", "quick", "--epochs", "1", "--batch-size", "130")[0] == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2  # 130 + 70 images
    assert [json.loads(line)["epoch"] for line in lines] == [1, 1]


def test_the_checkpoint_holds_the_recipe_the_position_and_all_tensors(run, tmp_path):
    run(*SMALL)
    loaded = checkpoint.load(tmp_path / "run")
    assert loaded.preset == presets.get("quick", steps=3, batch_size=8, frame_every=1)
    assert loaded.position == {"step": 3, "epoch": 1}
    assert {key.partition(".")[0] for key in loaded.tensors} >= {
        "generator", "discriminator", "optimizer_g", "optimizer_d", "fixed_z", "rng"
    }  # fmt: skip
    assert loaded.under("optimizer_g")["steps"].tolist() == [3] * len(
        [k for k in loaded.under("optimizer_g") if k.startswith("first.")]
    )
    assert loaded.tensors["fixed_z"].shape[1:] == loaded.preset.z_shape


def test_a_checkpoint_is_written_with_every_grid(run, tmp_path, monkeypatch):
    """So that a run that is killed leaves what it had at the last one."""
    written = []
    save = checkpoint.save

    def watched(path, preset, position, parts, images):
        save(path, preset, position, parts, images)
        written.append((position["step"], len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())))

    monkeypatch.setattr(checkpoint, "save", watched)
    run("--preset", "quick", "--steps", "5", "--batch-size", "8", "--set", "sample_every=2")
    assert written == [(2, 2), (4, 4), (5, 5)]


def test_averaged_weights_are_kept_and_shown(run, tmp_path):
    run(*SMALL, "--set", "ema_decay=0.9", out="averaged")
    run(*SMALL, "--set", "ema_decay=0.0", out="plain")
    averaged, plain = (checkpoint.load(tmp_path / name) for name in ("averaged", "plain"))
    assert plain.under("generator_ema") == {}
    last = plain.under("generator")
    assert all(
        np.array_equal(last[k], v) for k, v in averaged.under("generator").items()
    )  # training is the same
    assert any(not np.array_equal(last[k], v) for k, v in averaged.under("generator_ema").items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "fluxx"), "unknown preset 'fluxx'"),
        (("--set", "lr=1"), "unknown field 'lr'"),
        (("--set", "lr_generator"), "expected FIELD=VALUE"),
        (("--set", "batch_size=big"), "batch_size='big': expected a value of type int"),
        (("--data", "cifar"), "--data cifar: expected mnist"),
        (("--preset", "quick", "--batch-size", "1"), "a BatchNorm needs two images or more"),
        (("--preset", "quick", "--batch-size", "199"), "last batch of 200 images would hold one.*use 200"),
        (("--set", "image_size=64"), "the generator makes images of"),
        (("--data", ""), "--data: an empty name"),
        (
            ("--set", "real_name=losses.png"),
            "expected a file name .* none of losses.png",
        ),
        (("--set", f"real_name={'x' * 250}.png"), "real_name=.*expected a file name"),
        (("--set", "sample_name={step:0300}.png"), "sample_name=.*expected a file name"),
        (("--set", "seed={[]:1}"), "seed=.*expected a value of type int"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_left(run, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--steps", "0"),
        ("--epochs", "-1"),
        ("--vitals-every", "-1"),
        ("--seed", "x"),
        ("--resume",),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_exits_with_2(run, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_what_exists_is_never_written_over(run, tmp_path):
    run(*SMALL)
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match="exists already"):
        run(*SMALL)
    assert files(tmp_path / "run") == before


def test_runs_without_a_directory_are_numbered(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert train.main([*SMALL]) == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"quick", "quick-2", "quick-3"}


def test_a_directory_that_can_not_be_made_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out .*Not a directory"):
        run(*SMALL, out="file/run")


def test_a_name_that_the_system_refuses_is_told(run):
    with pytest.raises(UserError, match="--out .*File name too long"):
        run(*SMALL, out="x" * 300)


def test_no_gpu_is_a_warning_and_training_goes_on(tmp_path):
    command = [sys.executable, "-m", "dcgan.train", *SMALL, "--device", "gpu", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: --device gpu: CuPy is ")
    assert "pip install 'cupy-cuda12x[ctk]' (CUDA 12)" in done.stderr
    assert "on the CPU" in done.stdout


def test_the_command_prints_a_users_mistake_in_one_line(tmp_path):
    command = [sys.executable, "-m", "dcgan.train", "--preset", "none", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"dcgan train: unknown preset 'none': expected one of {', '.join(presets.PRESETS)}\n"
    )


def test_ctrl_c_keeps_everything_so_far(tmp_path):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "dcgan.train",
        "--preset",
        "quick",
        "--batch-size",
        "16",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint == "\nStopping after this step; Ctrl-C once more stops at once, without a checkpoint.\n"
    assert "Stopped after step" in said
    loaded = checkpoint.load(out)
    steps = loaded.position["step"]
    assert steps >= 1
    assert len((out / "metrics.jsonl").read_text().splitlines()) == steps
    assert (out / "samples" / f"quick_steps_{steps:06d}.png").exists()
    with Image.open(out / "output.gif") as gif:
        assert gif.n_frames >= 1


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_without_a_traceback(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "dcgan.train", "--preset", "flux", "--batch-size", "2000", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (out / "frames" / "00000000.png").exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.stderr.readline()
    first = process.stderr.readline()  # the handler has run: from now on another one counts after a second
    while process.poll() is None:
        time.sleep(1.2)
        process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first.startswith("Stopping after this step")
    assert complaint == "\ndcgan train: interrupted\n"
    assert not (out / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_pressing_ctrl_c_twice_in_a_hurry_counts_once(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "dcgan.train", "--preset", "quick", "--batch-size", "16", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.05)
    for _ in range(3):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert checkpoint.load(out).position["step"] >= 1
    assert (out / "output.gif").exists()


@pytest.mark.parametrize("threads", ["0", "abc", "99999"])
def test_a_number_of_threads_that_is_none_is_told(tmp_path, threads):
    command = [sys.executable, "-m", "dcgan.train", *SMALL, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "MINIGRAD_NUM_THREADS": threads}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    expected = f"MINIGRAD_NUM_THREADS={threads!r}: expected an integer from 1 to 1024"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"dcgan train: {expected}\n")


def test_a_run_that_diverges_stops_says_so_and_writes_json(run, tmp_path):
    code, said = run(*SMALL, "--set", "lr_generator=1e30", "--set", "lr_discriminator=1e30")
    assert code == 1
    assert said.count("The run has diverged: at step 1 ") == 1
    assert "Start again with smaller lr_generator and lr_discriminator" in said
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()  # there was no good one
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert len(lines) == 1
    assert lines[-1]["loss_g"] is None


def test_one_image_alone_uses_running_statistics(run, tmp_path):
    run(*SMALL, "--set", "statistics=batch", "--set", "grid_rows=1", "--set", "grid_columns=1")
    assert sample.main([str(tmp_path / "run"), "--out", str(tmp_path / "one.png"), "--grid", "1x1"]) == 0
    with Image.open(tmp_path / "one.png") as png:
        assert png.size[0] == png.size[1] >= 28


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path):
    command = [
        sys.executable,
        "-m",
        "dcgan.train",
        *SMALL,
        "--set",
        "log_every=1",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")
    assert checkpoint.load(tmp_path / "run").position["step"] == 3


@pytest.mark.parametrize(("seconds_a_step", "told"), [(0.01, False), (3.0, True)])
def test_a_long_run_says_so_with_a_measured_estimate(monkeypatch, capsys, seconds_a_step, told):
    readings = itertools.count()  # the clock is read a few times a step
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(readings) * seconds_a_step / 2)
    shown = progress.Progress(11_725, " The short way to digits is --preset quick.")
    for _ in range(10):
        shown.step(128, StepLine(1, loss_d=1.0, loss_g=1.0, d_x=0.5, d_g_z1=0.5))
    said = capsys.readouterr().out
    assert ("This run will take about" in said) == told
    assert ("--preset quick" in said) == told


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (725, "12 min"), (12_000, "3 h 20 min")])
def test_durations_are_read_by_people(seconds, text):
    assert progress.duration(seconds) == text


def test_sample_draws_new_images(run, tmp_path, capsys):
    run(*SMALL)
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        arguments = [
            str(tmp_path / "run"),
            "--out",
            str(tmp_path / f"{out}.png"),
            "--grid",
            "2x5",
            "--seed",
            seed,
        ]
        assert sample.main(arguments) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    with Image.open(tmp_path / "a.png") as png:
        width, height = png.size
    assert (width % (5 * 30 + 2), height % (2 * 30 + 2)) == (0, 0)
    assert "10 images of 28 x 28 grey in 2x5, quick after step 3" in capsys.readouterr().out


def test_sample_of_the_fixed_noise_shows_what_the_run_showed(run, tmp_path):
    """The weights and the statistics that a checkpoint keeps are those that drew the last grid."""
    run(*SMALL)
    loaded = checkpoint.load(tmp_path / "run")
    generator = load_generator(loaded)
    images = generate(generator, mg.tensor(loaded.tensors["fixed_z"]), loaded.preset.statistics)
    with Image.open(tmp_path / "run" / "frames" / "00000003.png") as png:
        frame = np.asarray(png)
    tile = pictures.to_bytes(images)[9, :, :, 0]  # row 1, column 1
    assert np.array_equal(frame[32:60, 32:60], tile)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "a.png"], "no checkpoint at nowhere"),
        (["RUN", "--out", "a.bmp"], "a name that ends in .png, .jpg, .jpeg or .webp"),
        (["RUN", "--out", "run/config.json/a.png"], "--out .*the folder .*config.json can't be made"),
        (["RUN", "--out", "a.png", "--seed", "-1"], "--seed -1: expected an integer of at least 0"),
    ],
)
def test_sample_tells_a_mistake(run, tmp_path, monkeypatch, arguments, message):
    run(*SMALL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        sample.main([argument.replace("RUN", "run") for argument in arguments])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("grid", ["8", "0x4", "4x-1", "axb", "1000x1000"])
def test_a_grid_that_is_none_is_told(grid, capsys):
    with pytest.raises(SystemExit) as stop:
        sample.main(["run", "--out", "a.png", "--grid", grid])
    assert stop.value.code == 2
    assert "expected ROWSxCOLUMNS" in capsys.readouterr().err


def test_the_banner_names_the_size_in_use(run):
    fields = ("image_size=16", "channels=4", "ngf=4", "ndf=4", "grid_rows=2", "grid_columns=2")
    sets = [word for field in fields for word in ("--set", field)]
    code, printed = run("--preset", "flowers", "--steps", "1", "--batch-size", "4", *sets)
    assert code == 0
    assert "; 200 images of 16 x 16 RGB with alpha, 1 steps of 4, on the CPU, " in printed
    assert "32 x 32" not in printed


def test_animate_makes_the_gif_again(run, tmp_path, capsys):
    run(*SMALL)
    made = (tmp_path / "run" / "output.gif").read_bytes()
    assert animate.main([str(tmp_path / "run"), "--out", str(tmp_path / "again.gif")]) == 0
    assert (tmp_path / "again.gif").read_bytes() == made
    assert "4 frames" in capsys.readouterr().out
    assert animate.main([str(tmp_path / "run" / "checkpoint.safetensors")]) == 0
    with pytest.raises(UserError, match="expected a run's directory"):
        animate.main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="no frames in"):
        animate.main([str(tmp_path)])
    with pytest.raises(UserError, match="a name that ends in .gif"):
        animate.main([str(tmp_path / "run"), "--out", str(tmp_path / "a.avi")])
    with pytest.raises(UserError, match="--seconds"):
        animate.main([str(tmp_path / "run"), "--seconds", "0"])


def test_a_picture_that_can_not_be_written_is_told_once_and_training_goes_on(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "frames/00000002.png")

    run(*SMALL, out="before")
    write_frame = outputs.Outputs.write_frame
    monkeypatch.setattr(
        outputs.Outputs, "write_frame", lambda self, step: write_frame(self, step) if step < 2 else full()
    )
    code, said = run(*SMALL)
    assert code == 0
    assert said.count("warning: after step 2 a frame could not be written: No space left on device") == 1
    before, after = files(tmp_path / "before"), files(tmp_path / "run")
    for name in ("checkpoint.safetensors", "metrics.jsonl", "training_images.png"):
        assert before[name] == after[name]


def test_an_output_without_letters_for_it_ends_no_run(tmp_path):
    (tmp_path / "Fréchet").mkdir()
    command = [sys.executable, "-m", "dcgan.train", *SMALL, "--out", str(tmp_path / "Fréchet" / "run")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Fr\\xe9chet" in done.stdout


def test_weights_that_are_no_numbers_are_told_and_not_drawn(run, tmp_path):
    run(*SMALL)
    path = tmp_path / "run" / checkpoint.FILE_NAME
    loaded = checkpoint.load(path)
    spoiled = {name: array * np.float32(np.nan) for name, array in loaded.under("generator_ema").items()}
    checkpoint.save(path, loaded.preset, loaded.position, {"generator_ema": spoiled})
    with pytest.raises(UserError, match="after step 3 the weights hold numbers that are not finite"):
        sample.main([str(tmp_path / "run"), "--out", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EACCES, "Permission denied", "x/y"), "name: x/y: Permission denied\n"),
        (MemoryError("9 GiB"), "name: not enough memory (9 GiB): use smaller images, sizes or batches\n"),
    ],
)
def test_what_the_system_refuses_is_a_line_and_exit_code_2(capsys, error, message):
    def refuse(_):
        raise error

    with pytest.raises(SystemExit) as stop:
        console.run_command(refuse, "name")
    assert stop.value.code == 2
    assert capsys.readouterr().err == message
