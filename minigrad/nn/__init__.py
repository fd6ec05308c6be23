"""Layers: modules with parameters, under PyTorch's names and shapes."""

from . import init
from .activations import Dropout, Flatten, LeakyReLU, ReLU, Reshape, Sigmoid, Tanh
from .layers import BatchNorm, Conv2d, ConvTranspose2d, Dense
from .module import Module, Parameter
from .sequential import Sequential

__all__ = [
    "BatchNorm",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Flatten",
    "LeakyReLU",
    "Module",
    "Parameter",
    "ReLU",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
]
