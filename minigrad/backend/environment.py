"""Environment variables that set how the engine computes."""


class BadEnvironment(ValueError):
    """An environment variable holds something that can't be used."""
