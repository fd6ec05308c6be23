"""The lines of a run's logs: what is written is read, what is damaged is refused, what is older is known."""

import json
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import vital_signs

from dcgan.errors import UserError
from dcgan.evaluation.comparison import EvaluationResult
from dcgan.evaluation.line import EvaluationLine
from dcgan.evaluation.show import MEASURES
from dcgan.files import jsonfile
from dcgan.pictures import CURVES
from dcgan.report import charts
from dcgan.run import checkup
from dcgan.run.directory import RunDirectory
from dcgan.run.step_log import SpeedLine
from dcgan.steps import StepLine, StepResult
from dcgan.vitals.diagnosis import REMEDIES, Finding
from dcgan.vitals.line import VitalsLine
from dcgan.vitals.values import BatchNormGap, LayerVitals

STEPS = st.integers(1, 2**31)
SCALARS = st.none() | st.floats(-1e18, 1e18)
SIZES = st.none() | st.floats(0, 1e300)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def several(part):
    return st.lists(part, max_size=3).map(tuple)


LAYERS = st.builds(
    LayerVitals, network=st.text(), name=st.text(), kind=st.text(),
    gradient_norm=SIZES, update_ratio=SIZES, dead=SIZES, saturated=SIZES,
)  # fmt: skip
VITALS = st.builds(
    VitalsLine, step=STEPS, epoch=STEPS, d_x=SIZES, d_g_z1=SIZES, d_g_z2=SIZES, layers=several(LAYERS),
    spread=SIZES, real_saturated=SIZES,
    batch_norm_gap=several(st.builds(BatchNormGap, name=st.text(), gap=SIZES)),
    findings=several(
        st.builds(Finding, sign=st.sampled_from(sorted(REMEDIES)), sentence=st.text(), remedy=st.text())
    ),
)  # fmt: skip
SCALARS_OF_A_STEP = {f.name: SCALARS for f in fields(StepResult)}
STEP_LINES = st.builds(StepLine, step=STEPS, epoch=st.none() | STEPS, **SCALARS_OF_A_STEP)
RESULTS = st.builds(
    EvaluationResult, frechet=FLOATS, kernel=FLOATS, precision=FLOATS, recall=FLOATS,
    score=st.none() | FLOATS, shares=st.none() | st.lists(FLOATS, max_size=10), nearest=st.none() | FLOATS,
)  # fmt: skip
EVALUATIONS = st.builds(
    EvaluationLine, step=STEPS, epoch=STEPS, samples=RESULTS, floor=RESULTS, accuracy=st.none() | FLOATS
)


def written(line):
    """A line as its file has it."""
    return jsonfile.parse(json.dumps(line.to_json(), allow_nan=False))


@given(st.one_of(VITALS, STEP_LINES, EVALUATIONS))
def test_what_is_written_is_read(line):
    assert type(line).from_json(written(line)) == line


VITALS_LINE = {
    "step": 100, "epoch": 2, "d_x": 0.5, "d_g_z1": 0.25, "d_g_z2": None,
    "layers": [
        {"network": "generator", "name": "0", "kind": "Dense", "gradient_norm": 0.5, "update_ratio": 1e-3,
         "dead": None, "saturated": None},
        {"network": "discriminator", "name": "6", "kind": "Sigmoid", "gradient_norm": None,
         "update_ratio": None, "dead": None, "saturated": 0.125},
    ],
    "spread": 0.75, "real_saturated": 0.5, "batch_norm_gap": [{"name": "3", "gap": 2}],
    "findings": [{"sign": "collapse", "sentence": "At step 100 it has.", "remedy": "People start again."}],
}  # fmt: skip
STEP_LINE = {"step": 3, "epoch": 1, "loss_d": 1.5, "loss_g": None, "d_x": 0.5, "d_g_z1": 0.25, "d_g_z2": 0}
RESULT = {
    "frechet": 12.5, "kernel": 0.5, "precision": 0.25, "recall": 0.125, "score": 2.5, "shares": [0.5, 0.5],
    "nearest": None,
}  # fmt: skip
EVALUATION_LINE = {"step": 6, "epoch": 1, **RESULT, "floor": {**RESULT, "score": 9.5}, "accuracy": 0.99}


@pytest.mark.parametrize(
    ("kind", "value"), [(VitalsLine, VITALS_LINE), (StepLine, STEP_LINE), (EvaluationLine, EVALUATION_LINE)]
)
def test_a_line_has_the_keys_of_its_file_in_their_order(kind, value):
    assert json.dumps(kind.from_json(value).to_json()) == json.dumps(value)


def test_a_line_of_speeds_is_written():
    assert list(SpeedLine(50, 226.5).to_json().items()) == [("step", 50), ("images_per_second", 226.5)]


def test_a_line_can_not_be_changed():
    for line, name in (
        (VitalsLine.from_json(VITALS_LINE), "spread"),
        (StepLine.from_json(STEP_LINE), "loss_d"),
        (EvaluationLine.from_json(EVALUATION_LINE), "accuracy"),
        (EvaluationLine.from_json(EVALUATION_LINE).floor, "frechet"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(line, name, 1.0)


def test_what_is_read_are_the_numbers():
    line = VitalsLine.from_json(VITALS_LINE)
    assert (line.step, line.d_g_z1, line.spread, line.layers[1].saturated) == (100, 0.25, 0.75, 0.125)
    assert line.batch_norm_gap == (BatchNormGap("3", 2),)
    assert line.findings == (Finding("collapse", "At step 100 it has.", "People start again."),)
    line = StepLine.from_json(STEP_LINE)
    assert (line.step, line.loss_d, line.loss_g, line.d_x) == (3, 1.5, None, 0.5)
    line = EvaluationLine.from_json(EVALUATION_LINE)
    assert (line.samples.frechet, line.samples.score, line.floor.score, line.accuracy) == (
        12.5,
        2.5,
        9.5,
        0.99,
    )


def test_a_new_field_needs_its_annotation_and_a_default_for_older_lines():
    @dataclass(frozen=True)
    class Longer(VitalsLine):
        further: float | None = None
        parts: tuple[BatchNormGap, ...] = ()

    value = {**VITALS_LINE, "further": 0.5, "parts": [{"name": "a", "gap": 1.0}]}
    line = Longer.from_json(value)
    assert (line.further, line.parts) == (0.5, (BatchNormGap("a", 1.0),))
    assert line.to_json() == value
    with pytest.raises(ValueError, match=r"further='x': expected a number"):
        Longer.from_json({**value, "further": "x"})
    older = Longer.from_json(VITALS_LINE)
    assert (older.further, older.parts) == (None, ())


# -- damage ------------------------------------------------------------------------------------------

NO_INTEGERS = (None, 1.0, True, "1", [])
NO_NUMBERS = (-1, -0.5, True, "1", [], {}, 2**1000, 10**400, float("nan"), float("inf"))
NO_TEXTS = (None, 3, [], True)
NO_LISTS = (None, 3, {}, "a", [7], ["a"], [[]], [{}], [None])
DAMAGED = {
    (): (None, 3, [], "a", {}),
    ("step",): NO_INTEGERS,
    ("epoch",): NO_INTEGERS,
    **{(name,): NO_NUMBERS for name in ("d_x", "d_g_z1", "d_g_z2", "spread", "real_saturated")},
    **{(name,): NO_LISTS for name in ("layers", "batch_norm_gap", "findings")},
    **{("layers", 1, name): NO_TEXTS for name in ("network", "name", "kind")},
    **{
        ("layers", 1, name): NO_NUMBERS for name in ("gradient_norm", "update_ratio", "dead", "saturated")
    },
    ("batch_norm_gap", 0, "name"): NO_TEXTS,
    ("batch_norm_gap", 0, "gap"): NO_NUMBERS,
    ("findings", 0, "sign"): (*NO_TEXTS, "flu", ""),
    ("findings", 0, "sentence"): NO_TEXTS,
    ("findings", 0, "remedy"): NO_TEXTS,
}  # fmt: skip


def changed(value, path, new):
    """A copy of a JSON value with another one at a path; without that key where `new` is `...`."""
    if not path:
        return new
    first, *rest = path
    items = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is ...:
        del items[first]
    else:
        items[first] = changed(items[first], rest, new)
    return items


@pytest.mark.parametrize("path", DAMAGED, ids=str)
def test_damaged_vital_signs_are_refused(path):
    VitalsLine.from_json(changed(VITALS_LINE, (), VITALS_LINE))
    for new in DAMAGED[path]:
        with pytest.raises((KeyError, TypeError, ValueError)):
            VitalsLine.from_json(changed(VITALS_LINE, path, new))
    if path:
        with pytest.raises(KeyError, match=path[-1]):
            VitalsLine.from_json(changed(VITALS_LINE, path, ...))


def test_the_paths_of_the_damage_are_all_that_a_line_has():
    parts = {"layers": LayerVitals, "batch_norm_gap": BatchNormGap, "findings": Finding}
    expected = {(), *((f.name,) for f in fields(VitalsLine))}
    expected |= {(name, f.name) for name, part in parts.items() for f in fields(part)}
    assert {tuple(key for key in path if isinstance(key, str)) for path in DAMAGED} == expected


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        (("spread",), "wide", r"spread='wide': expected a number of at least 0"),
        (("step",), 1.5, r"expected int, got 1\.5"),
        (("layers",), 3, r"expected list, got 3"),
        (("layers", 0, "kind"), 3, r"expected str, got 3"),
        (("findings", 0, "sign"), "flu", r"an unknown sign 'flu'"),
        (("epoch",), ..., r"'epoch'"),
        ((), [], r"expected dict, got \[\]"),
    ],
)
def test_a_run_that_goes_on_tells_what_is_damaged(tmp_path, path, new, said):
    lines = [json.dumps(line) for line in (VITALS_LINE, changed(VITALS_LINE, path, new))]
    (tmp_path / "vitals.jsonl").write_text("\n".join([*lines, ""]))
    with pytest.raises(
        UserError, match=rf"vitals\.jsonl is damaged \({said}\): expected a line of vital signs"
    ):
        checkup.lines(RunDirectory(tmp_path))


@pytest.mark.parametrize("value", [None, [], "step", {}, {"loss_d": 1.0}, {"step": 1.0}, {"step": True}])
@pytest.mark.parametrize("kind", [StepLine, EvaluationLine])
def test_a_line_without_a_step_is_refused(kind, value):
    with pytest.raises(ValueError, match="a line that is no step"):
        kind.from_json(value)


@pytest.mark.parametrize("name", [*STEP_LINE, "another"])
def test_damaged_scalars_are_refused(name):
    for new in (True, "1", [], {}, 2**63, -(2**63), 1e300, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name}: no number of a size|a line that is no step"):
            StepLine.from_json({**STEP_LINE, name: new})


@pytest.mark.parametrize("name", ["frechet", "kernel", "precision", "recall", "score", "shares", "nearest"])
def test_a_damaged_measure_is_unknown_and_its_evaluation_counts(name):
    sound = EvaluationLine.from_json(EVALUATION_LINE)
    for new in (..., None, 3, True, "1", {}, [1], [None]):
        line = EvaluationLine.from_json(changed(EVALUATION_LINE, [name], new))
        value = getattr(line.samples, name)
        assert value is None or value != value
        assert (line.step, line.floor, line.accuracy) == (sound.step, sound.floor, sound.accuracy)
        assert replace(line.samples, **{name: getattr(sound.samples, name)}) == sound.samples


# -- other versions ----------------------------------------------------------------------------------


def test_a_step_of_an_older_version_is_read():
    line = StepLine.from_json({"step": 7, "loss_d": 1.5})
    assert line == StepLine(7, None, 1.5, None, None, None, None)


def test_an_evaluation_of_an_older_version_is_read():
    old = {key: value for key, value in EVALUATION_LINE.items() if key not in ("epoch", "floor", "accuracy")}
    line = EvaluationLine.from_json(old)
    assert (line.step, line.epoch, line.accuracy) == (6, None, None)
    assert line.samples == EvaluationLine.from_json(EVALUATION_LINE).samples
    assert (line.floor.frechet != line.floor.frechet, line.floor.shares) == (True, None)


def test_what_a_newer_version_adds_is_left_out():
    later = {**VITALS_LINE, "loss": [1]}
    later["layers"] = [{**layer, "loss": {}} for layer in later["layers"]]
    assert VitalsLine.from_json(later) == VitalsLine.from_json(VITALS_LINE)
    assert StepLine.from_json({**STEP_LINE, "d_x2": 0.5}) == StepLine.from_json(STEP_LINE)
    assert EvaluationLine.from_json({**EVALUATION_LINE, "a": "b"}) == EvaluationLine.from_json(
        EVALUATION_LINE
    )


# -- names -------------------------------------------------------------------------------------------


def names_of(kind):
    return [field.name for field in fields(kind)]


def test_all_scalars_of_a_step_are_in_its_line():
    assert names_of(StepLine) == ["step", "epoch", *names_of(StepResult)]


def test_what_is_drawn_and_reported_by_name_is_there():
    """The report reads JSON objects: nothing else would tell of a field that was renamed."""
    assert {key for key, _ in CURVES} <= set(names_of(StepLine))
    assert {key for key, *_ in charts.LAYER_SIGNS} <= set(names_of(LayerVitals))
    assert {key for _, key, *_ in MEASURES} <= {*names_of(EvaluationResult), "rarest"}
    assert "images_per_second" in names_of(SpeedLine)
    chart = charts.of_vitals([VitalsLine.from_json(vital_signs(1)).to_json()])
    assert [c.title for c in chart if any(charts.has_numbers(line) for line in c.lines)] == [
        "Gradient norms, generator", "Gradient norms, discriminator",
        "Update ratios, generator", "Update ratios, discriminator",
        "Dead units, generator", "Dead units, discriminator", "Spread", "BatchNorm gap, discriminator",
    ]  # fmt: skip
