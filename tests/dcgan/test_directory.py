"""A run's directory: whose it is, what is in it that is not ours, and log files that lost something."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from dcgan import presets, train
from dcgan.data.batches import Batches
from dcgan.data.feed import Feed
from dcgan.errors import UserError
from dcgan.evaluation import monitor
from dcgan.files import jsonfile
from dcgan.run import checkpoint, directory, evaluations, opening, outputs, training
from dcgan.run.config import RunConfig
from dcgan.run.directory import RunDirectory
from minigrad import serialize

pytestmark = pytest.mark.usefixtures("digests")

SMALL = (
    "--preset", "quick", "--batch-size", "8", "--data", "d.npy", "--set", "grid_rows=2",
    "--set", "grid_columns=2", "--set", "frame_every=2", "--set", "sample_every=4",
)  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Calls the command of training on a few images: the exit code, and what it said."""
    np.save(tmp_path / "d.npy", np.random.default_rng(0).integers(0, 256, (40, 28, 28)).astype(np.uint8))
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = train.main([*map(str, arguments)])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def no_pictures(monkeypatch):
    """Without the pictures of the end, which take a second."""
    monkeypatch.setattr(outputs.Outputs, "final", lambda self, step: {})
    monkeypatch.setattr(training.Checkup, "finish", lambda self: None)


def files(directory):
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in Path(directory).rglob("*")
        if p.is_file() and p.name != "timing.jsonl"
    }


def steps_of(name):
    return [json.loads(line)["step"] for line in Path(name).read_text().splitlines()]


class Killed(BaseException):
    """In place of SIGKILL, which would take the tests with it."""


def raises_killed(*_):
    raise Killed


@pytest.fixture
def killed(run, monkeypatch):
    """Calls the command with a function replaced by one that ends the process, or the disk's room."""

    def call(owner, name, instead, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, instead)
            with pytest.raises((Killed, UserError)):
                run(*arguments)

    return call


# -- whose it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_run_whose_directory_was_replaced_ends_and_leaves_the_other_alone(run, monkeypatch, how):
    write_frame = outputs.Outputs.write_frame

    def replaced(self, step):
        if step == 4:
            shutil.rmtree("run") if how == "removed" else os.rename("run", "elsewhere")
            other = RunDirectory.create(Path("run"), RunConfig(presets.get("quick"), "cpu", "mnist"))
            other.append("metrics.jsonl", [{"step": 1}])
            other.close()
        write_frame(self, step)

    monkeypatch.setattr(outputs.Outputs, "write_frame", replaced)
    with pytest.raises(UserError, match="after step 4 run could not be written: another directory has taken"):
        run(*SMALL, "--steps", 8, "--out", "run")
    assert set(files("run")) == {"config.json", "metrics.jsonl"}
    assert steps_of("run/metrics.jsonl") == [1]


def test_a_directory_is_claimed_once_and_a_killed_start_leaves_it_free(run, tmp_path):
    recipe = (presets.get("quick"), "cpu", "mnist")
    first = RunDirectory.create(Path("run"), RunConfig(*recipe))
    with pytest.raises(UserError, match="exists already"):
        RunDirectory.create(Path("run"), RunConfig(*recipe))
    with pytest.raises(UserError, match="another process is training there"):
        RunDirectory.reopen(Path("run"))
    first.close()
    os.makedirs("killed/in")
    Path("killed/in/.minigrad-12345678.partial").write_text("{")  # of a config.json
    RunDirectory.create(Path("killed/in"), RunConfig(*recipe)).close()
    assert sorted(os.listdir("killed/in")) == ["config.json", "frames", "samples"]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_can_be_trained_on(tmp_path, monkeypatch, error):
    def refused(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(directory.fcntl, "flock", refused)
    RunDirectory.create(tmp_path / "run", RunConfig(presets.get("quick"), "cpu", "mnist")).close()
    RunDirectory.reopen(tmp_path / "run").close()


def test_a_start_that_fails_leaves_no_directory(run, monkeypatch):
    def refused(*_, **__):
        raise MemoryError("too much")

    monkeypatch.setattr(opening, "Training", refused)
    with pytest.raises(MemoryError):
        run(*SMALL, "--steps", 8, "--out", "a/b/run")
    assert not Path("a").exists()
    os.makedirs("mine")
    with pytest.raises(MemoryError):
        run(*SMALL, "--steps", 8, "--out", "mine")
    assert os.listdir("mine") == []


def test_a_failure_after_the_first_steps_removes_nothing(run, monkeypatch):
    feed = Feed.batch_of

    def fails(self, step, count):
        if step() == 3:
            raise MemoryError("too much")
        return feed(self, step, count)

    monkeypatch.setattr(Feed, "batch_of", fails)
    with pytest.raises(MemoryError):
        run(*SMALL, "--steps", 8, "--out", "run")
    assert Path("run/config.json").exists()


def test_a_place_to_write_to_and_another_do_not_go_together(run, no_pictures):
    run(*SMALL, "--steps", 2, "--out", "run")
    with pytest.raises(UserError, match="--out x: --resume continues a run in its own directory"):
        run("--resume", "run", "--steps", 4, "--out", "x")
    shutil.copy("run/checkpoint.safetensors", "mine.safetensors")
    with pytest.raises(UserError, match=r"\. is no run's directory"):
        run("--resume", "mine.safetensors", "--steps", 4)


def test_the_directory_is_locked_before_its_checkpoint_is_read(run, no_pictures, monkeypatch):
    run(*SMALL, "--steps", 2, "--out", "run")
    load, other = checkpoint.load, RunDirectory(Path("run"))

    def watched(path, *arguments):
        with pytest.raises(UserError, match="another process is training there"):
            other.lock()
        return load(path, *arguments)

    monkeypatch.setattr(checkpoint, "load", watched)
    assert run("--resume", "run", "--steps", 4)[0] == 0


# -- what is not ours ---------------------------------------------------------------------------------

LINKED = ("frames", "samples", "checkpoints", "metrics.jsonl", "vitals.jsonl", "checkpoint.safetensors",
          "config.json", "frames/00000002.png", "checkpoints/00000004.safetensors")  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_is_refused_and_what_it_leads_to_stays(run, no_pictures, name):
    run(*SMALL, "--steps", 6, "--out", "run", "--checkpoint-every", 2, "--vitals-every", 2)
    os.rename(Path("run") / name, "outside")
    os.symlink(Path("outside").absolute(), Path("run") / name)
    if Path("outside").is_dir():
        Path("outside/20230101.png").write_bytes(b"a photograph")
    before = files(".")
    with pytest.raises(UserError, match=f"--resume run/{name}: it is a symbolic link"):
        run("--resume", "run", "--steps", 8)
    assert files(".") == before


def test_a_pipe_in_a_run_is_refused_and_the_runs_own_path_may_be_a_link(run, no_pictures):
    run(*SMALL, "--steps", 2, "--out", "run")
    os.symlink("run", "link")
    assert run("--resume", "link", "--steps", 4)[0] == 0
    assert steps_of("run/metrics.jsonl") == [1, 2, 3, 4]
    os.unlink("run/metrics.jsonl")
    os.mkfifo("run/metrics.jsonl")
    with pytest.raises(UserError, match="--resume run/metrics.jsonl: it is not a plain file"):
        run("--resume", "run", "--steps", 6)


def test_a_link_that_comes_while_it_trains_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("mine")
    made = RunDirectory(tmp_path / "run")
    (made.path / "metrics.jsonl").symlink_to(outside / "notes.txt")
    (made.path / "frames").symlink_to(outside)
    with pytest.raises(OSError, match="Too many levels of symbolic links|loop"):
        made.append("metrics.jsonl", [{"step": 1}])
    with pytest.raises(OSError, match="a link or a file"):
        made.place("frames/00000001.png")
    assert (outside / "notes.txt").read_text() == "mine"


def test_what_is_the_users_stays_and_is_left_out_of_the_animation(run):
    run(*SMALL, "--steps", 4, "--out", "run", "--checkpoint-every", 2)
    mine = {
        ".notes.markdown": b"notes", "notes.txt": b"more", "frames/holiday.png": b"no picture",
        "frames/20230101.png": b"a photograph", "samples/quick_steps_900000.png": b"from elsewhere",
        "checkpoints/0-mine.safetensors": b"weights", "checkpoints/.abc.defghijk": b"hidden",
        "frames/.a.12345678": b"",
    }  # fmt: skip
    for name, content in mine.items():
        (Path("run") / name).write_bytes(content)
    code, said = run("--resume", "run", "--steps", 6, "--checkpoint-every", 2)
    assert code == 0
    assert "warning" not in said
    found = files("run")
    assert {name: found[name] for name in mine} == mine
    run(*SMALL, "--steps", 6, "--out", "whole", "--checkpoint-every", 2)
    assert set(found) - set(mine) == set(files("whole"))
    assert found["output.gif"] == files("whole")["output.gif"]


def test_lines_that_are_added_do_not_show_in_a_copy_by_links(run, no_pictures):
    """`cp -al run backup`: both names are of one file."""
    run(*SMALL, "--steps", 2, "--out", "run")
    os.mkdir("backup")
    for name in ("metrics.jsonl", "checkpoint.safetensors"):
        os.link(f"run/{name}", f"backup/{name}")
    before = files("backup")
    assert run("--resume", "run", "--steps", 4)[0] == 0
    assert files("backup") == before


# -- checkpoints --------------------------------------------------------------------------------------


def damage(path):
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)


@pytest.mark.parametrize("when", ["link", "replace", "unlink", "full"])
def test_the_checkpoint_that_was_loaded_outlives_a_kill_at_any_moment(run, killed, no_pictures, when):
    run(*SMALL, "--steps", 8, "--out", "run", "--checkpoint-every", 2)
    damage("run/checkpoint.safetensors")

    def killed_after(name):
        function = getattr(os, name)

        def call(*arguments, **options):
            function(*arguments, **options)
            raise Killed

        return call

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "run/checkpoint.safetensors")

    owner, name, instead = (checkpoint, "save", full) if when == "full" else (os, when, killed_after(when))
    killed(owner, name, instead, "--resume", "run", "--steps", 12, "--checkpoint-every", 2)
    assert run("--resume", "run", "--steps", 12, "--checkpoint-every", 2)[0] == 0
    assert checkpoint.load(Path("run")).position["step"] == 12
    assert steps_of("run/metrics.jsonl") == list(range(1, 13))


def test_an_older_checkpoint_that_is_named_leaves_no_later_one(run, killed, no_pictures):
    """Killed right after the log was cut, the run goes on from where the log ends."""
    run(*SMALL, "--steps", 9, "--out", "run", "--checkpoint-every", 3, "--keep", 5, "--every", 9)
    assert Path("run/best.safetensors").exists()

    killed(
        training.Training,
        "train",
        raises_killed,
        "--resume",
        "run/checkpoints/00000003.safetensors",
        "--steps",
        9,
    )
    assert steps_of("run/metrics.jsonl") == [1, 2, 3]
    assert [checkpoint.load(p).position["step"] for p in checkpoint.candidates(Path("run"))] == [3, 3]
    assert not Path("run/best.safetensors").exists()
    code, said = run("--resume", "run", "--steps", 6)
    assert code == 0
    assert "from step 3 on" in said
    assert steps_of("run/metrics.jsonl") == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_can_not_be_opened_is_not_taken_for_a_damaged_one(run, no_pictures, monkeypatch):
    run(*SMALL, "--steps", 4, "--out", "run", "--checkpoint-every", 2)
    before = files("run")

    def refused(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(serialize, "safe_open", refused)
    with pytest.raises(UserError, match=r"run/checkpoint.safetensors can't be read: Permission denied"):
        run("--resume", "run", "--steps", 6)
    assert files("run") == before


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_takes_the_place_of_another_file_at_once(tmp_path, monkeypatch, links):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    unlinked = []
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: unlinked.append(self.name))
    if not links:

        def none(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", none)
    checkpoint.give_name(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert all(serialize.is_temporary(name) for name in unlinked)


# -- what a kill, or a full disk, left out -----------------------------------------------------------


def test_pictures_of_the_end_that_a_kill_left_out_are_drawn(run, killed):
    run(*SMALL, "--steps", 3, "--out", "whole", "--vitals-every", 1)

    killed(outputs.Outputs, "final", raises_killed, *SMALL, "--steps", 3, "--out", "run", "--vitals-every", 1)
    code, said = run("--resume", "run")
    assert code == 0
    assert "run has 3 steps already, of 3 wanted: nothing to train." in said
    assert files("run") == files("whole")


def test_a_run_killed_before_its_first_checkpoint_starts_again(run, killed, no_pictures):
    run(*SMALL, "--steps", 4, "--out", "whole", "--set", "flip=0.5")

    killed(
        training.Training, "save", raises_killed, *SMALL, "--steps", 4, "--out", "run", "--set", "flip=0.5"
    )
    assert not Path("run/checkpoint.safetensors").exists()
    shutil.copy("whole/checkpoint.safetensors", "run/best.safetensors")  # of an evaluation before that
    code, said = run("--resume", "run")
    assert code == 0
    assert "from step 0 on" in said
    assert files("run") == files("whole")


def test_a_longer_run_that_was_killed_at_its_beginning_goes_on_to_its_end(run, killed, no_pictures):
    run(*SMALL, "--steps", 2, "--out", "run")

    killed(training.Training, "train", raises_killed, "--resume", "run", "--steps", 4)
    run("--resume", "run")
    assert steps_of("run/metrics.jsonl") == [1, 2, 3, 4]


def test_an_evaluation_that_a_kill_left_out_is_made_on_resuming(run, killed, no_pictures):
    steps = ("--steps", 8, "--every", 4, "--checkpoint-every", 2)
    run(*SMALL, *steps, "--out", "whole")

    killed(monitor.Monitor, "measure", raises_killed, *SMALL, *steps, "--out", "run")
    assert checkpoint.load(Path("run")).position["step"] == 4
    run("--resume", "run", "--every", 4, "--checkpoint-every", 2)
    assert steps_of("run/evaluations.jsonl") == [4, 8]
    assert files("run") == files("whole")


def test_a_run_in_parts_is_evaluated_as_one_in_one_piece(run, no_pictures):
    run(*SMALL, "--steps", 8, "--every", 5, "--out", "whole")
    run(*SMALL, "--steps", 6, "--every", 5, "--out", "parts")
    run("--resume", "parts", "--steps", 8, "--every", 5)
    assert steps_of("whole/evaluations.jsonl") == [5]
    assert Path("whole/evaluations.jsonl").read_bytes() == Path("parts/evaluations.jsonl").read_bytes()
    assert checkpoint.load(Path("parts/best.safetensors")).position["step"] == 5
    _, said = run(*SMALL, "--steps", 3, "--every", 5, "--out", "short")
    assert "--every 5: no step up to 3 is a multiple of it, so nothing will be measured" in said


WILD = ("--set", "lr_generator=1e30", "--set", "lr_discriminator=1e30")


class Full:
    """A disk that takes no file of some names for a while."""

    def __init__(self, monkeypatch, *names):
        self.names, self.on = names, True
        append, write = jsonfile.append, serialize.write_whole
        for module, name, right in (
            (jsonfile, "append", append), (checkpoint, "write_whole", write),
            (evaluations, "write_whole", write),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self.checked(right))

    def checked(self, right):
        def call(path, content):
            if self.on and Path(path).name in self.names:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            right(path, content)

        return call


def test_a_full_disk_repeats_no_line(run, no_pictures, monkeypatch):
    disk = Full(monkeypatch, "timing.jsonl")
    monkeypatch.setattr(training.StepLog, "write_speed", counted := Counted(training.StepLog.write_speed))
    counted.before[6] = lambda: setattr(disk, "on", False)
    _, said = run(*SMALL, "--set", "log_every=1", "--steps", 8, "--out", "run")
    assert said.count("warning: after step 1 timing.jsonl could not be written: No space left on device") == 1
    assert steps_of("run/metrics.jsonl") == list(range(1, 9))
    assert steps_of("run/timing.jsonl") == list(range(1, 9))


class Counted:
    """A method that counts its calls, and does something before some of them."""

    def __init__(self, right):
        self.right, self.calls, self.before = right, 0, {}

    def __get__(self, instance, owner):
        def call(*arguments):
            self.calls += 1
            self.before.get(self.calls, lambda: None)()
            return self.right(instance, *arguments)

        return call


def test_a_best_checkpoint_that_finds_no_room_is_written_when_there_is_some(run, no_pictures, monkeypatch):
    run(*SMALL, "--steps", 8, "--every", 4, "--out", "whole")
    disk = Full(monkeypatch, "best.safetensors")
    monkeypatch.setattr(training.StepLog, "record", counted := Counted(training.StepLog.record))
    counted.before[6] = lambda: setattr(disk, "on", False)
    _, said = run(*SMALL, "--steps", 8, "--every", 4, "--out", "run")
    assert said.count("the evaluation could not be written: No space left on device") == 1
    assert steps_of("run/evaluations.jsonl") == [4, 8]
    assert files("run") == files("whole")


def test_the_end_needs_no_room_for_a_checkpoint_that_exists(run, monkeypatch):
    saved = []
    save = checkpoint.save

    def once(path, preset, position, *arguments):
        if position["step"] in saved:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        saved.append(position["step"])
        save(path, preset, position, *arguments)

    monkeypatch.setattr(checkpoint, "save", once)
    assert run(*SMALL, "--steps", 4, "--out", "run")[0] == 0
    assert saved == [4]
    assert Path("run/losses.png").exists()


def test_a_bad_line_in_a_log_is_skipped_with_a_warning(run, no_pictures):
    run(*SMALL, "--steps", 6, "--out", "run", "--vitals-every", 1)
    lines = Path("run/metrics.jsonl").read_text().splitlines(keepends=True)
    for i, bad in ((1, "{\n"), (2, "\x00\xff" * 5 + "\n")):
        lines[i] = bad
    lines.insert(4, lines[3])  # twice
    Path("run/metrics.jsonl").write_text("".join(lines), encoding="latin-1")
    vitals = Path("run/vitals.jsonl").read_text().splitlines(keepends=True)
    Path("run/vitals.jsonl").write_text("".join([*vitals[:2], "[]\n", *vitals[2:]]))
    code, said = run("--resume", "run", "--steps", 7)
    assert code == 0
    assert "warning: metrics.jsonl: 3 damaged or repeated lines were removed" in said
    assert "warning: metrics.jsonl lacks 2 of the 6 steps so far" in said
    assert "warning: vitals.jsonl: 1 damaged or repeated lines were removed" in said
    assert steps_of("run/metrics.jsonl") == [1, 4, 5, 6, 7]
    assert steps_of("run/vitals.jsonl") == [1, 2, 3, 4, 5, 6]


def test_a_wrong_step_costs_its_own_line_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 30, 4, 5, 5, 6)))
    found = jsonfile.step_lines(path)
    assert (found.steps, found.damaged) == ([1, 2, 4, 5, 6], 2)


def test_a_log_that_can_not_be_written_costs_no_weights(run, no_pictures, monkeypatch):
    Full(monkeypatch, "metrics.jsonl")
    code, said = run(*SMALL, "--steps", 4, "--out", "run")
    assert code == 0
    assert said.count("metrics.jsonl could not be written") == 1
    assert checkpoint.load(Path("run")).position["step"] == 4


def test_a_run_that_diverges_saves_no_such_weights_where_its_log_can_not_be_written(
    run, no_pictures, monkeypatch
):
    Full(monkeypatch, "metrics.jsonl")
    code, said = run(*SMALL, *WILD, "--out", "run")
    assert code == 1
    assert said.count("The run has diverged: at step 1 ") == 1
    assert not Path("run/checkpoint.safetensors").exists()


def test_a_log_that_has_room_only_at_the_end_of_a_run_lacks_no_step(run, no_pictures, monkeypatch):
    disk = Full(monkeypatch, "metrics.jsonl")
    save = checkpoint.save

    def room(*arguments):
        save(*arguments)
        disk.on = False

    monkeypatch.setattr(checkpoint, "save", room)
    run(*SMALL, "--steps", 4, "--out", "run")
    assert steps_of("run/metrics.jsonl") == [1, 2, 3, 4]


def test_a_start_that_finds_no_room_for_its_recipe_leaves_no_directory(run, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(directory, "write_whole", full)
    with pytest.raises(UserError, match="No space left on device"):
        run(*SMALL, "--steps", 4, "--out", "a/b/run")
    assert not Path("a").exists()


def test_an_endless_line_is_not_read_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n')
    os.truncate(path, 2**33)  # it takes no room
    found = jsonfile.step_lines(path)
    assert (found.steps, found.damaged) == ([1], 1)


def test_what_follows_the_last_whole_line_is_cut_off_before_more_is_added(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo')
    jsonfile.append(path, [{"step": 2}])
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    path.write_bytes(b"no line at all")
    jsonfile.append(path, [{"step": 1}])
    assert path.read_text() == '{"step": 1}\n'


def test_a_step_far_away_takes_no_time_to_forget(tmp_path):
    """Of step 2^40: the grids that would be due are not counted one by one."""
    preset = presets.get("quick", sample_every=250, steps=2**41)
    made = RunDirectory.create(tmp_path / "run", RunConfig(preset, "cpu", "mnist"))
    batches = type("Batches", (), {"per_epoch": 4, "epoch_of": lambda self, step: (step - 1) // 4 + 1})()
    drawn = outputs.Outputs(preset, batches, made, None, "cpu")
    for name in ("quick_steps_000250.png", "quick_steps_000251.png", "quick_steps_1099511628000.png"):
        (made.samples / name).write_bytes(b"")
    drawn.forget_after(2**40, 2**40 + 50)
    assert sorted(os.listdir(made.samples)) == ["quick_steps_000250.png", "quick_steps_1099511628000.png"]
    made.close()


def test_grids_that_count_epochs_are_forgotten_by_their_epoch(tmp_path):
    preset = presets.get("tensorflow")  # a grid at the end of each epoch
    made = RunDirectory.create(tmp_path / "run", RunConfig(preset, "cpu", "mnist"))
    batches = Batches(np.zeros((128 * 4, 28, 28), np.uint8), 128, mg.Generator(0, 2))
    drawn = outputs.Outputs(preset, batches, made, None, "cpu")
    for epoch in range(6):
        (made.samples / f"dcgan_gen_data_{epoch}.png").write_bytes(b"")
    drawn.forget_after(9, 14)  # two epochs of four steps, and one step; drawn up to the fourth epoch
    assert sorted(os.listdir(made.samples)) == [f"dcgan_gen_data_{n}.png" for n in (0, 1, 4, 5)]
    made.close()


def test_a_picture_that_fails_for_any_reason_ends_no_run(run, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no LaTeX")

    monkeypatch.setattr(outputs.pictures, "save_losses", fails)
    code, said = run(*SMALL, "--steps", 2, "--out", "run")
    assert code == 0
    assert said.count("warning: after step 2 losses.png could not be written: no LaTeX") == 1
    assert checkpoint.load(Path("run")).position["step"] == 2
    assert Path("run/output.gif").exists()


def test_images_that_changed_in_part_are_refused_and_older_fingerprints_taken(run, no_pictures):
    run(*SMALL, "--steps", 2, "--out", "run")
    images = np.load("d.npy")
    images[17, 3, 3] ^= 1
    np.save("e.npy", images)
    with pytest.raises(UserError, match="trained on other images"):
        run("--resume", "run", "--steps", 4, "--data", "e.npy")
    loaded = checkpoint.load(Path("run"))
    batches = Batches(np.load("d.npy")[..., None], 8, mg.Generator(0, 2))
    assert batches.matches(loaded.images)
    some = batches._digest(sorted({40 * k // 64 for k in range(64)}))
    assert batches.matches(f"40 images, {some}")
    assert not batches.matches(f"40 images, {some[::-1]}")


def test_signals_are_named_in_the_exit_code(run, no_pictures, monkeypatch):
    feed = Feed.batch_of

    def hung_up(self, step, count):
        os.kill(os.getpid(), signal.SIGHUP)
        return feed(self, step, count)

    monkeypatch.setattr(Feed, "batch_of", hung_up)
    code, said = run(*SMALL, "--steps", 4, "--out", "run")
    assert code == 128 + signal.SIGHUP
    assert "Stopped after step 1 of 4; everything up to there is kept." in said


def test_a_range_is_kept_and_taken_again(run, no_pictures):
    """A resumed run takes the stored range, unless it names other images."""
    images = np.random.default_rng(0).integers(0, 4096, (40, 28, 28)).astype(np.uint16)
    np.save("deep.npy", images)
    deep = [*SMALL[:5], "deep.npy", *SMALL[6:]]
    with pytest.raises(UserError, match=r"--range 0,4095"):
        run(*deep, "--steps", 2, "--out", "run")
    assert not Path("run").exists()
    _, said = run(*deep, "--range", "0,4095", "--steps", 2, "--out", "run")
    assert "0 as black, 4095 as white" in said
    assert json.loads(Path("run/config.json").read_text())["range"] == [0, 4095]
    assert run("--resume", "run", "--steps", 3)[0] == 0
    assert run("--resume", "run", "--steps", 4, "--data", "deep.npy")[0] == 0
    with pytest.raises(UserError, match="trained on other images"):
        run("--resume", "run", "--steps", 5, "--range", "0,5000")
    assert steps_of("run/metrics.jsonl") == [1, 2, 3, 4]
