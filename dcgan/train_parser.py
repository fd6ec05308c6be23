"""The options of `dcgan train`."""

from pathlib import Path

from .arguments import add_device, add_max_memory, add_range, add_recipe, natural, own_run, positive
from .parser import Parser
from .run import checkup
from .run.schedule import KEPT, Interval


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("train", "Train a DCGAN and leave pictures of what it learned.")
    add_recipe(parser)
    parser.add_argument(
        "--data",
        help="the images: mnist (the default), a folder or .zip of images, fashion-mnist:DIR, an .npy or "
        ".npz file, IDX files, or CIFAR's binary files",
    )
    add_device(parser)
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="let the GPU round the factors of products to TensorFloat-32: faster, to 3 digits",
    )
    parser.add_argument(
        "--no-graph",
        action="store_true",
        help="launch a step's kernels on a GPU one by one, and not as one CUDA graph: slower, same results",
    )
    parser.add_argument(
        "--shadow",
        choices=("cpu",),
        help="do every operation again on the CPU, and end with the first whose result differs",
    )
    parser.add_argument(
        "--epochs", type=positive, help="passes over the images, in all (default: the recipe's)"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        help="updates, in all, in place of the recipe's epochs; with --epochs, whichever is reached first "
        "ends the run",
    )
    parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
    parser.add_argument("--seed", type=natural, help="of all that is random (default: the recipe's)")
    parser.add_argument(
        "--out", type=Path, help="the run's directory (default: runs/<preset>, numbered if taken)"
    )
    parser.add_argument(
        "--every",
        type=positive,
        metavar="STEPS",
        help="measure samples every so many steps, and keep the best checkpoint as best.safetensors",
    )
    add_range(parser)
    add_max_memory(parser)
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument(
        "--resume",
        type=own_run,
        metavar="RUN",
        help="go on with a run, in its directory, from its last checkpoint (or from the one that is named)",
    )
    begun.add_argument(
        "--init-from",
        type=own_run,
        metavar="RUN",
        help="begin a new run with the weights of another one, and with its recipe and images, if --preset "
        "and --data name no others",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=Interval.parse,
        default=Interval(),
        metavar="N",
        help="write a checkpoint every N steps, or every Nmin or Ns (default: about every minute, as long as "
        "that costs less than a hundredth of the time); there is one with every grid, too",
    )
    parser.add_argument(
        "--keep",
        type=positive,
        default=KEPT,
        metavar="N",
        help="how many of the last checkpoints stay (default: %(default)s)",
    )
    parser.add_argument(
        "--vitals-every",
        type=natural,
        default=checkup.EVERY,
        metavar="STEPS",
        help="measure the vital signs of the first step and of every so many, and tell what is wrong "
        "(default: %(default)s; 0 for none)",
    )
    parser.add_argument(
        "--log",
        choices=("tensorboard",),
        help="write the run for TensorBoard, too, into its folder tensorboard (needs tensorboardX)",
    )
    parser.add_argument("--list", action="store_true", help="show the recipes, and end")
    parser.add_argument(
        "--explain-step", action="store_true", help="say what one step of the recipe does, and end"
    )
    return parser
