"""Optimizers: how parameters move along their gradients, in place."""

from .optimizer import Optimizer
from .rules import SGD, Adam, RMSprop

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop"]
