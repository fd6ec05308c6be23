"""`dcgan train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from minigrad.inspect import ShadowError

from . import presets, recipe_files
from .arguments import chosen_preset
from .console import StopOnSignal, output, run_command, tell
from .describe import table
from .describe.step import explain
from .errors import UserError
from .recipe.preset import Preset
from .run import ending, opening, tensorboard
from .run.directory import RunDirectory
from .run.divergence import Diverged
from .run.opening import Initial, Opened, Options
from .run.resume import Start
from .run.schedule import Schedule
from .run.shadow import shadowed
from .train_parser import parser


def _options_of_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the recipe that have options of their own, as far as they are given."""
    fields = ("epochs", "steps", "batch_size", "seed")
    return {field: getattr(arguments, field) for field in fields if getattr(arguments, field) is not None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 if the run diverged or a shadow differs; 128 plus its number if a signal ended it (all that
    was trained is kept then too).
    """
    arguments = parser().parse_args(argv)
    if arguments.list:
        output(table.recipes())
        return 0
    with ExitStack() as stack:
        if arguments.explain_step:
            output(explain(_explained_preset(arguments, stack)))
            return 0
        if arguments.log:
            tensorboard.check()
        opened = _resumed(arguments, stack) if arguments.resume else _begun(arguments, stack)
        return _train(opened, arguments)


def _explained_preset(arguments: argparse.Namespace, stack: ExitStack) -> Preset:
    """Return the recipe that would be trained."""
    if arguments.resume:
        _, start, _ = _reopened(arguments, stack)
        return start.preset
    preset, initial = _recipe(arguments)
    opening.checked_device(preset, _options(arguments), initial, _is_foreign(arguments))
    return preset


def _begun(arguments: argparse.Namespace, stack: ExitStack) -> Opened:
    """Open a new run."""
    preset, initial = _recipe(arguments)
    foreign = _is_foreign(arguments)
    return opening.begin(preset, _options(arguments), arguments.out, stack, initial, foreign)


def _recipe(arguments: argparse.Namespace) -> tuple[Preset, Initial | None]:
    """Return the recipe of a new run, and the weights that --init-from names, if it is given."""
    if arguments.init_from is None:
        return chosen_preset(arguments, _options_of_fields(arguments)), None
    if arguments.preset is not None:
        recipe_files.find(arguments.preset)  # a recipe in Python may be the plugin that the other run needs
    initial = Initial.load(arguments.init_from, arguments.max_memory)
    if arguments.preset is not None:
        return chosen_preset(arguments, _options_of_fields(arguments)), initial
    overrides = {**presets.replacements(arguments.set), **_options_of_fields(arguments)}
    return initial.state.preset.replaced(overrides), initial


def _is_foreign(arguments: argparse.Namespace) -> bool:
    """Whether somebody else may have made the recipe."""
    return arguments.preset not in (None, *presets.PRESETS)


def _resumed(arguments: argparse.Namespace, stack: ExitStack) -> Opened:
    """Open the run that --resume names."""
    run, start, device = _reopened(arguments, stack)
    return opening.proceed(run, start, device, _options(arguments), stack)


def _reopened(arguments: argparse.Namespace, stack: ExitStack) -> tuple[RunDirectory, Start, str]:
    """Return the run that --resume names, where it continues, and the device."""
    if arguments.out is not None:
        raise UserError(
            f"--out {arguments.out}: --resume continues a run in its own directory; leave --out out, or "
            "copy the run and resume the copy"
        )
    replaced = {**presets.replacements(arguments.set), **_options_of_fields(arguments)}
    named = None if arguments.preset is None else recipe_files.find(arguments.preset)  # loads its plugin
    return opening.reopen(arguments.resume, named, replaced, _options(arguments), stack)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        data=arguments.data,
        value_range=arguments.range,
        device=arguments.device,
        tf32=arguments.tf32,
        graph=not arguments.no_graph,
        shadow=arguments.shadow,
        schedule=Schedule(
            evaluate_every=arguments.every or 0,
            checkpoint_every=arguments.checkpoint_every,
            keep=arguments.keep,
            vitals_every=arguments.vitals_every,
        ),
        max_memory=arguments.max_memory,
    )


def _train(opened: Opened, arguments: argparse.Namespace) -> int:
    """Train up to the steps that are wanted, and tell how it ended; the exit code."""
    training, total = opened.training, opened.total
    if arguments.log:
        tensorboard.follow(training)
    watched: AbstractContextManager[None] = nullcontext()
    if arguments.shadow is not None:
        watched = shadowed(training.learner, arguments.shadow, arguments.tf32)
    try:
        with StopOnSignal("dcgan train") as stop, watched:
            training.train(total, lambda: stop.asked)
    except Diverged as diverged:
        for sentence in ending.divergence(training, diverged):
            tell(sentence)
        return 1
    except ShadowError as error:
        ending.tell_difference(training, arguments.shadow, error)
        return 1
    except OSError as error:
        raise ending.not_written(training, error) from error
    ending.tell_end(training, total)
    return 128 + stop.signal if training.done < total else 0


if __name__ == "__main__":
    run_command(main, "dcgan train")
