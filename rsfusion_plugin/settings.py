"""The plugin's settings and its folder in the user's profile."""

import os

from qgis.core import QgsApplication, QgsSettings

from .texts import TAG, tr

WORKER_PYTHON = "rsfusion/worker_python"
"""Key of the setting with the path of the worker's Python."""

_OPTION = "RSFUSION_PYTHON"
"""Name of the same setting in the Processing options."""


def data_folder():
    """Where the plugin keeps the managed environment and its logs."""
    return os.path.join(QgsApplication.qgisSettingsDirPath(), "rsfusion")


def worker_python():
    """The path of the worker's Python that the user has chosen; empty where there is none."""
    return str(QgsSettings().value(WORKER_PYTHON, "") or "")


def set_worker_python(path):
    """Chooses the worker's Python."""
    QgsSettings().setValue(WORKER_PYTHON, path)
    config = _processing_config()
    if config is not None and _OPTION in config.settings:
        config.settings[_OPTION].value = path  # the options dialog shows, and writes back, what it holds here


def register_options(icon):
    """Shows the setting in the Processing options, where there are any."""
    config = _processing_config()
    if config is None:
        return
    from processing.core.ProcessingConfig import Setting

    setting = Setting(TAG, _OPTION, tr("Python of the worker environment"), "", valuetype=Setting.FILE)
    setting.qname = WORKER_PYTHON  # one value under our own key, and not a second one under that of Processing
    config.settingIcons[TAG] = icon
    config.addSetting(setting)
    setting.read()


def unregister_options():
    """Removes the setting from the Processing options; its value stays."""
    config = _processing_config()
    if config is not None:
        config.settings.pop(_OPTION, None)
        config.settingIcons.pop(TAG, None)


def _processing_config():
    """The options of Processing; None in an application that runs without its Python part."""
    try:
        from processing.core.ProcessingConfig import ProcessingConfig
    except ImportError:
        return None
    return ProcessingConfig
