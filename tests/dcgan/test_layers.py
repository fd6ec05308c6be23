"""The layers of dcgan: imports run downwards and in no circle; and no file is long."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dcgan
import minigrad

ROOT = Path(dcgan.__file__).parent

# The lowest first. A module imports from lines above its own, a subpackage from within itself too.
LAYERS = [
    "errors",
    "console files losses markup",
    "steps notebook",
    "recipe",
    "presets models data device",
    "plugins",
    "recipe_files",
    "latent pictures pace",
    "animations",
    "sampling",
    "vitals describe evaluation",
    "run",
    "arguments",
    "parser",
    "train_parser",
    "report benchmark",
    "api",
    "train list sample interpolate animate evaluate export import_weights bench launches",
    "completion",
    "__main__",
]
PLACES = {name: place for place, names in enumerate(LAYERS) for name in names.split()}

MAX_LINES = 400


def name_of(path):
    """A module's name from the package's root; a subpackage's is that of its `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"}


def named(path, tree):
    """The names that a module imports, wherever the import stands, as the parts of full names."""
    package = ("dcgan", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_none_of_their_modules(path):
    """A module of a package imports the package first, and would so depend on all that it imports."""
    assert not [names for names in named(path, ast.parse(path.read_text())) if names[0] == "dcgan"]


def imports_of(path):
    """The modules of dcgan that a module imports."""
    found = set()
    for first, *parts in named(path, ast.parse(path.read_text())):
        if first == "dcgan":
            names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            found.update([name for name in names if name in FILES][:1])  # the last part may be a function
    return found


IMPORTS = {name: imports_of(path) for name, path in FILES.items()}


def layer_of(name):
    return name.partition(".")[0]


def test_every_module_has_its_layer():
    assert {layer_of(name) for name in FILES} == PLACES.keys()


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards(name):
    here = layer_of(name)
    upwards = [
        found
        for found in IMPORTS[name]
        if layer_of(found) != here and PLACES[layer_of(found)] >= PLACES[here]
    ]
    assert upwards == []


def test_no_modules_import_each_other():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("package", [dcgan, minigrad], ids=lambda package: package.__name__)
def test_no_file_is_long(package):
    root = Path(package.__file__).parent
    lines = {str(path.relative_to(root)): path.read_text().count("\n") for path in root.rglob("*.py")}
    assert [name for name, count in lines.items() if count > MAX_LINES] == []
