"""What gradcheck catches, what it says then, and what it leaves alone."""

import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn
from minigrad.gradcheck import __main__ as command
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
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
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


@pytest.mark.parametrize(
    ("factor", "code", "said"), [("3.0", 0, "right"), ("3.03", 1, "off by the same factor 1.01")]
)
def test_the_command_checks_a_users_file(tmp_path, factor, code, said):
    file = tmp_path / "cube.py"
    file.write_text(CUBE.replace("FACTOR", factor))
    done = run_command("--module", str(file))
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
    assert done.stdout.endswith(f"1 operations, {code} wrong\n")


def test_the_command_checks_every_operation():
    done = run_command()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{len(OPERATIONS)} operations, 0 wrong\n")
    assert all(f"\n{name} " in done.stdout for name in OPERATIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--module", "nowhere.py"), "expected a Python file"),
        (("--module", __file__.replace("test_gradcheck", "../accuracy")), "defines no operation"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_the_command_tells_a_mistake(arguments, message):
    done = run_command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def run_command(*arguments):
    command = [sys.executable, "-W", "error", "-m", "minigrad.gradcheck", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
