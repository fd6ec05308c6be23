"""`dcgan list`: the recipes in a table, or one of them as a file to start from."""

from collections.abc import Sequence

from . import recipe_files
from .arguments import add_plugin
from .console import output, run_command
from .describe import table
from .parser import Parser


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "list",
        description="List the recipes, or write one as a file to be changed and trained: "
        "dcgan list --show quick > mine.toml; dcgan train --preset mine.toml",
    )
    parser.add_argument(
        "--show", metavar="RECIPE", help="print a recipe as TOML: a preset, or what --preset takes besides"
    )
    add_plugin(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    if arguments.show is None:
        output(table.recipes())
    else:
        output(recipe_files.to_toml(recipe_files.find(arguments.show)).rstrip("\n"))
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan list")
