"""The log for TensorBoard: what a run writes, in event files that can be read at any moment."""

import errno
import json
import os
import signal
import struct
import sys

import numpy as np
import pytest

from dcgan import train
from dcgan.errors import UserError
from dcgan.files import plainfile
from dcgan.run import tags, tensorboard
from dcgan.run.checkup import Checkup
from dcgan.run.directory import LINES, RunDirectory
from dcgan.run.learner import Learner
from dcgan.run.outputs import Outputs
from dcgan.run.step_log import StepLog

pytest.importorskip("tensorboardX")

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

pytestmark = pytest.mark.usefixtures("digests")

SMALL = (
    "--preset", "pytorch", "--data", "d.npy", "--batch-size", "4", "--vitals-every", "2",
    "--set", "image_size=8", "--set", "channels=1", "--set", "ngf=2", "--set", "ndf=2",
    "--set", "sample_every=2", "--set", "grid_rows=2", "--set", "grid_columns=2",
    "--set", "sample_name=grid_{step}.png",
)  # fmt: skip
LOG = ("--log", "tensorboard")


def events(run):
    """The events of a run's files, in their order; each file has to be whole."""
    found = []
    for path in sorted((run / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            length, *sums = struct.unpack_from("<QI", content)
            data, content = content[12 : 12 + length], content[16 + length :]
            assert len(data) == length
            assert sums == [masked_crc32c(struct.pack("<Q", length))]
            found.append(Event.FromString(data))
    return found


def shown(run):
    """Return the records of a run's event files in their order: for each tag, its steps and values."""
    values = {}
    for event in events(run):
        if event.session_log.status == SessionLog.START:
            values = {tag: [each for each in of if each[0] < event.step] for tag, of in values.items()}
        for value in event.summary.value:
            kind = "simple_value" if value.HasField("simple_value") else "image"
            kind = "tensor" if value.HasField("tensor") else kind
            values.setdefault(value.tag, []).append((event.step, getattr(value, kind)))
    return values


def steps(values, tag):
    return [step for step, _ in values[tag]]


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def as_float32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def files(run):
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != "timing.jsonl" and path.parent.name != "tensorboard"
    }


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Calls the command of training on a few images, without the pictures of the end that take a second."""
    np.save(tmp_path / "d.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    for owner, name in ((Outputs, "write_curves"), (Outputs, "_write_side_by_side"), (Checkup, "finish")):
        monkeypatch.setattr(owner, name, lambda self: None)

    def call(*arguments, out="run"):
        code = train.main([*arguments, "--out", str(tmp_path / out)])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def logged(run, tmp_path):
    """Trains a few steps with a log: its directory, and what was said."""

    def call(*arguments, out="run"):
        code, said = run(*SMALL, *LOG, *arguments, out=out)
        return tmp_path / out, said, code

    return call


@pytest.fixture
def resumed(capsys):
    """Goes on with a run; what was said."""

    def call(run, *arguments):
        assert train.main(["--resume", str(run), "--vitals-every", "2", *arguments]) == 0
        return capsys.readouterr().out

    return call


def test_everything_is_shown(logged):
    run, said, _ = logged("--steps", "4", "--every", "4")
    values = shown(run)
    for tag, name in (("loss/D", "loss_d"), ("loss/G", "loss_g"), ("probability/D(x)", "d_x")):
        assert values[tag] == [(line["step"], as_float32(line[name])) for line in metrics(run)]
    assert steps(values, "speed/images per second")[-1] == 4
    assert steps(values, "evaluation/Fréchet distance") == [4]
    assert steps(values, "evaluation: real images/recall") == [4]
    measured = [json.loads(line) for line in (run / "vitals.jsonl").read_text().splitlines()]
    norms = [tag for tag in values if tag.startswith("vitals: gradient norm/")]
    assert len(norms) == sum(layer["gradient_norm"] is not None for layer in measured[0]["layers"])
    assert all(steps(values, tag) == [1, 2, 4] for tag in norms)
    assert values["vitals/spread of the samples"] == [
        (line["step"], as_float32(line["spread"])) for line in measured
    ]
    assert f"log        {run / 'tensorboard'}" in said
    assert len({tag.partition("/")[0] for tag in values}) <= 12  # the groups of the page


def test_the_grids_are_the_runs_own_files(logged):
    run, _, _ = logged("--steps", "3")
    values = shown(run)
    assert steps(values, "pictures/samples") == [0, 2, 3]
    for step, image in values["pictures/samples"]:
        assert image.encoded_image_string == (run / f"samples/grid_{step}.png").read_bytes()
        assert image.width == image.height > 2 * 8
    ((_, real),) = values["pictures/real images"]
    assert real.encoded_image_string == (run / "training_images.png").read_bytes()


def test_the_other_files_are_the_same_with_and_without_it(logged, run, tmp_path):
    with_log, _, _ = logged("--steps", "4")
    run(*SMALL, "--steps", "4", out="without")
    assert files(with_log) == files(tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_the_file_has_every_line_at_once(logged, tmp_path, monkeypatch):
    """So a process that is killed loses nothing, and nothing has to be closed."""
    report, seen = StepLog.report, []

    def look(self, step):
        seen.append((steps(shown(tmp_path / "run"), "loss/D"), len(metrics(self.run.path))))
        report(self, step)

    monkeypatch.setattr(StepLog, "report", look)
    logged("--steps", "3", "--set", "log_every=1")
    assert seen[0] == ([1], 1)
    assert seen[-1] == ([1, 2, 3], 3)


def test_a_run_without_tensorboardx_makes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="--log tensorboard needs the package tensorboardX: pip install"):
        run(*SMALL, *LOG, "--steps", "1")
    assert not (tmp_path / "run").exists()


def test_a_tensorboardx_that_is_broken_is_told(monkeypatch, tmp_path):
    (tmp_path / "tensorboardX.py").write_text("raise TypeError('Descriptors cannot be created')")
    monkeypatch.delitem(sys.modules, "tensorboardX")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"can't be imported \(TypeError: Descriptors cannot be created\)"):
        tensorboard.check()


def test_a_full_disk_is_told_once_and_ends_no_run(logged, run, tmp_path, monkeypatch):
    append, tried = plainfile.append, []

    def full(path, content, end):
        if path.name.endswith(".tfevents"):
            tried.append(path)
            if len(tried) <= 5:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        append(path, content, end)

    monkeypatch.setattr(plainfile, "append", full)
    found, said, code = logged("--steps", "4")
    assert code == 0
    assert said.count(f"warning: {tried[0]} could not be written: No space left on device") == 1
    assert steps(shown(found), "loss/D") == [1, 2, 3, 4]  # there is room for all of them later
    run(*SMALL, "--steps", "4", out="without")
    assert files(found) == files(tmp_path / "without")


def test_whatever_goes_wrong_in_it_ends_no_run(logged, monkeypatch):
    monkeypatch.setattr(plainfile, "append", no_tfevents(RuntimeError(), plainfile.append))
    _, said, code = logged("--steps", "2")
    assert code == 0
    assert said.count(".tfevents could not be written: RuntimeError") == 1


def no_tfevents(error, append):
    def call(path, content, end):
        if path.name.endswith(".tfevents"):
            raise error
        append(path, content, end)

    return call


def test_a_run_that_goes_on_forgets_the_steps_after_its_checkpoint(logged, resumed):
    run, _, _ = logged("--steps", "5", "--checkpoint-every", "1")
    before = events(run)
    (run / "checkpoint.safetensors").unlink()  # the one before it is of step 4
    resumed(run, "--steps", "6", *LOG)
    found, values = events(run), shown(run)
    assert found[: len(before)] == before
    assert [event.step for event in found if event.session_log.status == SessionLog.START] == [1, 5]
    assert values["loss/D"] == [(line["step"], as_float32(line["loss_d"])) for line in metrics(run)]
    assert steps(values, "pictures/samples") == [0, 2, 4, 6]
    assert steps(values, "pictures/real images") == [0]
    assert steps(values, "vitals/spread of the samples") == [1, 2, 4, 6]


def test_a_run_that_began_without_it_shows_its_earlier_steps_too(run, tmp_path, resumed):
    run(*SMALL, "--steps", "4")
    (tmp_path / "run" / "samples" / "holiday.png").touch()
    resumed(tmp_path / "run", "--steps", "5", *LOG)
    values = shown(tmp_path / "run")
    assert steps(values, "loss/D") == [1, 2, 3, 4, 5]
    assert steps(values, "vitals/spread of the samples") == [1, 2, 4]
    assert steps(values, "pictures/samples") == [0, 2, 4, 5]
    assert steps(values, "pictures/real images") == [0]


def test_damaged_lines_and_grids_are_left_out(run, tmp_path, resumed):
    run(*SMALL, "--steps", "2")
    vitals = tmp_path / "run" / "vitals.jsonl"
    damaged = {**json.loads(vitals.read_text().splitlines()[0]), "layers": 7}
    vitals.write_text(json.dumps(damaged) + "\n")
    (tmp_path / "run" / "samples" / "grid_0.png").write_text("no picture")
    with pytest.raises(UserError, match="is damaged"):
        resumed(tmp_path / "run", "--steps", "3", *LOG)
    vitals.unlink()
    said = resumed(tmp_path / "run", "--steps", "3", *LOG)
    assert "grid_0.png is no PNG file" in said
    assert steps(shown(tmp_path / "run"), "pictures/samples") == [2, 3]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("metrics.jsonl", {"step": "1"}),
        ("metrics.jsonl", {"step": 2**64}),
        ("timing.jsonl", {"step": 1}),
        ("timing.jsonl", {"step": 1, "images_per_second": "fast"}),
        ("vitals.jsonl", {"step": 1, "epoch": 1}),
        ("evaluations.jsonl", {"epoch": 1}),
    ],
)
def test_a_line_that_makes_no_sense_is_left_out(tmp_path, name, line):
    said = []
    board = tensorboard.TensorBoard(RunDirectory(tmp_path), 0, said.append)
    board.lines(name, [line, {"step": 1, "images_per_second": 5}] if name == "timing.jsonl" else [line])
    assert (said, len(events(tmp_path))) == ([], 3 if name == "timing.jsonl" else 2)


def test_every_log_file_is_shown():
    assert tags.READERS.keys() == set(LINES)


def test_numbers_that_are_not_finite_are_left_out():
    line = {"step": 3, "loss_d": None, "loss_g": 1.5, "d_x": 0, "d_g_z1": None, "d_g_z2": None}
    assert tags.numbers("metrics.jsonl", line) == {"loss/G": 1.5, "probability/D(x)": 0.0}
    assert tags.numbers("timing.jsonl", {"images_per_second": 1e39}) == {}  # float32 has none so large


def test_a_folder_that_is_removed_is_made_again(tmp_path):
    board = tensorboard.TensorBoard(RunDirectory(tmp_path), 0, pytest.fail)
    board.lines("timing.jsonl", [{"step": 1, "images_per_second": 5}])
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.unlink()
    path.parent.rmdir()
    board.lines("timing.jsonl", [{"step": 2, "images_per_second": 6}])
    assert shown(tmp_path) == {"speed/images per second": [(2, 6.0)]}


def test_what_was_written_in_part_is_cut_off(tmp_path):
    board = tensorboard.TensorBoard(RunDirectory(tmp_path), 0, pytest.fail)
    board.lines("timing.jsonl", [{"step": 1, "images_per_second": 5}])
    (path,) = (tmp_path / "tensorboard").iterdir()
    with open(path, "ab") as file:
        file.write(b"half a record")
    board.lines("timing.jsonl", [{"step": 2, "images_per_second": 6}])
    assert shown(tmp_path) == {"speed/images per second": [(1, 5.0), (2, 6.0)]}


def test_a_new_file_comes_after_the_earlier_ones(tmp_path):
    folder = tmp_path / "tensorboard"
    folder.mkdir()
    (folder / "events.99999999999.tfevents").touch()
    (folder / "events.x.tfevents").touch()
    board = tensorboard.TensorBoard(RunDirectory(tmp_path), 3, pytest.fail)
    board.lines("timing.jsonl", [])
    assert board.goes_on
    assert (folder / "events.100000000000.tfevents").stat().st_size > 0


def test_a_linked_folder_is_refused(logged, resumed, tmp_path):
    run, _, _ = logged("--steps", "1")
    (run / "tensorboard").rename(tmp_path / "elsewhere")
    (run / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"tensorboard: it is a symbolic link"):
        resumed(run, "--steps", "2")


def test_a_folder_that_becomes_a_link_is_not_written_through(tmp_path):
    said = []
    board = tensorboard.TensorBoard(RunDirectory(tmp_path), 0, said.append)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    board.lines("timing.jsonl", [{"step": 1, "images_per_second": 5}])
    assert "not a folder of the run, but a link" in said[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_that_fails_untrained_leaves_nothing(logged, monkeypatch, tmp_path):
    def fail(*_):
        assert list((tmp_path / "run" / "tensorboard").iterdir())
        raise UserError("no")

    monkeypatch.setattr(Learner, "step_on", fail)
    with pytest.raises(UserError, match="no"):
        logged("--steps", "2")
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_shows_what_was_found(logged, monkeypatch):
    count_step = Learner.count_step

    def poisoned(self):
        count_step(self)
        if self.done == 3:
            next(iter(self.gan.generator.parameters())).data[...] = np.nan

    monkeypatch.setattr(Learner, "count_step", poisoned)
    run, _, code = logged("--steps", "9")
    assert code == 1
    findings = shown(run)["vitals/findings"]
    ((step, tensor),) = [each for each in findings if b"comes up" in each[1].string_val[0]]
    assert step == metrics(run)[-1]["step"] == 4
    assert tensor.string_val[0].startswith(b"- At step ")


def test_a_run_that_is_stopped_says_how_to_go_on_with_it(logged, monkeypatch):
    report = StepLog.report

    def stop(self, step):
        report(self, step)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(StepLog, "report", stop)
    run, said, code = logged("--steps", "5")
    assert code == 128 + signal.SIGTERM
    assert f"--resume {run} --log tensorboard --vitals-every 2" in said
    assert steps(shown(run), "loss/D") == [1]
    assert steps(shown(run), "pictures/samples") == [0, 1]
