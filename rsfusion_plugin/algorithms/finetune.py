"""Train a model on drawn polygons or points."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

from ..compat import VECTOR_POINT, VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import ARCHITECTURES, AUTO
from .inputs import add_device, add_inputs, inputs_from_parameters, inputs_given, labels_from_parameters


class Finetune(WorkerAlgorithm):
    """``rsfusion:finetune``."""

    def name(self):
        return "finetune"

    def displayName(self):
        return tr("Fine-tune on labels")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("train,deep learning,classification,fusion,land cover,u-net,supervised").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Trains a model that tells land-cover classes apart, from the polygons or points that you have drawn on"
            " optical, SAR, elevation or other rasters, in any combination. Everything that carries no label is"
            " ignored.</p>"
            "<p>Part of the labels is held out in spatial blocks and measures the accuracy. The report shows it beside"
            " that of simpler methods trained on the same labels.</p>"
            "<p>If the label layer has a categorised style on the class field, its names and colours are those of the"
            " map. Only the selected features are used if you ask for it.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self._add_labels()
        self._add_training()
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT_MODEL", tr("Model"), tr("Model files (*.safetensors)")),
            tr("Model file to write. Use it in 'Multimodal land-cover map'."),
        )
        self.add(
            QgsProcessingParameterFileDestination("REPORT", tr("Report"), tr("HTML files (*.html)"), None, True, True),
            tr("HTML report to write: accuracy, curves, pictures, and how simpler methods do on the same labels."),
        )
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", tr("Overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def _add_labels(self):
        self.add(
            QgsProcessingParameterFeatureSource("LABELS", tr("Labels"), [VECTOR_POLYGON, VECTOR_POINT]),
            tr("Polygons or points of known classes, in any coordinate reference system."),
        )
        self.add(
            QgsProcessingParameterField("CLASS_FIELD", tr("Class field"), parentLayerParameterName="LABELS"),
            tr("The field that holds the class: text or whole numbers."),
        )
        self.add(
            QgsProcessingParameterString("CLASS_SCHEME", tr("Class scheme"), AUTO),
            tr(
                "Names, codes and colours of the classes: the name of a shipped scheme, the path of a scheme's JSON"
                " file, or 'auto', which makes them from the layer's style or from the class field."
            ),
            True,
        )

    def _add_training(self):
        integer, real = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        base_model = QgsProcessingParameterFile(
            "BASE_MODEL", tr("Model to start from"), optional=True, fileFilter=tr("Model files (*.safetensors)")
        )
        self.add(base_model, tr("A model file (.safetensors) to train further. Without one, training starts afresh."))
        architecture = QgsProcessingParameterEnum(
            "ARCHITECTURE", tr("Architecture"), list(ARCHITECTURES), False, ARCHITECTURES[0], False, True
        )
        self.add(
            architecture,
            tr(
                "How the rasters are joined in a new model. 'unet_intermediate': each kind of raster has its own branch"
                " at its own resolution, and they meet at every level. 'unet_early': all bands are stacked first."
            ),
        )
        self.add(
            QgsProcessingParameterNumber("EPOCHS", tr("Epochs"), integer, 40, False, 1, 10000),
            tr("The most rounds to train; training stops early when the held-out labels show no further gain."),
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Seed of everything random: the same seed and inputs give the same model."),
            True,
        )
        add_device(self)
        self.add(
            QgsProcessingParameterNumber(
                "VALIDATION_FRACTION", tr("Held-out part of the labels"), real, 0.3, False, 0.01, 0.89
            ),
            tr("Part of the labels that is not trained on but measures the accuracy, in spatial blocks."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("BLOCK_SIZE", tr("Side of a spatial block (m)"), real, None, True, 0.0),
            tr("All labels within one block are either trained on or held out. By default chosen from the labels."),
            True,
        )

    def problem_with(self, parameters, context):
        if not inputs_given(parameters):
            return tr("No raster was given. Give at least one of OPTICAL, SAR, ELEVATION and OTHER.")
        return super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        inputs = inputs_from_parameters(self, parameters, context, feedback)
        labels, exports = labels_from_parameters(self, parameters, "LABELS", context, folder)
        labels["class_scheme"] = self.parameterAsString(parameters, "CLASS_SCHEME", context).strip() or AUTO
        job = {
            "kind": "finetune",
            "inputs": inputs,
            "labels": labels,
            "base_model": self.path_of(parameters, "BASE_MODEL", context),
            "architecture": self.parameterAsEnumString(parameters, "ARCHITECTURE", context),
            "epochs": self.parameterAsInt(parameters, "EPOCHS", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "validation_fraction": self.parameterAsDouble(parameters, "VALIDATION_FRACTION", context),
            "block_size": self.optional_number(parameters, "BLOCK_SIZE", context),
            "output_model": self.destination(parameters, "OUTPUT_MODEL", context),
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest({key: value for key, value in job.items() if value is not None}, exports)
