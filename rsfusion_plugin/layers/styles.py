"""Result files to styled layers.

The style is in a ``.qml`` file beside the result. QGIS takes it up when a file is opened by hand, but Processing puts a
default style on the layers that it loads, so they are asked to take up their own once more.
"""

from qgis.core import QgsProcessingLayerPostProcessorInterface


class OwnStyle(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded layer the style saved beside its file."""

    def postProcessLayer(self, layer, context, feedback):
        layer.loadDefaultStyle()
        layer.triggerRepaint()


_OWN_STYLE = OwnStyle()
"""Kept here because QGIS holds a post-processor only by its address, and the algorithm is gone when it is called."""


def style_when_loaded(context, path):
    """Has a result take up its own style if QGIS is going to load it. To be called on the main thread."""
    if path and context.willLoadLayerOnCompletion(path):
        context.layerToLoadOnCompletionDetails(path).setPostProcessor(_OWN_STYLE)
