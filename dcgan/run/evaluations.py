"""Evaluations during training, on their way to a run's files."""

from minigrad.serialize import write_whole

from ..evaluation.line import EvaluationLine
from . import checkpoint
from .directory import RunDirectory


class Evaluations:
    """Lines for evaluations.jsonl, and the checkpoint of the best step for best.safetensors.

    If a write fails, its content is kept for the next call of `flush`.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._lines: list[EvaluationLine] = []
        self._best: bytes | None = None  # the file's content

    def add(self, line: EvaluationLine, best: bytes | None) -> None:
        """Take in an evaluation.

        Args:
            best: the content of a checkpoint of its step, if it is the best so far.
        """
        self._lines.append(line)
        if best is not None:
            self._best = best

    def flush(self) -> None:
        """Write the checkpoint and the lines that are kept. Raises OSError if that fails.

        The line comes last: a run that is killed in between repeats the evaluation.
        """
        if self._best is not None:
            write_whole(self.run.place(checkpoint.BEST_NAME), self._best)
            self._best = None
        if self._lines:
            self.run.append("evaluations.jsonl", [line.to_json() for line in self._lines])
            self._lines = []
