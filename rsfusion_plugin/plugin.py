"""Registers the Processing provider with QGIS, and takes it out again."""

from qgis.core import QgsApplication

from .provider import RsfusionProvider


class RsfusionPlugin:
    """The plugin as QGIS sees it.

    Args:
        iface: the interface of the QGIS window; None where there is no window.
    """

    def __init__(self, iface):
        self.iface = iface
        self.provider = None

    def initProcessing(self):
        """Adds the provider. Called alone by ``qgis_process``."""
        if self.provider is None:
            self.provider = RsfusionProvider()
            QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Called when the plugin is loaded in the QGIS window."""
        self.initProcessing()

    def unload(self):
        """Undoes all of it."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
