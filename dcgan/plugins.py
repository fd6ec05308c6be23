"""Plugins: Python files that add losses, step rules, layer kinds and devices, one decorator each.

    from dcgan import plugins

    @plugins.loss("least_squares", probability=F.sigmoid, formula="(l - 1)^2 for label 1, l^2 for label 0")
    def least_squares(logits, label):
        return ((logits - label) ** 2).mean()

A step is made of `update_discriminator`, `update_generator` and `step_result` of `dcgan.steps`. A kind of
layer is a subclass of `dcgan.recipe.layer.Layer`; its fields are annotated class attributes. A device is a
subclass of `minigrad.backend.Backend`.

A file is run only where a person names it (--plugin FILE, or --preset FILE.py:NAME). A run records the files
that its recipe and its device need, by name and checksum, and no command runs a file that only a run names.
Modules that a plugin imports from its own folder are not recorded.
"""

import functools
import hashlib
import inspect
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import minigrad as mg
from minigrad import backend as backends
from minigrad.backend import Backend

from . import console
from .device import OTHER_NAMES
from .errors import UserError, reason
from .losses import LOSSES, Loss
from .recipe import layer as layer_kinds
from .recipe.layer import KINDS, Layer
from .recipe.preset import Preset
from .steps import RULES, Gan, StepResult

MAX_BYTES = 2**20  # of a plugin's file
MAX_RECORDED = 20  # plugins of one run
Item = TypeVar("Item")
Kind = TypeVar("Kind", bound=type[Layer])
BackendClass = TypeVar("BackendClass", bound=type[Backend])


class PluginNeeded(UserError):
    """A run needs a plugin that nobody named."""


@dataclass(frozen=True)
class Plugin:
    """A plugin's file.

    Attributes:
        name: of the file, without its folder.
        sha256: of its content, in hexadecimal.
    """

    name: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """Return the fields."""
        return dict(vars(self))


_modules: dict[Path, tuple[Plugin, ModuleType]] = {}  # the files that were run
_registered: dict[tuple[str, str], Plugin | None] = {}  # by "loss", "step", "layer" or "device", and name
_running: list[Plugin] = []  # the plugin whose file is being run


# -- decorators ----------------------------------------------------------------------------------------


def loss(
    name: str,
    *,
    probability: Callable[[mg.Tensor], mg.Tensor],
    takes_logits: bool = True,
    formula: str = "a loss of a plugin",
    generator: Callable[[mg.Tensor], mg.Tensor] | None = None,
) -> Callable[[Item], Item]:
    """Register a function as the loss that recipes call `name`; a decorator.

    The function takes D's outputs (N, 1) and the label, 1.0 for real and 0.0 for fake, and returns the mean
    cost.

    Args:
        probability: D's outputs to the probability of being real, for the logs; clipped to 0 and 1.
        takes_logits: whether D's outputs are any numbers; else D ends in a Sigmoid.
        formula: of the cost, for people.
        generator: D's outputs on fakes to G's cost, if it is not the cost of the label 1.
    """

    _check_name("loss", name)

    def register(cost: Any) -> Any:
        _check_takes(cost, "D's outputs and a label", 2)
        own = None if generator is None else _costing(name, generator)
        _register(
            "loss",
            name,
            LOSSES,
            Loss(_costing(name, cost), _in_range(probability), takes_logits, formula, own),
        )
        return cost

    return register


def step(name: str) -> Callable[[Item], Item]:
    """Register a function as the step that recipes call `name`; a decorator.

    The function takes a `dcgan.steps.Gan` and a batch of real images, updates both networks, and returns a
    `dcgan.steps.StepResult`. `dcgan.steps` has the parts that steps are made of.
    """

    _check_name("step", name)

    def register(rule: Any) -> Any:
        _check_takes(rule, "a Gan and real images", 2)

        @functools.wraps(rule)
        def checked(gan: Gan, real: mg.Tensor) -> StepResult:
            result = rule(gan, real)
            if not isinstance(result, StepResult):
                raise UserError(
                    f"the step {name!r} returned {result!r:.60}: expected a dcgan.steps.StepResult"
                )
            return result

        _register("step", name, RULES, checked)
        return rule

    return register


def layer(kind: Kind) -> Kind:
    """Register a subclass of `dcgan.recipe.layer.Layer` as a kind of layer; a decorator.

    Recipes call it by the name of the class. It has the method `module(shape)`, and `output(shape)` and
    `parameters(shape)` if its module changes the shape or learns.
    """
    if not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise TypeError(f"plugins.layer: expected a subclass of dcgan.recipe.layer.Layer, got {kind!r}")
    _claim("layer", kind.__name__, KINDS)
    return layer_kinds.register(kind)


def device(name: str) -> Callable[[BackendClass], BackendClass]:
    """Register a subclass of `minigrad.backend.Backend` as the device `name`; a decorator.

    The class has the attribute `xp`, the module of its arrays, which are NumPy's or behave as they do; the
    methods that it leaves out are the reference forms. It is made without arguments, when the device is first
    used.
    """
    _check_name("device", name)

    def register(made: BackendClass) -> BackendClass:
        if not (isinstance(made, type) and issubclass(made, Backend) and hasattr(made, "xp")):
            raise TypeError(
                f"plugins.device: expected a subclass of Backend with an attribute xp, got {made!r}"
            )
        _claim("device", name, (*backends.known(), *OTHER_NAMES))
        made.device = name
        backends.register(name, made)
        return made

    return register


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise TypeError(f"plugins.{what}: expected a name, such as 'mine', got {name!r:.60}")


def _check_takes(function: Any, arguments: str, count: int) -> None:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError as error:
        raise TypeError(f"{function!r:.60}: expected a function of {arguments}: {error}") from None


def _costing(name: str, cost: Callable[..., mg.Tensor]) -> Callable[..., mg.Tensor]:
    """Return a cost that is checked to be a number."""

    @functools.wraps(cost)
    def checked(judged: mg.Tensor, *label: float) -> mg.Tensor:
        value = cost(judged, *label)
        if not isinstance(value, mg.Tensor) or value.size != 1:
            given = f"a tensor of shape {value.shape}" if isinstance(value, mg.Tensor) else f"{value!r:.60}"
            raise UserError(f"the loss {name!r} returned {given}: expected a tensor of one number, the mean")
        return value

    return checked


def _in_range(probability: Callable[[mg.Tensor], mg.Tensor]) -> Callable[[mg.Tensor], mg.Tensor]:
    """Return a function to probabilities whose values beyond 0 and 1 are clipped."""

    @functools.wraps(probability)
    def clipped(judged: mg.Tensor) -> mg.Tensor:
        return probability(judged).clip(0.0, 1.0)

    return clipped


def _register(what: str, name: str, table: dict[str, Any], value: Any) -> None:
    _claim(what, name, table)
    table[name] = value


def _claim(what: str, name: str, known: Iterable[str]) -> None:
    """Note who registers a name. Raises ValueError if it is the package's, or another plugin's."""
    plugin = _running[-1] if _running else None
    before = _registered.get((what, name))
    taken = name in known and (what, name) not in _registered
    if taken or (before is not None and plugin is not None and before.name != plugin.name):
        owner = "the package" if before is None else before.name
        raise ValueError(f"the {what} {name!r} is one of {owner} already: choose another name")
    _registered[what, name] = plugin


# -- files ---------------------------------------------------------------------------------------------


def load(path: Path) -> ModuleType:
    """Run a plugin's file, unless it was run before as it is now, and return its module.

    Raises UserError if it can't be read or run.
    """
    content = _read(path)
    plugin, place = Plugin(path.name, hashlib.sha256(content).hexdigest()), path.resolve()
    if place in _modules and _modules[place][0] == plugin:
        return _modules[place][1]
    for other, (known, _) in _modules.items():
        if known.name == plugin.name and other != place:
            raise UserError(f"--plugin {path}: {other} is loaded, and has the same name: rename one of them")
    module = ModuleType(f"dcgan_plugin_{path.stem}")
    module.__file__ = str(place)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for names
    console.own_files.add(str(path))
    with _as_running(plugin, place.parent):
        try:
            exec(compile(content, str(path), "exec"), module.__dict__)
        except KeyboardInterrupt:
            raise
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            raise UserError(
                f"--plugin {path}: it can't be run: {said:.500}{console.line_of(error, str(path))}"
            ) from error
    _modules[place] = plugin, module
    return module


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise UserError(f"--plugin {path}: expected a Python file, whose name ends in .py")
    try:
        if not path.is_file():
            raise UserError(f"--plugin {path}: {'not a plain file' if path.exists() else 'no such file'}")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--plugin {path}: {reason(error)}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"--plugin {path}: {len(content)} bytes: expected {MAX_BYTES} at most")
    return content


@contextmanager
def _as_running(plugin: Plugin, folder: Path) -> Iterator[None]:
    """Note that the names that are registered meanwhile are those of a plugin."""
    _running.append(plugin)
    sys.path.insert(0, str(folder))  # as for a program: a file beside it can be imported
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _running.pop()


# -- what a run needs ----------------------------------------------------------------------------------


def of(preset: Preset, device: str = "cpu") -> tuple[Plugin, ...]:
    """Return the plugins that a recipe and a device need, by name."""
    used = [("loss", preset.loss), ("step", preset.step), ("device", device)]
    used += [("layer", type(spec).__name__) for spec in (*preset.generator, *preset.discriminator)]
    found = {plugin for key in used if (plugin := _registered.get(key)) is not None}
    return tuple(sorted(found, key=lambda plugin: plugin.name))


def recorded(value: Any) -> tuple[Plugin, ...]:
    """Return the plugins that a file of a run records. Raises ValueError for what is no such record."""
    if not isinstance(value, list) or len(value) > MAX_RECORDED:
        raise ValueError(f"expected a list of at most {MAX_RECORDED} plugins, got {value!r:.80}")
    for one in value:
        fits = isinstance(one, dict) and one.keys() == {"name", "sha256"}
        if not fits or not all(isinstance(text, str) and len(text) < 300 for text in one.values()):
            raise ValueError(f"expected a plugin's name and sha256, got {one!r:.80}")
    return tuple(Plugin(**one) for one in value)


def recipe_of(what: str, config: Any) -> Preset:
    """Return the recipe of the content of a run's config.json.

    Args:
        what: the run, for messages.

    Raises PluginNeeded if it needs a plugin that is not loaded; UserError, KeyError, TypeError, ValueError or
    AttributeError if there is no recipe that can be read.
    """
    try:
        return Preset.from_json(config["preset"])
    except (UserError, ValueError):
        check(what, recorded(config.get("plugins", [])))
        raise


def options(preset: Preset, device: str = "cpu") -> str:
    """Return the options of a command line, " --plugin FILE" for each file that these need."""
    paths = {plugin: path for path, (plugin, _) in _modules.items()}
    needed = (paths[each] for each in of(preset, device) if each in paths)
    return "".join(f" --plugin {shlex.quote(_shown(path))}" for path in needed)


def _shown(path: Path) -> str:
    """Return a path as people write it: from the working directory on, if it lies there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def check(what: str, needed: Iterable[Plugin]) -> list[str]:
    """Check that the plugins that a run records are loaded; return a sentence for each that has changed.

    Args:
        what: the run, for the message.

    Raises PluginNeeded, which asks for it, if one is not: it is never looked for.
    """
    loaded = {plugin.name: plugin for plugin, _ in _modules.values()}
    contents = {plugin.sha256 for plugin in loaded.values()}
    notes = []
    for plugin in needed:
        if plugin.sha256 in contents:  # whatever the file is called now
            continue
        found = loaded.get(plugin.name)
        if found is None:
            raise PluginNeeded(
                f"{what} was made with the plugin {plugin.name!r:.100} (SHA-256 {plugin.sha256[:12]}): name "
                f"that file by --plugin FILE. It is run, so look at it first if it is not yours"
            )
        if found.sha256 != plugin.sha256:
            notes.append(
                f"warning: {what} was made with another version of {plugin.name} (SHA-256 "
                f"{plugin.sha256[:12]}, now {found.sha256[:12]}): results may differ"
            )
    return notes
