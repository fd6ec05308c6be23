"""Going on with a run: bit for bit what it would have been; and whatever stops one, nothing is lost."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from loading import load_batches

import minigrad as mg
from dcgan import presets, train
from dcgan.data import mnist
from dcgan.data.batches import Batches
from dcgan.errors import UserError
from dcgan.evaluation.monitor import Monitor
from dcgan.recipe.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    Reshape,
    Tanh,
)
from dcgan.run import checkpoint, outputs, resume, schedule
from dcgan.run.config import RunConfig
from dcgan.run.directory import RunDirectory
from dcgan.run.learner import Learner
from dcgan.run.progress import Progress
from dcgan.run.schedule import Schedule
from dcgan.run.training import Training
from minigrad import backend, serialize
from minigrad.backend.cpu import native

pytestmark = pytest.mark.usefixtures("digests")

IMAGES = 22  # three batches of 8, the last one partial
SMALL = ("--preset", "quick", "--batch-size", "8", "--set", "grid_rows=2", "--set", "grid_columns=2")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Calls the command on a few digits, in a directory of its own: the exit code, and what it said."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(mnist, "images", lambda split="train": images)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = train.main([*map(str, arguments)])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def tiny(monkeypatch):
    """Every recipe with small networks, under its own name."""
    generator = (
        Dense(98, bias=False), BatchNorm(), LeakyReLU(0.2), Reshape(2, 7, 7),
        ConvTranspose(2, 4, 2, 1), BatchNorm(), ConvTranspose(1, 4, 2, 1), Tanh(),
    )  # fmt: skip
    for name in ("flux", "flux-draft", "tensorflow", "tensorflow-baseline"):
        preset = presets.PRESETS[name]
        last = preset.discriminator[-1:] if preset.loss != "bce_with_logits" else ()
        discriminator = (
            Conv(2, 4, 4), LeakyReLU(0.2), Dropout(0.3), Flatten(), Dense(1), *last,
        )  # fmt: skip
        small = dataclasses.replace(
            preset,
            generator=generator,
            discriminator=discriminator,
            z_shape=(6,),
            grid_rows=2,
            grid_columns=2,
        )
        monkeypatch.setitem(presets.PRESETS, name, small)


def files(directory):
    """All that equal runs have in common: not the speed, nor how many older checkpoints stayed."""
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != "timing.jsonl" and p.parent.name != checkpoint.OLDER_NAME
    }


def assert_equal_runs(a, b):
    a, b = files(a), files(b)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []


# After 4 steps the second epoch of three has begun.
@pytest.mark.parametrize(("name", "first"), [*((name, 4) for name in presets.PRESETS), ("quick", 1)])
def test_n_steps_a_stop_and_n_more_are_2n_steps(run, tiny, tmp_path, name, first):
    small = ["--preset", name, "--batch-size", 8, "--set", "frame_every=2", "--set", "log_every=2"]
    if name in ("flowers", "pytorch"):
        small += [f"--set={field}=2" for field in ("ngf", "ndf")] + ["--set", "image_size=8"]
    if not name.startswith("tensorflow"):
        small += ["--set", "sample_every=3"]
    assert run(*small, "--steps", 8, "--out", "whole")[0] == 0
    assert run(*small, "--steps", first, "--out", "parts")[0] == 0
    mg.manual_seed(12345)  # whatever was drawn in between does not matter
    assert run("--resume", "parts", "--steps", 8)[0] == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


HYPERPARAMETERS = ("lr", "weight_decay", "betas", "eps", "epsilon_hat")


def rewritten(path, change):
    """Write a checkpoint again, with its tensors and metadata changed and a checksum that is right."""
    tensors, metadata = serialize.read(path)
    del metadata["checksum"]
    change(tensors, metadata)
    mg.save(tensors, path, {**metadata, "checksum": checkpoint._checksum(tensors, metadata)})


def as_written_before(directory, step):
    """Bring a run's files into the form without `adam_epsilon_hat` and without hyperparameters."""

    def older(tensors, metadata):
        preset = json.loads(metadata["preset"])
        assert preset.pop("adam_epsilon_hat") is False
        metadata["preset"] = json.dumps(preset, sort_keys=True)
        for name in HYPERPARAMETERS:
            del tensors[f"optimizer_g.{name}"], tensors[f"optimizer_d.{name}"]

    rewritten(directory / checkpoint.FILE_NAME, older)
    config = json.loads((directory / "config.json").read_text())
    del config["preset"]["adam_epsilon_hat"]
    (directory / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(directory).position["step"] == step


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-baseline"])
def test_a_run_from_before_epsilon_hat_goes_on_with_kingmas_adam(run, tiny, tmp_path, name):
    assert presets.get(name).adam_epsilon_hat
    small = ["--preset", name, "--batch-size", 8, "--set", "adam_eps=0.001"]
    assert run(*small, "--steps", 6, "--out", "hat")[0] == 0
    kingmas = [*small, "--set", "adam_epsilon_hat=False"]
    assert run(*kingmas, "--steps", 6, "--out", "whole")[0] == 0
    assert run(*kingmas, "--steps", 3, "--out", "parts")[0] == 0
    as_written_before(tmp_path / "parts", 3)
    assert run("--resume", "parts", "--steps", 6)[0] == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    # A killed run that had no checkpoint yet starts again from config.json.
    assert run(*kingmas, "--steps", 1, "--out", "start")[0] == 0
    as_written_before(tmp_path / "start", 1)
    (tmp_path / "start" / checkpoint.FILE_NAME).unlink()
    assert run("--resume", "start", "--steps", 6)[0] == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "start")
    weights = [checkpoint.load(tmp_path / directory).tensors for directory in ("whole", "hat")]
    assert any(not np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_checkpoint_holds_what_its_optimizers_had(run, tmp_path):
    run(*SMALL, "--steps", 1, "--out", "run", "--set", "lr_generator=0.25", "--set", "beta2=0.75")
    tensors = checkpoint.load(tmp_path / "run").tensors
    found = {name: tensors[f"optimizer_g.{name}"].tolist() for name in HYPERPARAMETERS}
    assert found == {
        "lr": 0.25, "weight_decay": 0.0, "betas": [0.5, 0.75], "eps": 1e-8, "epsilon_hat": False,
    }  # fmt: skip
    assert tensors["optimizer_d.lr"].tolist() == 1e-3


def test_a_run_whose_rate_was_changed_on_the_way_goes_on_with_that_rate(run, tmp_path):
    """Not with the recipe's: a resumed run is the unbroken one."""
    preset = presets.get("quick", batch_size=8, grid_rows=2, grid_columns=2)

    def trainer(name, restored=None):
        batches = Batches(mnist.images(), 8, mg.Generator(preset.seed, 2))
        directory = RunDirectory.create(tmp_path / name, RunConfig(preset, "cpu", "made up"))
        made = Training(Learner(preset, batches, "cpu"), directory, Progress(4, ""), Schedule())
        if restored is not None:
            made.restore(restored)
        return made

    first = trainer("first")
    first.train(2, lambda: False)
    first.learner.gan.optimizer_g.lr = 0.125
    first.save()
    second = trainer("second", checkpoint.load(tmp_path / "first"))
    assert (second.learner.gan.optimizer_g.lr, second.learner.gan.optimizer_d.lr) == (0.125, 1e-3)
    for each in (first, second):
        each.train(4, lambda: False)
    a, b = (checkpoint.load(tmp_path / name).tensors for name in ("first", "second"))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", np.array(np.nan), "lr: expected a finite number"),
        ("betas", np.array([0.5, 1.0]), "expected two betas"),
        ("momentum", np.array(0.5), r"unexpected \['momentum'\]"),
    ],
)
def test_a_checkpoint_with_absurd_hyperparameters_is_refused(run, tmp_path, name, value, message):
    run(*SMALL, "--steps", 1, "--out", "run")
    rewritten(
        tmp_path / "run" / checkpoint.FILE_NAME,
        lambda tensors, _: tensors.update({f"optimizer_g.{name}": value}),
    )
    with pytest.raises(UserError, match=rf"does not fit its recipe: load_state_dict\(Adam\): .*{message}"):
        run("--resume", "run", "--steps", 2)


def test_the_place_of_epsilon_belongs_to_the_recipe_of_a_run(run, tiny, tmp_path):
    run("--preset", "tensorflow", "--batch-size", 8, "--steps", 1, "--out", "run")
    with pytest.raises(UserError, match="adam_epsilon_hat is True, not False"):
        run("--resume", "run", "--steps", 2, "--set", "adam_epsilon_hat=False")


def test_a_run_goes_on_at_the_best_checkpoint_and_at_an_older_one(run, tmp_path):
    run(*SMALL, "--steps", 6, "--out", "whole")
    run(*SMALL, "--steps", 6, "--out", "parts", "--checkpoint-every", 2, "--keep", 5)
    names = sorted(p.name for p in (tmp_path / "parts" / "checkpoints").iterdir())
    assert names == ["00000002.safetensors", "00000004.safetensors"]
    code, said = run("--resume", "parts/checkpoints/00000002.safetensors")
    assert code == 0
    assert "from step 2 on" in said
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(run, tmp_path):
    run(*SMALL, "--steps", 6, "--out", "whole")
    run(*SMALL, "--steps", 4, "--out", "parts", "--checkpoint-every", 2)
    path = tmp_path / "parts" / checkpoint.FILE_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, said = run("--resume", "parts", "--steps", 6)
    assert code == 0
    assert "is damaged" in said
    assert "Going on from parts/checkpoints/00000002.safetensors, of step 2" in said
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_where_no_checkpoint_is_whole_that_is_told(run, tmp_path):
    run(*SMALL, "--steps", 1, "--out", "run")
    (tmp_path / "run" / checkpoint.FILE_NAME).write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be read as a safetensors file"):
        run("--resume", "run")
    (tmp_path / "run" / checkpoint.FILE_NAME).unlink()
    with pytest.raises(UserError, match="no checkpoint in .*run yet: a run writes one on its way"):
        checkpoint.load(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="--resume run: there is no checkpoint.safetensors, and no config"):
        run("--resume", "run")
    with pytest.raises(UserError, match="no checkpoint at nowhere"):
        run("--resume", "nowhere")


def test_a_killed_run_leaves_files_that_are_put_right(run, tmp_path):
    """As if it had been killed two steps after its checkpoint, in the middle of a line."""
    more = (*SMALL, "--epochs", 9, "--set", "frame_every=1", "--set", "sample_every=2")
    run(*more, "--steps", 8, "--out", "whole")
    run(*more, "--steps", 4, "--out", "parts")
    later = tmp_path / "parts"
    with open(later / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "loss_d": 1.0}\n{"step": 6, "lo')
    shutil.copy(later / "frames" / "00000004.png", later / "frames" / "00000005.png")
    shutil.copy(later / "samples" / "quick_steps_000004.png", later / "samples" / "quick_steps_000006.png")
    (later / "frames" / "00000004.png").unlink()  # the checkpoint came before the frame
    (later / "samples" / "my own.png").write_bytes(b"mine")
    (later / ".minigrad-ab1_x9zz.partial").write_bytes(b"half")  # it was writing that
    (later / "frames" / ".minigrad-abcdefgh.partial").write_bytes(b"")
    run("--resume", "parts", "--epochs", 9, "--steps", 8)
    assert (later / "samples" / "my own.png").read_bytes() == b"mine"
    (later / "samples" / "my own.png").unlink()
    assert_equal_runs(tmp_path / "whole", later)
    steps = [json.loads(line)["step"] for line in (later / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_the_best_so_far_is_remembered(run, tmp_path):
    run(*SMALL, "--steps", 2, "--out", "run")
    lines = [{"step": 1, "frechet": 3.0}, {"step": 2, "frechet": 5.0}]
    (tmp_path / "run" / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run" / checkpoint.BEST_NAME).write_bytes(b"")
    saved, monitor = checkpoint.load(tmp_path / "run"), Monitor.__new__(Monitor)
    learner = Learner(saved.preset, load_batches(saved.preset, "mnist"), "cpu")
    resumed = Training(learner, RunDirectory(tmp_path / "run"), Progress(2, ""), Schedule(), monitor)
    resumed.restore(saved)
    resumed.resume(tmp_path / "run" / checkpoint.FILE_NAME)
    assert (monitor.best, monitor.last) == (3.0, 2)
    (tmp_path / "run" / checkpoint.BEST_NAME).unlink()  # then the next one is the best that there is
    resumed.resume(tmp_path / "run" / checkpoint.FILE_NAME)
    assert (monitor.best, monitor.last) == (None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", 4), "batch_size is 8, not 4"),
        (("--preset", "flux"), "its recipe is quick, not flux"),
        (("--set", "lr_generator=0.5"), "lr_generator is 0.002, not 0.5"),
        (("--seed", 3), "seed is 0, not 3"),
    ],
)
def test_another_recipe_is_refused_with_the_difference(run, tmp_path, arguments, message):
    run(*SMALL, "--steps", 2, "--out", "run")
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match=f"--resume run: .*{message}"):
        run("--resume", "run", "--steps", 4, *arguments)
    assert files(tmp_path / "run") == before


def test_epochs_may_grow(run, tmp_path):
    run(*SMALL, "--epochs", 1, "--out", "run")
    code, said = run("--resume", "run")
    assert code == 0
    assert said.startswith("run has 3 steps already, of 3 wanted: nothing to train.\n")
    assert run("--resume", "run", "--epochs", 2)[0] == 0
    assert checkpoint.load(tmp_path / "run").position == {"step": 6, "epoch": 2}


def test_other_images_are_refused(run, monkeypatch):
    run(*SMALL, "--steps", 2, "--out", "run")
    monkeypatch.setattr(mnist, "images", lambda split="train": np.zeros((IMAGES, 28, 28), np.uint8))
    with pytest.raises(UserError, match="trained on other images \\(22 images\\) than these \\(22\\)"):
        run("--resume", "run", "--steps", 4)


def test_the_images_need_not_be_named_again(run, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (IMAGES, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "mine.npy", images)
    run(*SMALL, "--data", "mine.npy", "--steps", 2, "--out", "run")
    assert run("--resume", "run", "--steps", 3)[0] == 0


def test_an_existing_run_is_refused_and_resume_named(run):
    run(*SMALL, "--steps", 1, "--out", "run")
    with pytest.raises(UserError, match="go on with the run in it by --resume run"):
        run(*SMALL, "--out", "run")


# -- what stops a run --------------------------------------------------------------------------------


@pytest.fixture
def started():
    """Starts runs in processes of their own, on as small batches as there are; none outlives the test."""
    processes = []

    def start(out, *arguments):
        command = [sys.executable, "-m", "dcgan.train", "--preset", "quick", "--batch-size", "4", *arguments]
        place = ("--out", str(out)) if "--resume" not in arguments else ()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([*command, *place], text=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path, process):
    give_up = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.02)


def test_sigterm_ends_a_run_as_ctrl_c_does(started, tmp_path):
    out = tmp_path / "run"
    process = started(out, "--vitals-every", "50")
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"go on with dcgan train --resume {out} --vitals-every 50\n" in said
    assert checkpoint.load(out).position["step"] >= 1


@pytest.mark.slow
def test_two_runs_in_one_directory_are_refused_and_a_killed_one_leaves_no_lock(started, tmp_path):
    out = tmp_path / "run"
    process = started(out, "--checkpoint-every", "1")
    wait_for(out / checkpoint.FILE_NAME, process)
    second = started(out, "--resume", str(out))
    _, complaint = second.communicate(timeout=60)
    assert second.returncode == 2
    assert complaint == (
        f"dcgan train: {out}: another process is training there; wait for it to end, or stop it\n"
    )
    process.kill()
    process.communicate(timeout=60)
    steps = str(checkpoint.load(out).position["step"] + 1)
    third = subprocess.run(
        [sys.executable, "-m", "dcgan.train", "--resume", str(out), "--steps", steps],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (third.returncode, third.stderr) == (0, "")


def test_a_checkpoint_that_can_not_be_written_is_told_and_the_last_good_one_stays(run, tmp_path, monkeypatch):
    save, full = checkpoint.save, []

    def sometimes(path, *arguments):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, *arguments)
        full.append(True)  # from the second on

    monkeypatch.setattr(checkpoint, "save", sometimes)
    with pytest.raises(UserError, match="after step 4 .*could not be written: No space left.* up to step 1"):
        run(*SMALL, "--steps", 4, "--out", "run", "--checkpoint-every", 1)
    assert checkpoint.load(tmp_path / "run").position["step"] == 1
    full.clear()
    monkeypatch.setattr(checkpoint, "save", save)
    run(*SMALL, "--steps", 4, "--out", "whole")
    run("--resume", "run", "--steps", 4)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_metrics_that_could_not_be_written_are_written_later(run, tmp_path, monkeypatch):
    append, calls = RunDirectory.append, []

    def sometimes(self, name, lines):
        calls.append(name)
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device", name)
        append(self, name, lines)

    monkeypatch.setattr(RunDirectory, "append", sometimes)
    code, said = run(*SMALL, "--steps", 5, "--out", "run")
    assert code == 0
    assert said.count("metrics.jsonl could not be written") == 1
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4, 5]


def test_half_a_write_leaves_no_half_line(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    run.append("metrics.jsonl", [{"step": 1}])

    def fails(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        run.append("metrics.jsonl", [{"step": 2}])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_directory_that_has_gone_ends_the_run(run, tmp_path, monkeypatch):
    write_frame = outputs.Outputs.write_frame

    def gone(self, step):
        if step == 2:
            shutil.rmtree(tmp_path / "run")
        write_frame(self, step)

    monkeypatch.setattr(outputs.Outputs, "write_frame", gone)
    with pytest.raises(UserError, match="after step 2 .*could not be written: No such file or directory"):
        run(*SMALL, "--steps", 4, "--out", "run", "--set", "frame_every=1")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_names_the_layer(run, tmp_path, monkeypatch):
    real = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(mnist, "images", lambda split="train": real)
    run(*SMALL, "--steps", 2, "--out", "run")
    loaded = checkpoint.load(tmp_path / "run")
    parts = {"": {k: v for k, v in loaded.tensors.items() if "." not in k}}
    for key, value in loaded.tensors.items():
        if "." in key:
            part, rest = key.split(".", 1)
            parts.setdefault(part, {})[rest] = value.copy()
    parts["discriminator"]["2.weight"][:] = 3e38  # the next product of it is infinite
    checkpoint.save(
        tmp_path / "run" / checkpoint.FILE_NAME, loaded.preset, loaded.position, parts, loaded.images
    )
    before = (tmp_path / "run" / checkpoint.FILE_NAME).read_bytes()
    code, said = run("--resume", "run", "--steps", 6)
    assert code == 1
    assert "The run has diverged: at step 3 loss_d" in said
    assert "comes up in discriminator.2 Conv2d(16, 32), the forward of convolve" in said
    assert "The last good checkpoint, of step 2" in said
    assert (tmp_path / "run" / checkpoint.FILE_NAME).read_bytes() == before


# -- when there is a checkpoint ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "seconds"), [("500", 500, 0), ("10min", 0, 600), ("30s", 0, 30), ("007", 7, 0)]
)
def test_an_interval_is_steps_or_a_time(text, steps, seconds):
    found = schedule.Interval.parse(text)
    assert (found.steps, found.seconds) == (steps, seconds)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "3h", "", "1 min", "12345678901"])
def test_an_interval_that_is_none_is_a_users_mistake(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.parser().parse_args([f"--checkpoint-every={text}"])
    assert "expected steps, such as 500" in capsys.readouterr().err


def test_without_an_interval_checkpoints_cost_a_hundredth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    due = schedule.CheckpointTimer(schedule.Interval())
    now[0] = 59.0
    assert not due.is_due(1)
    now[0] = 60.0
    assert due.is_due(1)
    due.written(2.0)  # two seconds: not again for 200
    now[0] += 199.0
    assert not due.is_due(2)
    now[0] += 1.0
    assert due.is_due(2)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_of_the_last_checkpoints_stay(run, tmp_path, keep):
    run(*SMALL, "--steps", 5, "--out", "run", "--checkpoint-every", 1, "--keep", keep)
    found = resume.checkpoint.candidates(tmp_path / "run")
    assert [checkpoint.load(path).position["step"] for path in found] == [5, 4, 3][:keep]


def test_threads_and_a_restart_change_no_bit(run, tmp_path):
    before = backend.get("cpu").pool.threads
    large = (*SMALL[:2], "--batch-size", 22, *SMALL[4:])  # work enough to be cut into slices
    try:
        for out, first, then in (("one", 1, 2), ("three", 3, 1)):
            mg.set_num_threads(first)
            assert run(*large, "--steps", 1, "--out", out)[0] == 0
            mg.set_num_threads(then)
            assert run("--resume", out, "--steps", 2)[0] == 0
    finally:
        mg.set_num_threads(before)
    assert_equal_runs(tmp_path / "one", tmp_path / "three")


def test_a_checkpoint_is_read_whole_while_a_live_run_puts_another_in_its_place(run, tmp_path, monkeypatch):
    run(*SMALL, "--steps", 2, "--out", "run", "--checkpoint-every", 1)
    run(*SMALL, "--steps", 3, "--out", "next", "--checkpoint-every", 1)
    place, following = (tmp_path / name / checkpoint.FILE_NAME for name in ("run", "next"))
    right, opened = serialize.safe_open, []

    def overtaken(path, **options):
        opened.append(path)
        file = right(path, **options)
        os.replace(following, place)  # the file that is open stays what it was
        return file

    monkeypatch.setattr(serialize, "safe_open", overtaken)
    assert checkpoint.load(tmp_path / "run").position["step"] == 2
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "run").position["step"] == 3
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ({}, False),
        ({"kernels": "NumPy"}, True),
        ({"kernels": None}, True),  # of an earlier version: by NumPy's forms
        ({"kernels": 3}, True),
        ({"device": "gpu", "kernels": None}, False),
    ],
    ids=["the same", "NumPy's", "none named", "nonsense", "a GPU's"],
)
def test_other_kernels_than_before_are_told(run, tmp_path, monkeypatch, before, told):
    kernels = native.KernelStatus("C, gcc 12.2.0, 64-byte vectors", tmp_path / "kernels.so")
    monkeypatch.setattr(native, "_loaded", native.Loaded(native.kernels(), kernels))
    assert run(*SMALL, "--steps", 1, "--out", "run")[0] == 0
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    assert config["kernels"] == kernels.name
    changed = {key: value for key, value in {**config, **before}.items() if value is not None}
    path.write_text(json.dumps(changed))
    code, said = run("--resume", "run", "--steps", 2)
    assert code == 0
    assert ("The CPU's kernels are other ones than before" in said) == told
    if told:
        assert f"({before['kernels'] or 'NumPy'}; now {kernels.name}): the run goes on" in said
    assert json.loads(path.read_text())["kernels"] == kernels.name
