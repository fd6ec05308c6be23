"""Environment variables that set how the engine computes, and the package that a GPU needs."""

# By the names of packages, which work outside of a checkout, too.
INSTALL_CUPY = "pip install 'cupy-cuda12x[ctk]' (CUDA 12) or pip install 'cupy-cuda13x[ctk]' (CUDA 13)"


class BadEnvironment(ValueError):
    """An environment variable holds something that can't be used."""
