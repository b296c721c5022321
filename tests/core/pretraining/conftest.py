"""The same small networks as for the tests of models."""

from tests.core.models.conftest import _one_thread, _small_networks

__all__ = ["_one_thread", "_small_networks"]
