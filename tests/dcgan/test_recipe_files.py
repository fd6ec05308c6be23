"""Recipes in files: written, read again, changed, and refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcgan import list as list_recipes
from dcgan import presets, recipe_files, train
from dcgan.errors import UserError
from dcgan.presets import PRESETS
from dcgan.recipe import written
from dcgan.recipe.layer import KINDS
from dcgan.recipe.preset import Preset

pytestmark = pytest.mark.usefixtures("digests")

NUMBERS = st.integers(1, 500)
FLOATS = st.floats(0, 1e6, allow_nan=False)
VALUES = {
    int: NUMBERS,
    float: FLOATS,
    bool: st.booleans(),
    str: st.sampled_from(["glorot_uniform", "normal(0.02)", 'with "quotes"', "ä\n"]),
    int | str: NUMBERS | st.sampled_from(["same", "valid"]),
}


def layers_of(kind):
    fields = {field.name: VALUES[field.type] for field in dataclasses.fields(kind)}
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


@given(st.lists(st.sampled_from(sorted(KINDS)).flatmap(lambda name: layers_of(KINDS[name])), min_size=1))
def test_layers_are_read_as_they_were_written(layers):
    texts = [written.to_text(layer) for layer in layers]
    assert written.parse(f"[{', '.join(texts)}]") == tuple(layers)
    assert tuple(written.parse(text)[0] for text in texts) == tuple(layers)
    assert [written.from_json(json.loads(json.dumps(written.to_json(each)))) for each in layers] == layers


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_the_round_trip(name, tmp_path, capsys):
    assert list_recipes.main(["--show", name]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    assert recipe_files.find(str(path)) == PRESETS[name]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PRESETS[name].to_json()))
    assert recipe_files.find(str(path)) == PRESETS[name]


def test_a_file_that_is_written_has_every_field_under_a_heading():
    headed = [name for names in recipe_files.GROUPS.values() for name in names]
    assert sorted(headed) == sorted(field.name for field in dataclasses.fields(Preset))


def file(tmp_path, content, name="mine.toml"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_base_is_changed(tmp_path):
    content = """
        base = "quick"
        summary = "mine"
        lr_generator = 1
        steps = 7
        z_shape = [8]
        discriminator = ["Flatten()", { kind = "Dense", features = 9 }, "[ReLU(), Dense(1)]"]
    """
    found = recipe_files.find(file(tmp_path, content))
    assert (found.name, found.summary, found.steps, found.epochs) == ("mine", "mine", 7, 0)
    assert (found.lr_generator, type(found.lr_generator), found.z_shape) == (1.0, float, (8,))
    assert [written.to_text(layer) for layer in found.discriminator] == [
        "Flatten()", "Dense(9)", "ReLU()", "Dense(1)",
    ]  # fmt: skip
    assert found.generator == PRESETS["quick"].generator


def test_a_recipe_by_sizes_lists_no_layers(tmp_path):
    content = 'step = "same_fakes"\narchitecture = "dcgan"\nloss = "bce"\nnz = 8\nngf = 4\nndf = 4\n'
    found = recipe_files.find(file(tmp_path, f"{content}image_size = 16\nchannels = 3\n", "small.toml"))
    assert (found.name, found.z_shape, len(found.generator)) == ("small", (8, 1, 1), 8)
    with pytest.raises(UserError, match="z_shape follows from image_size"):
        recipe_files.find(file(tmp_path, f"{content}image_size = 16\nz_shape = [3]\n"))


def test_a_runs_own_recipe_is_taken(few_digits, tmp_path):
    out = tmp_path / "run"
    train.main(["--preset", "quick", "--steps", "1", "--set", "beta1=0.25", "--out", str(out)])
    expected = presets.get("quick", steps=1, beta1=0.25)
    assert recipe_files.find(str(out / "config.json")) == expected
    assert recipe_files.find(str(out)) == expected


def test_a_recipe_in_python_is_taken(tmp_path):
    content = "import dataclasses\nfrom dcgan.presets import FLUX\nMINE = dataclasses.replace(FLUX, seed=4)\n"
    named = file(tmp_path, content, "mine.py")
    assert recipe_files.find(f"{named}:MINE") == presets.get("flux", seed=4)
    wrong = {"MINES": "did you mean MINE?", "dataclasses": "is no Preset; its recipes: FLUX, MINE"}
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message):
            recipe_files.find(f"{named}:{name}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base = 'quik'", "did you mean quick"),
        ("base = 3", "unknown preset '3'"),
        ("base = 'quick'\nbase = 'flux'", "mine.toml: "),  # the same key twice
        ("base = 'quick'\nlr = 3", "unknown field 'lr': did you mean lr_generator or lr_discriminator"),
        ("base = 'quick'\nbatch_size = 'many'", "batch_size='many': expected a value of type int"),
        ("base = 'quick'\nbatch_size = 1979-05-27", "expected a value of type int"),
        ("base = 'quick'\nlr_generator = nan", "lr_generator=nan"),
        ("base = 'quick'\nlr_generator = inf", "lr_generator"),
        ("base = 'quick'\nz_shape = ['a']", "expected a list of integers"),
        ("base = 'quick'\nz_shape = 3", "expected a list of integers"),
        ("base = 'quick'\nname = 3", "name=3: expected a value of type str"),
        ("base = 'quick'\nname = '../x'", "expected a short name"),
        ("base = 'quick'\ngenerator = ['Dense(3']", "generator, layer 0: "),
        ("base = 'quick'\ngenerator = [3]", 'expected a text such as "Dense\\(128\\)", got 3'),
        ("base = 'quick'\ngenerator = [{ kind = 'Nope' }]", "unknown kind of layer 'Nope'"),
        ("base = 'quick'\ngenerator = [{ kind = ['Dense'] }]", "layer 0: unknown kind of layer"),
        ("base = 'quick'\ngenerator = ['Dense(f())']", r"f\(\) is no number, text, True or False"),
        (
            "base = 'quick'\ngenerator = ['Dense(features=1, features=2)']",
            "given twice|repeated",
        ),
        ("base = 'quick'\ngenerator = ['__import__(\"os\").getcwd()']", "is no layer"),
        ("base = 'flowers'\ngenerator = ['Tanh()']", "follows from image_size"),
        ("seed = 3", "it lacks generator, discriminator, step"),
        ("x = " + "[" * 5000, "mine.toml: "),
        ("x = '" + "a" * 2**20 + "'", "expected a recipe of 1048576 bytes at most"),
        (b"\xff\xfe", "mine.toml: "),
        ("", "it lacks generator"),
        ("[preset]\nname = 'x'", "is missing|z_shape"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_its_name(tmp_path, content, message):
    path = file(tmp_path, content)
    with pytest.raises(UserError, match=message) as refused:
        recipe_files.find(path)
    assert str(refused.value).startswith(f"--preset {path}: ")


@pytest.mark.parametrize("content", ["[]", "3", "{", '{"base": "quick", "seed": NaN}', '{"preset": 3}'])
def test_json_that_is_no_recipe_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r"mine\.json: "):
        recipe_files.find(file(tmp_path, content, "mine.json"))


def test_a_run_goes_on_by_the_recipe_of_a_file(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = file(tmp_path, "base = 'quick'\nbatch_size = 16\nsteps = 2\n", "small.toml")
    assert train.main(["--preset", named]) == 0
    assert train.main(["--resume", "runs/small", "--preset", named, "--steps", "3"]) == 0
    with pytest.raises(UserError, match="its recipe is small, not quick"):
        train.main(["--resume", "runs/small", "--preset", "quick"])
    file(tmp_path, "base = 'quick'\nbatch_size = 16\nlr_generator = 0.5\n", "small.toml")
    with pytest.raises(UserError, match=r"lr_generator is 0\.002, not 0\.5"):
        train.main(["--resume", "runs/small", "--preset", named])


def test_a_recipe_of_somebody_else_is_held_to_the_memory(tmp_path):
    named = file(tmp_path, "base = 'pytorch'\nngf = 512\nndf = 512\n")
    with pytest.raises(UserError, match="of memory, more than --max-memory allows"):
        train.main(["--preset", named, "--max-memory", "500M", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_the_mark_that_some_editors_put_first_is_no_part_of_a_recipe(tmp_path):
    assert recipe_files.find(file(tmp_path, b"\xef\xbb\xbfbase = 'quick'")).name == "mine"
