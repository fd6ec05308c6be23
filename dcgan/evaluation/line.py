"""A line of evaluations.jsonl."""

from dataclasses import dataclass
from typing import Any, Self

from .comparison import EvaluationResult


@dataclass(frozen=True)
class EvaluationLine:
    """An evaluation during training.

    A new field needs a line in both methods; a new measure is a field of `EvaluationResult`.

    Attributes:
        step, epoch: from 1.
        samples: the result of the samples; `floor`: that of as many real images.
        accuracy: of the judge, where it knows digits.
    """

    step: int
    epoch: int | None
    samples: EvaluationResult
    floor: EvaluationResult
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, those of the samples among the others."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            **self.samples.to_json(),
            "floor": self.floor.to_json(),
            "accuracy": self.accuracy,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the line that a JSON object holds. Values that are missing or damaged read as unknown.

        So a line with one damaged number counts as an evaluation of its step all the same. Raises ValueError
        if it has no step.
        """
        if not isinstance(value, dict) or type(value.get("step")) is not int:
            raise ValueError("a line that is no step")
        epoch, accuracy = value.get("epoch"), value.get("accuracy")
        return cls(
            value["step"],
            epoch if type(epoch) is int else None,
            EvaluationResult.from_json(value),
            EvaluationResult.from_json(value.get("floor")),
            accuracy if type(accuracy) is float else None,
        )
