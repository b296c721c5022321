"""The worker process: where its Python is, how it is built, started, listened to and stopped. It needs no QGIS."""
