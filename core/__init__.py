"""Land-cover maps from whatever sensors see the ground: fusion models, training on drawn labels, mapping, accuracy.

The package knows nothing of QGIS. Importing it costs next to nothing: whatever needs torch, rasterio or pandas imports
it in the module, or the function, that is about it.
"""

__version__ = "0.1.0"
