"""Train a model on scenes without labels."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

from ..compat import is_given
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import ARCHITECTURES, AUTO, ENCODERS, METHODS, SETTINGS, SIZES
from .inputs import (
    add_choice,
    add_device,
    add_inputs,
    add_labels,
    add_report,
    inputs_from_parameters,
    labels_from_parameters,
    problem_with_inputs,
)


class Pretrain(WorkerAlgorithm):
    """``rsfusion:pretrain``."""

    def name(self):
        return "pretrain"

    def displayName(self):
        return tr("Pre-train on unlabelled scenes")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("train,self-supervised,unsupervised,deep learning,foundation model,fusion,contrastive,masked").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Lets a model learn from your rasters what the ground looks like to all of your sensors, without any label."
            " The result is a model to start from: give it to 'Fine-tune on labels'.</p>"
            "<p>The first scene is given by its rasters. Further scenes may lie in a folder with a folder for each, whose"
            " rasters have the same file names; a scene may lack some of them.</p>"
            "<p>Whether it helps depends on the scenes and on the labels. The report of the fine-tuning says how good the"
            " model is beside simpler methods.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self.add(
            QgsProcessingParameterFile(
                "SCENES", tr("Folder of further scenes"), QgsProcessingParameterFile.Behavior.Folder, optional=True
            ),
            tr(
                "A folder that holds a folder for each further scene. In these, files with the names of the rasters above"
                " are looked for."
            ),
        )
        self._add_method()
        self._add_length()
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT_MODEL", tr("Model"), tr("Model files (*.safetensors)")),
            tr("Model file to write. Use it as the model to start from in 'Fine-tune on labels'."),
        )
        add_report(self, tr("HTML report to write: losses, health of the features, and what each input counts for."))
        self.addOutput(QgsProcessingOutputNumber("EFFECTIVE_RANK", tr("Effective rank of the features")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def _add_method(self):
        hints = " ".join("{}: {}".format(name, tr(use)) for name, use in METHODS.items())
        add_choice(self, "METHOD", tr("Method"), METHODS, tr("How the model learns.") + " " + hints, advanced=False)
        add_choice(
            self,
            "SETTING",
            tr("Setting"),
            SETTINGS,
            tr("'small' is for a few scenes and one computer; 'paper' takes the values that were published."),
        )
        self.add(
            QgsProcessingParameterString("SWITCHES", tr("Parts of the method to switch"), "", False, True),
            tr("Written name=value, between commas, such as contrast=false."),
            True,
        )
        add_choice(
            self,
            "ARCHITECTURE",
            tr("Architecture"),
            (AUTO, *ARCHITECTURES),
            tr("'auto' takes what belongs to the method."),
        )
        add_choice(self, "ENCODER", tr("Encoder"), ENCODERS, tr("'auto' takes what belongs to the architecture."))
        add_choice(self, "SIZE", tr("Size"), SIZES, tr("'auto' takes what belongs to the architecture."))
        self.add(
            QgsProcessingParameterFile(
                "INITIAL_MODEL", tr("Model to go on from"), optional=True, fileFilter=tr("Model files (*.safetensors)")
            ),
            tr("A model file (.safetensors) to train further; it keeps its own architecture."),
        )

    def _add_length(self):
        integer, real = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterNumber("EPOCHS", tr("Epochs"), integer, None, True, 1, 100000),
            tr("Rounds over the scenes. By default what the method needs on a few scenes."),
        )
        self.add(
            QgsProcessingParameterNumber("MINUTES", tr("Minutes"), real, None, True, 0.0),
            tr("Time to train, in place of the rounds."),
        )
        self.add(
            QgsProcessingParameterNumber("WINDOWS", tr("Windows an epoch"), integer, None, True, 1),
            tr("By default as many as cover the scenes, 256 to 2048."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("BATCH_SIZE", tr("Windows a batch"), integer, None, True, 1, 4096),
            tr("More windows a batch take more memory and tell the methods of contrast more."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("ACCUMULATION", tr("Batches a step"), integer, 1, False, 1, 1024),
            tr("A larger step of the optimiser in the same memory. Only the windows of one batch are compared."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Seed of everything random: the same seed, inputs and epochs give the same model."),
            True,
        )
        add_labels(
            self,
            "LABELS",
            tr("Labels to ask the features about"),
            tr("The field that holds the class: text or whole numbers."),
            optional=True,
            more=tr(
                "After each round a linear model tells them from the features, and the report shows how well. Nothing is"
                " trained on them."
            ),
        )
        add_device(self)

    def problem_with(self, parameters, context):
        if is_given(parameters.get("LABELS")) != is_given(parameters.get("CLASS_FIELD")):
            return tr("LABELS and CLASS_FIELD belong together: give both or none.")
        if is_given(parameters.get("EPOCHS")) and is_given(parameters.get("MINUTES")):
            return tr("The training ends after EPOCHS or after MINUTES: give one of them.")
        try:
            _switches(self.parameterAsString(parameters, "SWITCHES", context))
        except ValueError as error:
            return tr("SWITCHES: '{}' is not name=value.").format(error)
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        labels, exports = None, []
        if is_given(parameters.get("LABELS")):
            labels, exports = labels_from_parameters(self, parameters, "LABELS", context, folder)
        job = {
            "kind": "pretrain",
            "scenes": [inputs_from_parameters(self, parameters, context, feedback)],
            "scenes_folder": self.path_of(parameters, "SCENES", context),
            "labels": labels,
            "method": self.parameterAsEnumString(parameters, "METHOD", context),
            "setting": self.parameterAsEnumString(parameters, "SETTING", context),
            "switches": _switches(self.parameterAsString(parameters, "SWITCHES", context)) or None,
            "architecture": self.optional_choice(parameters, "ARCHITECTURE", context),
            "encoder": self.optional_choice(parameters, "ENCODER", context),
            "size": self.optional_choice(parameters, "SIZE", context),
            "initial_model": self.path_of(parameters, "INITIAL_MODEL", context),
            "epochs": self.optional_whole_number(parameters, "EPOCHS", context),
            "minutes": self.optional_number(parameters, "MINUTES", context),
            "windows": self.optional_whole_number(parameters, "WINDOWS", context),
            "batch_size": self.optional_whole_number(parameters, "BATCH_SIZE", context),
            "accumulation": self.parameterAsInt(parameters, "ACCUMULATION", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "output_model": self.destination(parameters, "OUTPUT_MODEL", context),
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports)


def _switches(text):
    """Names and values from ``name=value, name=value``.

    Raises:
        ValueError: with the part that is not written so.
    """
    switches = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise ValueError(part)
        switches[name.strip()] = value.strip()
    return switches
