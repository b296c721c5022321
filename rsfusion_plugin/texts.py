"""Texts that the user reads go through here, so that they can be translated. Keys and ids never do."""

from qgis.PyQt.QtCore import QCoreApplication

TAG = "RS Fusion"
"""The tag of our messages in the log panel."""


def tr(text):
    """The translation of a text, or the text itself where there is none."""
    return QCoreApplication.translate("rsfusion", text)
