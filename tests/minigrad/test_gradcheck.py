"""What gradcheck catches, what it says then, and what it leaves alone."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn
from minigrad.gradcheck import Adjoint, Element, Report, check_adjoint, measure, suite, table
from minigrad.gradcheck import __main__ as command
from minigrad.gradcheck.suite import element_in_words
from minigrad.ops import OPERATIONS, Operation

EVERY_DEVICE = True


def point(*shape, seed=0, scale=1.0):
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape) * scale, requires_grad=True)


@pytest.fixture
def broken():
    """A product by 2 whose gradient is what the test makes of it; it is forgotten afterwards."""

    class Doubled(Operation):
        rule = staticmethod(lambda dy: dy * 2.0)

        def forward(self, x):
            return x * 2.0

        def backward(self, dy):
            return (type(self).rule(dy),)

    yield Doubled
    del OPERATIONS["doubled"]


def failure(fn, inputs, **options):
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(fn, inputs, **options)
    return str(caught.value)


def test_a_users_own_operation_passes(broken):
    assert mg.gradcheck(lambda x: broken()(x), point(3, 4), order=2) is True


def test_a_wrong_element_is_named_with_both_numbers(broken):
    factor = np.full((3, 4), 2.0)
    factor[1, 2] = 2.02
    broken.rule = staticmethod(lambda dy: dy * mg.tensor(factor))
    message = failure(lambda x: broken()(x), point(3, 4))
    assert "gradient of input 0" in message
    assert "Worst at (1, 2)" in message
    analytic, numeric = (
        float(message.split(word)[1].split()[0].rstrip(".,")) for word in ("analytic", "numeric")
    )
    assert analytic / numeric == pytest.approx(1.01, abs=1e-6)


def test_a_wrong_element_among_many_is_found_without_trying_each(broken):
    factor = np.full((60, 50), 2.0)
    factor[17, 31] = 2.02
    broken.rule = staticmethod(lambda dy: dy * mg.tensor(factor))
    assert "Worst at (17, 31)" in failure(lambda x: broken()(x), point(60, 50))


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        (lambda dy: dy * 2.02, "same factor 1.01"),
        (lambda dy: dy * 0.0, "not computed"),
        (lambda dy: dy * mg.tensor(np.array([[2.0, 2.0, 3.0], [2.0, 2.0, 1.0]])), "at index 2 of axis 1"),
        (lambda dy: dy[:, ::-1] * 2.0, "right numbers in the wrong places"),
        (lambda dy: dy * float("inf"), "division by 0"),
        (lambda dy: dy.detach() * mg.tensor(np.arange(6.0).reshape(2, 3)), "Look at the term"),
    ],
)
def test_the_message_says_what_to_look_at(broken, rule, advice):
    broken.rule = staticmethod(rule)
    assert advice in failure(lambda x: broken()(x), point(2, 3))


def test_a_gradient_where_there_should_be_none_is_told(broken):
    broken.rule = staticmethod(lambda dy: dy * 0.0 + 1.0)
    assert "do not depend on the input" in failure(lambda x: broken()(x) * mg.tensor(np.zeros(3)), point(3))


def test_a_mistake_of_second_order_alone_is_caught(broken):
    """The rule is right where no graph is recorded, and constant where one is."""
    broken.rule = staticmethod(lambda dy: mg.tensor(dy.numpy() * 2.0, requires_grad=mg.is_grad_enabled()))

    def fn(x):
        return broken()(x * x)

    assert mg.gradcheck(fn, point(3))
    assert "second-order gradient of input" in failure(fn, point(3), order=2)


def test_the_other_input_is_named():
    class Skewed(Operation):
        def forward(self, a, b):
            return a + b

        def backward(self, dy):
            return dy, dy * 1.5

    try:
        message = failure(lambda a, b: Skewed()(a, b), [point(2), point(2, seed=1)])
    finally:
        del OPERATIONS["skewed"]
    assert "gradient of input 1 " in message


def test_elements_on_a_kink_are_left_out():
    x = mg.tensor(np.array([[-1.0, 0.0, 2.0], [0.0, 3.0, 1e-5]]), requires_grad=True)
    assert mg.gradcheck(F.relu, x)
    assert mg.gradcheck(lambda x: F.leaky_relu(x, 0.2).abs(), x)


def test_a_wrong_gradient_beside_kinks_is_caught(broken):
    broken.rule = staticmethod(lambda dy: dy * 2.02)
    x = mg.tensor(np.array([-1.0, 0.0, 2.0, 0.0, 0.0]), requires_grad=True)
    assert "3 elements at kinks left out" in failure(lambda x: broken()(F.relu(x)), x)


def test_kinks_in_a_large_input_are_found_by_halving():
    x = point(40, 40)
    x.data[3, 4] = x.data[30, 20] = x.data[0, 0] = 0.0
    assert mg.gradcheck(F.relu, x)


def test_nothing_but_kinks_is_an_error():
    assert "every element stands on a kink" in failure(F.relu, mg.tensor(np.zeros(3), requires_grad=True))


def test_what_is_random_inside_is_noticed():
    layer = nn.Dropout(0.5)
    assert "not deterministic" in failure(layer, point(50))
    state = mg.random.get_state()

    def seeded(x):
        mg.random.set_state(state)
        return layer(x)

    assert mg.gradcheck(seeded, point(50))
    counts = iter((1, 2))
    assert "1 outputs, then 2" in failure(lambda x: [x * 2.0] * next(counts), point(2))


def test_an_output_of_the_wrong_dtype_is_noticed():
    assert "output 0 is float32" in failure(lambda x: x.to("float32"), point(2))


def test_a_gradient_of_the_wrong_shape_is_noticed(broken):
    broken.rule = staticmethod(lambda dy: dy.sum(axis=0))
    with pytest.raises(RuntimeError, match=r"doubled: its backward gave a gradient of shape \(3,\)"):
        mg.gradcheck(lambda x: broken()(x), point(2, 3))


def test_a_function_cut_off_from_its_input_is_noticed():
    assert "no output depends" in failure(lambda x: x.detach() * 2.0, point(2))


def test_inputs_that_can_not_be_checked_are_refused():
    with pytest.raises(TypeError, match=r"float32, in which differences measure mostly rounding"):
        mg.gradcheck(F.tanh, mg.tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="no input requires a gradient"):
        mg.gradcheck(F.tanh, mg.tensor(np.ones(2)))
    with pytest.raises(ValueError, match="expected order 1 or 2, got 3"):
        mg.gradcheck(F.tanh, point(2), order=3)
    for given, kind in ((np.ones(3), "ndarray"), (2.0, "float"), ([point(2), 3], "int as input 1")):
        with pytest.raises(TypeError, match=rf"gradcheck: expected tensors, got {kind}.*minigrad\.tensor\("):
            mg.gradcheck(F.tanh, given)


def test_outputs_that_are_not_finite_are_told():
    with np.errstate(all="ignore"):
        assert "not finite" in failure(lambda x: (x * 0.0).log(), point(2))


def test_several_outputs_and_fixed_inputs_are_fine():
    constant = mg.tensor(np.ones(3))
    assert mg.gradcheck(
        lambda a, b, c: (a * b + c, (a * a).sum()), [point(3), point(3, seed=1), constant], order=2
    )


def test_a_whole_network_is_right_to_the_second_order():
    mg.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, "same"), nn.BatchNorm(3), nn.Tanh(),
        nn.ConvTranspose2d(3, 1, 4, 2, 1), nn.Sigmoid(), nn.Flatten(), nn.Dense(16, 2),
    ).to("float64")  # fmt: skip
    names = [name for name, _ in model.named_parameters()]

    def loss(x, *parameters):
        for name, value in zip(names, parameters, strict=True):
            owner, _, attribute = name.rpartition(".")
            dict(model.named_modules())[owner].__dict__[attribute] = value
        return F.binary_cross_entropy_with_logits(model(x), 1.0)

    inputs = [point(3, 2, 4, 4), *model.parameters()]
    assert mg.gradcheck(loss, inputs, order=2)


@pytest.mark.parametrize(
    "imports",
    [
        "import minigrad.gradcheck, minigrad.tensor",
        "import minigrad.gradcheck.check\nfrom minigrad.tensor import Tensor",
        "from minigrad import gradcheck, tensor",
        "import minigrad.nn, minigrad.gradcheck.check, minigrad.ops",
    ],
)
def test_the_functions_stay_functions_whatever_is_imported(imports):
    use = "import minigrad as mg\nassert callable(mg.gradcheck)\nprint(mg.tensor([1.0]).item())"
    code = f"{imports}\n{use}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_a_rule_that_is_another_where_a_graph_is_recorded_is_caught(broken):
    def rule(dy):
        return dy * (2.02 if mg.is_grad_enabled() else 2.0)

    broken.rule = staticmethod(rule)
    assert mg.gradcheck(lambda x: broken()(x), point(3))
    assert "with create_graph=True it is another" in failure(lambda x: broken()(x), point(3), order=2)


@pytest.mark.parametrize(
    ("fn", "value"),
    [(lambda x: x.log(), 1e-3), (lambda x: x * x, 1e5), (lambda x: x * x, 1e7), (lambda x: 1.0 / x, 1e-2)],
)
def test_inputs_of_any_size_are_measured_at_their_own_scale(fn, value):
    assert mg.gradcheck(fn, mg.tensor(np.array([value, 2 * value]), requires_grad=True), order=2)


CUBE = """
from minigrad import Operation
from minigrad.ops import Case

class Cube(Operation):
    keep_inputs = True

    @classmethod
    def cases(cls):
        yield Case(lambda x: cls()(x), lambda rng: (rng.normal(size=(2, 3)),))

    def forward(self, x):
        return x**3

    def backward(self, dy):
        (x,) = self.inputs
        return (dy * FACTOR * x * x,)
"""


# A line of the table; at its end a word where something is wrong.
ROW = re.compile(
    r"(?P<name>\w+) +(?P<cases>\d+) +(?P<error>\de-\d+|1e\+00|inf|0|-)  "
    r"(?P<element>-|(2nd )?\w+(\[[\d, ]+\])?: \S+ / \S+) +"
    r"(?P<adjoint>-|\S+ \w+(, \w+)*) +(?P<seconds>\d+\.\d\d)(?P<wrong>  WRONG)?"
)


def rows(text):
    """The table's lines by operation, and the line of the totals."""
    head, *lines = text.split("\n\n")[0].splitlines()
    assert head.split() == ["operation", "cases", "error", "worst", "element", "adjoint", "s"]
    matches = [ROW.fullmatch(line) for line in lines[:-1]]
    assert all(matches), lines
    return {match["name"]: match for match in matches}, lines[-1].split()


@pytest.fixture
def registry():
    """The operations that a test's files define are forgotten afterwards."""
    before = dict(OPERATIONS)
    yield
    OPERATIONS.clear()
    OPERATIONS.update(before)


@pytest.fixture
def checked(tmp_path, capsys, registry):
    """Run the command on a file with this text: its exit code, what it says, and its table's lines."""

    def check(text, *arguments):
        file = tmp_path / "mine.py"
        file.write_text(text)
        code = command.main(["--module", str(file), *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err, rows(said.out)[0] if said.out else {}

    return check


def operation(name, forward, backward, values="rng.normal(size=(2, 3))", keep=True):
    """The text of an operation with one case."""
    return f"""
import minigrad as mg
import numpy as np
from minigrad import Operation
from minigrad.ops import Case

class {name}(Operation):
    keep_inputs = {keep}

    @classmethod
    def cases(cls):
        yield Case(lambda x: cls()(x), lambda rng: ({values},))

    def forward(self, x):
        return {forward}

    def backward(self, dy):
        (x,) = self.inputs
        return ({backward},)
"""


@pytest.mark.parametrize(("factor", "code", "end"), [("3.0", 0, "0 wrong"), ("3.03", 1, "1 wrong")])
def test_the_command_checks_a_users_file(tmp_path, factor, code, end):
    file = tmp_path / "cube.py"
    file.write_text(CUBE.replace("FACTOR", factor))
    done = run_command("--module", str(file))
    assert (done.returncode, done.stderr) == (code, "")
    assert ("cube, plain:\n  gradient of input 0" in done.stdout) == bool(code)
    assert ("off by the same factor 1.01" in done.stdout) == bool(code)
    assert done.stdout.endswith(f"\n1 operation, {end}\n")


OWN_DEVICE = """
import numpy

from minigrad import backend
from minigrad.backend import Backend


class Plain(Backend):
    device, xp = "plain", numpy

    def tanh(self, x):
        return numpy.tanh(FACTOR * x)


backend.register("plain", Plain)
"""


@pytest.mark.cpu_only("its device is of plain NumPy")
@pytest.mark.parametrize(("factor", "code"), [("1.0", 0), ("1.01", 1)])
def test_the_command_checks_all_operations_on_a_device_of_a_users_file(tmp_path, factor, code):
    file = tmp_path / "plain.py"
    file.write_text(OWN_DEVICE.replace("FACTOR", factor))
    named = ("--module", str(file), "--device", "plain", "--operation", "tanh", "mean")
    done = run_command(*named)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.endswith(f"\n2 operations, {code} wrong\n")


@pytest.mark.slow
def test_the_command_checks_every_operation(default_device):
    done = run_command("--device", default_device)
    assert (done.returncode, done.stderr) == (0, "")
    check_table_of_all(done.stdout)


def test_the_table_of_every_operation(default_device, monkeypatch, capsys):
    """As above, but for the second order, which test_operations.py checks of each."""
    monkeypatch.setattr(suite, "measure", lambda call, inputs, order: measure(call, inputs, order=1))
    assert command.main(["--device", default_device]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    check_table_of_all(said.out)


def check_table_of_all(said):
    assert said.endswith(f"\n{len(OPERATIONS)} operations, 0 wrong\n")
    found, total = rows(said)
    assert list(found) == list(OPERATIONS)
    assert max(map(len, said.splitlines())) <= 120
    for name, row in found.items():
        cases = len(list(OPERATIONS[name].cases()))
        assert (int(row["cases"]), row["wrong"]) == (cases, None)
        assert float(row["error"]) <= 1e-6
        assert float(row["adjoint"].split()[0]) <= 1e-12
        analytic, numeric = map(float, row["element"].split(": ")[1].split(" / "))
        assert analytic == pytest.approx(numeric, rel=1e-3)
    assert {name: found[name]["adjoint"].split(" ", 1)[1] for name in ("convolve", "matmul", "exp")} == {
        "convolve": "x, w, b", "matmul": "a, b", "exp": "J"
    }  # fmt: skip
    assert total[:3] == ["total", str(sum(int(row["cases"]) for row in found.values())),
                         max((row["error"] for row in found.values()), key=float)]  # fmt: skip


def test_the_worst_element_stands_in_the_table(checked):
    wrong = "dy * 2.0 * mg.tensor(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.01]]), device=dy.device)"
    code, said, found = checked(operation("Double", "x * 2.0", wrong))
    row = found["double"]
    assert (code, row["wrong"]) == (1, "  WRONG")
    place, numbers = row["element"].split(": ")
    analytic, numeric = map(float, numbers.split(" / "))
    assert place == "x[1, 2]"
    assert analytic / numeric == pytest.approx(1.01, abs=1e-5)
    assert float(row["adjoint"].split()[0]) > 1e-6
    assert "Worst at (1, 2)" in said
    assert "adjoint test of input 0" in said


def test_a_long_element_leaves_the_columns_after_it_in_place():
    long, short = (
        table.line(
            suite.Row("square", 3, element=element, adjoint=6e-17, linear=["x", "y"], seconds=9.85), 31
        )
        for element in ("2nd x[0, 0, 4, 4]: -0.03574524 / -0.03574524", "x[0]: 1 / 1")
    )
    assert len(long) == len(short) == len(table.head(31)) <= 120
    assert ROW.fullmatch(long)["adjoint"].rstrip() == "6e-17 x, y"


def test_a_mistake_of_second_order_stands_in_the_table(checked):
    """Where a graph is recorded, the rule's own dependence on x is cut off."""
    code, said, found = checked(operation("Square", "x * x", "dy * 2.0 * x.detach()"))
    assert (code, found["square"]["wrong"]) == (1, "  WRONG")
    assert found["square"]["element"].startswith("2nd x[")
    assert "square, plain:\n  second-order gradient of input 0" in said


def test_what_comes_from_above_is_called_dy():
    element = Element(2, 1, (0, 2), 1.5, -1e-9, 0.1)
    assert element_in_words(element, ["x"]) == "2nd dy[0, 2]: 1.5 / -1e-09"
    assert element_in_words(Element(1, 0, (), 1.5, 1.25, 0.1), ["x"]) == "x: 1.5 / 1.25"


def test_a_wrong_adjoint_is_caught_without_differences(checked, monkeypatch):
    """A transposed convolution whose gradient is a convolution with the padding shifted by one."""
    monkeypatch.setattr(suite, "measure", lambda *arguments, order: Report())
    text = """
from minigrad import Operation
from minigrad.backend.geometry import ConvGeometry
from minigrad.ops import Case
from minigrad.ops.conv import Convolve, ConvolveWeightGradient

RIGHT = ConvGeometry.of_conv((5, 5), (3, 3), 2, 1, 1)
SHIFTED = ConvGeometry.of_conv((5, 5), (3, 3), 2, ((1, 1), (2, 0)), 1)

class Upscale(Operation):
    keep_inputs = True

    @classmethod
    def cases(cls):
        shapes = (1, 2, 3, 3), (2, 1, 3, 3)
        yield Case(lambda x, w: cls()(x, w), lambda rng: tuple(rng.normal(size=s) for s in shapes))

    def forward(self, x, w):
        return self.backend.convolve_input_gradient(x, w, None, RIGHT)

    def backward(self, dy):
        x, w = self.inputs
        return Convolve(SHIFTED)(dy, w), ConvolveWeightGradient(RIGHT)(dy, x)
"""
    code, said, found = checked(text)
    assert (code, found["upscale"]["wrong"], found["upscale"]["element"]) == (1, "  WRONG", "-")
    assert "upscale, plain:\n  adjoint test of input 0 (shape (1, 2, 3, 3))" in said
    code, said, found = checked(text.replace("(SHIFTED)", "(RIGHT)"))
    assert (code, found["upscale"]["wrong"]) == (0, None)
    assert found["upscale"]["adjoint"].endswith(" x, w")


def test_an_operation_that_breaks_is_wrong_and_the_others_are_checked(checked):
    text = operation("Broken", "x * 2.0", "dy * {}['factor']") + operation("Fine", "x * 2.0", "dy * 2.0")
    text += operation("Odd", "x * missing", "dy")
    code, said, found = checked(text)
    assert (code, found["broken"]["wrong"], found["fine"]["wrong"]) == (1, "  WRONG", None)
    assert (found["broken"]["error"], found["broken"]["adjoint"]) == ("-", "-")
    line = 1 + text.splitlines().index("        return (dy * {}['factor'],)")
    assert said.count("KeyError: 'factor'") == 1
    assert f"mine.py, line {line}, in backward)" in said
    assert "NameError: name 'missing' is not defined" in said
    assert f"mine.py, line {1 + text.splitlines().index('        return x * missing')}, in forward)" in said
    assert said.endswith("\n3 operations, 2 wrong\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("yield Case(lambda x: cls()(x), lambda rng: (rng.normal(size=(2, 3)),))", "return []",
         "there are none, so nothing was checked"),
        ("rng.normal(size=(2, 3))", "rng.nothing()", "AttributeError"),
    ],
)  # fmt: skip
def test_an_operation_without_cases_is_wrong(checked, old, new, said):
    code, text, found = checked(operation("Fine", "x * 2.0", "dy * 2.0").replace(old, new))
    assert (code, found["fine"]["wrong"]) == (1, "  WRONG")
    assert said in text


def test_elements_on_kinks_are_counted(checked):
    """Two elements at 0: their gradient is left out, and so is its derivative by them, not by dy."""
    values = "np.array([1.0, 0.0, -1.0, 0.0])"
    code, said, _ = checked(operation("Half", "np.maximum(x, 0)", "dy * (x > 0).to('float64')", values))
    assert code == 0
    assert "\nelements on kinks, left out: 4 of half\n" in said
    assert measure(F.relu, mg.tensor(np.array([1.0, 0.0, -1.0, 0.0]), requires_grad=True)).left_out == 2
    x = point(40, 40)
    x.data[3, 4] = x.data[30, 20] = x.data[0, 0] = 0.0
    assert measure(F.relu, x).left_out == 3


def test_what_is_measured_is_reported(broken):
    report = measure(lambda x: broken()(x), point(3, 4), order=2)
    assert report.error < 1e-8
    assert report.element.analytic == pytest.approx(report.element.numeric, rel=1e-6)
    broken.rule = staticmethod(lambda dy: dy * 2.02)
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(lambda x: broken()(x), point(3, 4))
    found = caught.value.found
    assert found.error == pytest.approx(0.02 / 2.02, rel=1e-6)
    assert (found.element.order, found.element.input) == (1, 0)
    assert found.element.analytic / found.element.numeric == pytest.approx(1.01, abs=1e-6)


def test_what_random_directions_say_is_reported(broken):
    """A factor too small to be wrong: where there are too many elements to try each, it still shows."""
    broken.rule = staticmethod(lambda dy: dy * (2.0 * (1 + 2e-7)))
    report = measure(lambda x: broken()(x), point(30, 40))
    assert report.error == pytest.approx(2e-7, rel=0.01)
    assert report.element is None


def test_a_row_keeps_the_worst_of_its_cases():
    row = suite.Row("some")
    for error, adjoint, name in ((1e-9, 1e-15, "a"), (1e-7, 1e-14, "b"), (1e-8, 1e-16, "a")):
        row.note_differences(Report(error, Element(1, 0, (), 1.0, 1.0, error)), [name])
        row.note_adjoint(Adjoint(adjoint, (0,)), [name])
    assert (row.report.error, row.element) == (1e-7, "b: 1 / 1")
    assert (row.adjoint, row.linear) == (1e-14, ["a", "b"])


def test_reports_are_joined():
    small, large = (Element(1, 0, (i,), 1.0, 1.0, 10.0**-i) for i in (5, 3))
    first, second = Report(1e-5, small, 2), Report(1e-2, None, 3)
    assert first | second == Report(1e-2, small, 5)
    assert first | Report(1e-3, large) == Report(1e-3, large, 2)
    assert Report(1e-3, large) | first == Report(1e-3, large, 2)


def test_operations_are_chosen_by_name(checked):
    text = operation("Fine", "x * 2.0", "dy * 2.0") + operation("Wrong", "x * 2.0", "dy")
    code, said, found = checked(text, "--operation", "fine", "fine")
    assert (code, list(found)) == (0, ["fine"])
    assert said.endswith("\n1 operation, 0 wrong\n")


def test_a_file_may_use_the_name_of_an_operation_of_ours(checked):
    code, _, found = checked(operation("Tanh", "x * 2.0", "dy * 2.0"))
    assert (code, list(found)) == (0, ["tanh"])


def test_a_file_may_have_types_as_text(checked):
    text = operation("Scaled", "x * self.factor", "dy * self.factor")
    text = text.replace("class ", "@dataclasses.dataclass(eq=False)\nclass ").replace("cls()(", "cls(3.0)(")
    text = text.replace("keep_inputs = True", "factor: float\n    keep_inputs: ClassVar = True")
    imports = "from __future__ import annotations\nimport dataclasses\nfrom typing import ClassVar\n"
    code, said, found = checked(imports + text)
    assert (code, list(found)) == (0, ["scaled"]), said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_can_not_be_imported_is_told(checked, text, said):
    code, text, _ = checked(text)
    assert code == 2
    assert "it can't be imported" in text
    assert said in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--module", "nowhere.py"), "expected a Python file"),
        (("--module", __file__.replace("test_gradcheck", "../accuracy")), "defines no operation"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (
            ("--operation", "exp", "convolv"),
            "--operation convolv: there is none of this name; did you mean convolve",
        ),
        (("--operation", "zzz"), "expected one of add, subtract,"),
    ],
)
def test_the_command_tells_a_mistake(arguments, message):
    done = run_command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def run_command(*arguments, stdout=subprocess.PIPE, **variables):
    program = [sys.executable, "-W", "error", "-m", "minigrad.gradcheck", *arguments]
    return subprocess.run(
        program,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize(("factor", "code"), [("2.0", 0), ("3.0", 1)])
def test_the_command_goes_on_where_nobody_reads_and_says_what_it_found(tmp_path, factor, code):
    (tmp_path / "mine.py").write_text(operation("Mine", "x * 2.0", f"dy * {factor}"))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run_command("--module", str(tmp_path / "mine.py"), stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (code, "")


def test_the_command_writes_letters_that_the_output_has_not_in_escapes(tmp_path):
    text = operation("Mine", "x * 2.0", "dy * 2.0").replace("class Mine(", "class Mine\u00e9(")
    (tmp_path / "mine.py").write_text(text, "utf-8")
    done = run_command("--module", str(tmp_path / "mine.py"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nmine\\xe9 " in done.stdout


def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path):
    text = operation("Mine", "x * 2.0", "dy * 2.0", "os.kill(os.getpid(), signal.SIGINT)")
    (tmp_path / "mine.py").write_text(f"import os, signal\n{text}")
    done = run_command("--module", str(tmp_path / "mine.py"))
    assert (done.returncode, done.stderr) == (130, "minigrad.gradcheck: interrupted\n")


@pytest.mark.cpu_only("it is about a device that is not there")
def test_the_command_says_how_to_install_cupy(capsys, monkeypatch):
    def factory():
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setitem(backend._factories, "gpu", factory)
    monkeypatch.delitem(backend._backends, "gpu", raising=False)
    assert command.main(["--device", "gpu"]) == 2
    assert capsys.readouterr().err == (
        "minigrad.gradcheck: --device gpu: CuPy is not installed. To install it: "
        "pip install 'cupy-cuda12x[ctk]' (CUDA 12) or pip install 'cupy-cuda13x[ctk]' (CUDA 13)\n"
    )


@pytest.mark.cpu_only("it is about a device that is not there")
@pytest.mark.parametrize("problem", [ImportError("no CuPy"), RuntimeError("no GPU")])
def test_the_command_tells_of_a_device_that_can_not_be_used(problem, capsys):
    def factory():
        raise problem

    backend.register("broken", factory)
    try:
        assert command.main(["--device", "broken"]) == 2
    finally:
        backend._factories.pop("broken")
    assert capsys.readouterr().err == f"minigrad.gradcheck: --device broken: {problem}\n"


RETURNED = [
    (lambda x: None, "NoneType"),
    (lambda x: x.numpy(), "ndarray"),
    (lambda x: {"y": x}, "dict"),
    (lambda x: 1.0, "float"),
    (lambda x: [x, None], "list with NoneType"),
    (lambda x: (x.numpy(),), "tuple with ndarray"),
]


@pytest.mark.parametrize(("returned", "got"), RETURNED)
@pytest.mark.parametrize("check", [mg.gradcheck, check_adjoint], ids=["gradcheck", "check_adjoint"])
def test_a_function_that_returns_no_tensors_is_told(check, returned, got):
    x = mg.tensor(np.ones(2), requires_grad=True)
    with pytest.raises(TypeError, match=f"expected the function to return a tensor or a list .*, got {got}"):
        check(lambda x: returned(x.detach()), x)


def test_a_function_may_return_an_iterator():
    assert mg.gradcheck(lambda x: map(F.tanh, (x, x * 2.0)), mg.tensor(np.ones(2), requires_grad=True))
