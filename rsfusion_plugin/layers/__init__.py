"""QGIS layers to inputs of a job, and result files to styled layers."""


class LayerError(Exception):
    """A layer that cannot be used; the message names it."""
