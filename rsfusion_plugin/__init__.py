"""The QGIS plugin: Processing algorithms that hand their work to a worker process with a Python of its own."""


def classFactory(iface):
    """What QGIS calls to make the plugin; ``iface`` is None under ``qgis_process``."""
    from .plugin import RsfusionPlugin

    return RsfusionPlugin(iface)
