"""The completion of commands, options and file names in a shell, written by shtab."""

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import shtab

from . import presets
from .arguments import own_run


def script(shell: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """Return the script for "bash", "zsh" or "tcsh".

    Args:
        commands: by their names, the module, which has a function `parser`, and what the command does.
    """
    program = argparse.ArgumentParser("dcgan", description="Train DCGANs.")
    program.add_argument("--version", action="store_true", help="print the version")
    program.add_argument("--print-completion", choices=("bash", "zsh", "tcsh"), help="print this script")
    added = program.add_subparsers()
    for name, (module, what) in commands.items():
        own = import_module(module).parser()
        for action in own._actions:
            _complete(action)
        added.add_parser(name, parents=[own], add_help=False, help=what, description=what)
    text: str = shtab.complete(program, shell)
    return text


def _complete(action: argparse.Action) -> None:
    """Complete file names where a path is expected, and the names of recipes."""
    if action.type in (Path, own_run) or action.dest == "data":
        action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it; argparse has none
    if action.dest in ("preset", "presets", "show"):
        action.choices = list(presets.PRESETS)
    if action.dest == "device":
        action.choices = ["cpu", "gpu"]
