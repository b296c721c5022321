"""What the algorithms share: how parameters are declared, how the worker is run, how its words reach the user."""

import difflib
import json
import os
import shutil
import tempfile
import time

from qgis.core import (
    Qgis,
    QgsMessageLog,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingUtils,
)
from qgis.PyQt.QtGui import QIcon

from ..compat import is_given
from ..layers import LayerError
from ..layers.styles import style_when_loaded
from ..settings import data_folder, worker_python
from ..texts import TAG, tr
from ..worker.environment import find_worker
from ..worker.errors import WorkerCancelledError, WorkerError
from ..worker.process import Listener, run_job
from .choices import AUTO
from .command_line import command_line
from .destinations import problem_with_outputs

_ICONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "icons")
_LOGS_KEPT = 20


class RsfusionAlgorithm(QgsProcessingAlgorithm):
    """Base of all: icon, help and the checks that every algorithm needs.

    A class below says ``name``, ``displayName``, ``group``, ``groupId``, ``shortHelpString``, ``initAlgorithm``.
    ``VECTOR_EXTENSIONS`` are those of the layers that it writes.
    """

    VECTOR_EXTENSIONS = (".gpkg",)

    def createInstance(self):
        return type(self)()

    def icon(self):
        return QIcon(self.svgIconPath())

    def svgIconPath(self):
        return os.path.join(_ICONS, self.name() + ".svg")

    def shortDescription(self):
        return self.shortHelpString().split(".")[0].replace("<p>", "") + "."

    def add(self, parameter, help_text, advanced=False):
        """Declares a parameter with its help."""
        parameter.setHelp(help_text)
        if advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        self.addParameter(parameter)

    def checkParameterValues(self, parameters, context):
        fine, message = super().checkParameterValues(parameters, context)
        if not fine:
            return fine, message
        problem = self.problem_with(parameters, context)
        return (False, problem) if problem else (True, "")

    def problem_with(self, parameters, context):
        """What is wrong with the values, as far as can be told at no cost; empty for nothing."""
        return problem_with_outputs(self, parameters, context)

    def path_of(self, parameters, key, context):
        """An absolute path from a file or layer parameter; None where it is not given."""
        path = self.parameterAsString(parameters, key, context)
        return os.path.abspath(path) if path else None

    def optional_number(self, parameters, key, context):
        """A number; None where it is not given."""
        return self.parameterAsDouble(parameters, key, context) if is_given(parameters.get(key)) else None

    def optional_whole_number(self, parameters, key, context):
        """A whole number; None where it is not given."""
        return self.parameterAsInt(parameters, key, context) if is_given(parameters.get(key)) else None

    def optional_choice(self, parameters, key, context):
        """A choice of names; None for 'auto'."""
        value = self.parameterAsEnumString(parameters, key, context)
        return None if value == AUTO else value

    def destination(self, parameters, key, context):
        """The absolute path of a file to write; None where it is not asked for."""
        path = self.parameterAsFileOutput(parameters, key, context)
        return os.path.abspath(path) if path else None

    def destination_layer(self, parameters, key, context):
        """The absolute path of a raster to write, which QGIS may load afterwards; None where it is not asked for."""
        if not is_given(parameters.get(key)):
            return None
        return os.path.abspath(self.parameterAsOutputLayer(parameters, key, context))

    def warn_of_unknown_keys(self, parameters, feedback):
        """Names the keys that no parameter has; QGIS 3.22 ignores them without a word."""
        known = [definition.name() for definition in self.parameterDefinitions()]
        for key in sorted(set(parameters) - set(known)):
            close = difflib.get_close_matches(key.upper(), known, 1)
            text = tr("There is no parameter '{}', it is ignored.").format(key)
            feedback.pushWarning(text + (" " + tr("Did you mean {}?").format(close[0]) if close else ""))


class FeedbackListener(Listener):
    """Relays the worker's words to the feedback of Processing.

    Args:
        feedback: the ``QgsProcessingFeedback``.
    """

    def __init__(self, feedback):
        self._feedback = feedback
        self._phase = None

    def hello(self, event):
        text = tr("Worker {version}, Python {python}, torch {torch}, device {device}.")
        values = {key: event.get(key, "?") for key in ("version", "python", "torch", "device")}
        self._feedback.pushInfo(text.format(**values))

    def progress(self, fraction, phase):
        if phase and phase != self._phase:
            self._phase = phase
            self._feedback.setProgressText(phase)
        self._feedback.setProgress(100.0 * fraction)

    def log(self, level, text):
        if level == "warning":
            self._feedback.pushWarning(text)
        else:
            self._feedback.pushInfo(text)

    def is_cancelled(self):
        return self._feedback.isCanceled()


class JobRequest:
    """A job and what has to be written for it before the worker starts.

    Args:
        job: plain data, as ``core/jobs/schemas.py`` has it; what is None is left to the schema.
        exports: the ``VectorExport`` s whose files the job names.
    """

    def __init__(self, job, exports=()):
        self.job = {key: value for key, value in job.items() if value is not None}
        self.exports = list(exports)


class WorkerAlgorithm(RsfusionAlgorithm):
    """Base of the algorithms that run a job in the worker.

    A class below says ``job_from_parameters``, and ``STYLED_OUTPUTS``: the keys whose files have a style.
    """

    STYLED_OUTPUTS = ()

    def __init__(self):
        super().__init__()
        self._folder = None
        self._request = None
        self._worker = None
        self._results = {}

    def job_from_parameters(self, parameters, context, feedback, folder):
        """The job that the parameters ask for. Called on the main thread: it may look at layers.

        Args:
            folder: where files for the worker may be written later.

        Returns:
            A ``JobRequest``.

        Raises:
            LayerError, QgsProcessingException: a value cannot be used.
        """
        raise NotImplementedError

    def canExecute(self):
        try:
            find_worker(worker_python(), os.environ, data_folder())
        except WorkerError as error:
            return False, str(error)
        return True, ""

    def prepareAlgorithm(self, parameters, context, feedback):
        self.warn_of_unknown_keys(parameters, feedback)
        # A model does not ask checkParameterValues of its steps, and 3.22's qgis_process does not ask canExecute.
        problem = self.problem_with(parameters, context)
        if problem:
            raise QgsProcessingException(problem)
        try:
            self._worker, origin = find_worker(worker_python(), os.environ, data_folder())
            feedback.pushInfo(tr("Python of the worker: '{}', from {}.").format(self._worker.python, origin))
            self._folder = tempfile.mkdtemp(prefix="job-", dir=QgsProcessingUtils.tempFolder())
            self._request = self.job_from_parameters(parameters, context, feedback, self._folder)
        except (WorkerError, LayerError) as error:
            raise QgsProcessingException(str(error)) from None
        return True

    def processAlgorithm(self, parameters, context, feedback):
        job = self._request.job
        try:
            for export in self._request.exports:
                count = export.write(context.transformContext(), feedback.isCanceled)
                feedback.pushInfo(tr("{} features of '{}' are used.").format(count, export.name))
            feedback.pushCommandInfo(command_line(job))
            feedback.pushDebugInfo(json.dumps(job, ensure_ascii=False))
            outputs = run_job(self._worker, job, self._folder, FeedbackListener(feedback), _new_log())
        except WorkerCancelledError:
            feedback.pushInfo(tr("The job was cancelled."))
            raise QgsProcessingException(tr("The job was cancelled.")) from None
        except (WorkerError, LayerError) as error:
            details = getattr(error, "details", "")
            QgsMessageLog.logMessage("{}\n{}".format(error, details).strip(), TAG, Qgis.MessageLevel.Critical)
            raise QgsProcessingException("\n".join(part for part in (str(error), details) if part)) from None
        except OSError as error:
            raise QgsProcessingException(tr("A file for the worker cannot be written: {}").format(error)) from None
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        names = [definition.name() for definition in self.outputDefinitions()]
        # The worker writes an output that was not asked for as an empty text.
        self._results = {name: None if outputs.get(name) == "" else outputs.get(name) for name in names}
        return self._results

    def postProcessAlgorithm(self, context, feedback):
        for key in self.STYLED_OUTPUTS:
            style_when_loaded(context, self._results.get(key))
        return {}


def _new_log():
    """The path of a new log of the worker; the oldest ones go."""
    folder = os.path.join(data_folder(), "logs")
    try:
        os.makedirs(folder, exist_ok=True)
        logs = sorted(name for name in os.listdir(folder) if name.startswith("worker-"))
        for name in logs[: -_LOGS_KEPT + 1]:
            os.remove(os.path.join(folder, name))
    except OSError:
        return None  # a profile that cannot be written to has no logs
    # The names sort by time, and two jobs that start in the same second have two names.
    name = "worker-{}-{:09d}.log".format(time.strftime("%Y%m%d-%H%M%S"), time.time_ns() % 10**9)
    return os.path.join(folder, name)
