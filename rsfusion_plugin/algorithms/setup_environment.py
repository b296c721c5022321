"""Build the worker's Python environment."""

import os

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingParameterFile,
)

from ..settings import data_folder, set_worker_python
from ..texts import tr
from ..worker.build import build_environment
from ..worker.environment import lock_file, managed_folder, worker_script
from ..worker.errors import WorkerCancelledError, WorkerError
from .base import FeedbackListener, RsfusionAlgorithm


class SetupEnvironment(RsfusionAlgorithm):
    """``rsfusion:setupenvironment``."""

    def __init__(self):
        super().__init__()
        self._chosen_python = None

    def name(self):
        return "setupenvironment"

    def displayName(self):
        return tr("Set up the worker environment")

    def group(self):
        return tr("Getting started")

    def groupId(self):
        return "gettingstarted"

    def tags(self):
        return tr("python,install,torch,virtual environment,worker").split(",")

    def flags(self):
        # Building the same environment several times at once makes no sense, so there is no batch mode.
        return super().flags() & ~QgsProcessingAlgorithm.Flag.FlagSupportsBatch

    def shortHelpString(self):
        return tr(
            "<p>Builds the Python environment in which the other algorithms do their work. QGIS itself is left as it"
            " is.</p>"
            "<p>This is needed once for each version of the plugin. It downloads its packages from the Python Package"
            " Index: several hundred megabytes, or a few gigabytes where PyTorch comes with the libraries of NVIDIA. It"
            " takes some minutes, and needs a Python 3.11 or later and up to 10 GB of disk space on this computer."
            " When the environment is already complete, it is only checked.</p>"
            "<p>Behind a proxy, set the environment variable HTTPS_PROXY before QGIS starts.</p>"
        )

    def initAlgorithm(self, configuration=None):
        folder = QgsProcessingParameterFile(
            "FOLDER", tr("Folder of the environment"), QgsProcessingParameterFile.Behavior.Folder, optional=True
        )
        self.add(
            folder,
            tr(
                "Where to build it: an empty or a new folder. By default one in your QGIS profile. Another folder is"
                " remembered in the Processing settings of RS Fusion."
            ),
        )
        self.addOutput(QgsProcessingOutputFile("OUTPUT_PYTHON", tr("Python of the worker environment")))

    def prepareAlgorithm(self, parameters, context, feedback):
        self.warn_of_unknown_keys(parameters, feedback)
        return True

    def processAlgorithm(self, parameters, context, feedback):
        chosen = self.path_of(parameters, "FOLDER", context)
        try:
            lock = lock_file()
            folder = chosen or managed_folder(data_folder(), lock)
            log = os.path.join(data_folder(), "logs", "setup.log")
            python = build_environment(folder, lock, worker_script(), FeedbackListener(feedback), log_path=log)
        except WorkerCancelledError:
            raise QgsProcessingException(tr("The set-up was cancelled; what was built is removed.")) from None
        except WorkerError as error:
            text = "\n".join(part for part in (str(error), error.details) if part)
            raise QgsProcessingException(text) from None
        self._chosen_python = python if chosen else None
        feedback.setProgress(100)
        feedback.pushInfo(tr("The worker environment is ready: '{}'.").format(python))
        return {"OUTPUT_PYTHON": python}

    def postProcessAlgorithm(self, context, feedback):
        if self._chosen_python:
            set_worker_python(self._chosen_python)
            feedback.pushInfo(tr("It is now the Python of the worker in the Processing settings of RS Fusion."))
        return {}
