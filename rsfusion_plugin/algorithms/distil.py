"""Make a model of half the width that maps like a given one."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
)

from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_device, add_inputs, inputs_from_parameters, problem_with_inputs


class Distil(WorkerAlgorithm):
    """``rsfusion:distil``."""

    def name(self):
        return "distil"

    def displayName(self):
        return tr("Distil to a smaller model")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("distill,knowledge distillation,compress,faster,half width,student,teacher").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Makes a network of half the width that learns from your rasters, without any label, to map like the one"
            " given. It maps large areas faster.</p>"
            "<p>A fifth of the scene is kept apart: the log says how many of its pixels get the same class from both, and how"
            " fast each is. Give as much of the ground to be mapped as you can.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer, real = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        add_inputs(self)
        self.add(
            QgsProcessingParameterFile("MODEL", tr("Model"), fileFilter=tr("Model files (*.safetensors)")),
            tr("Model file (.safetensors) of a network, made by 'Fine-tune on labels'."),
        )
        self.add(
            QgsProcessingParameterNumber("EPOCHS", tr("Epochs"), integer, 12, False, 1, 100000),
            tr("Rounds over the scene."),
        )
        self.add(
            QgsProcessingParameterNumber("MINUTES", tr("Minutes"), real, None, True, 0.0),
            tr("Time to train, in place of the rounds."),
        )
        self.add(
            QgsProcessingParameterNumber("WINDOWS", tr("Windows an epoch"), integer, None, True, 1),
            tr("By default as many as cover the scene, 256 to 2048."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Seed of everything random: the same seed, inputs and epochs give the same model."),
            True,
        )
        add_device(self)
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT_MODEL", tr("Smaller model"), tr("Model files (*.safetensors)")),
            tr("Model file to write. It maps as any other."),
        )
        self.addOutput(QgsProcessingOutputNumber("AGREEMENT", tr("Part of the pixels with the same class")))
        self.addOutput(QgsProcessingOutputNumber("SPEED_RATIO", tr("Speed of the smaller model, of the larger one's")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def problem_with(self, parameters, context):
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        return JobRequest(
            {
                "kind": "distil",
                "inputs": inputs_from_parameters(self, parameters, context, feedback),
                "model": self.path_of(parameters, "MODEL", context),
                "epochs": self.parameterAsInt(parameters, "EPOCHS", context),
                "minutes": self.optional_number(parameters, "MINUTES", context),
                "windows": self.optional_whole_number(parameters, "WINDOWS", context),
                "seed": self.parameterAsInt(parameters, "SEED", context),
                "device": self.parameterAsEnumString(parameters, "DEVICE", context),
                "output_model": self.destination(parameters, "OUTPUT_MODEL", context),
            }
        )
