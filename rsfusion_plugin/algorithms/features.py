"""Write what a model knows of each pixel."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
)

from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import (
    add_device,
    add_format,
    add_inputs,
    add_overlap,
    extent_from_parameters,
    inputs_from_parameters,
    problem_with_inputs,
)


class Features(WorkerAlgorithm):
    """``rsfusion:features``."""

    def name(self):
        return "features"

    def displayName(self):
        return tr("Extract features")

    def group(self):
        return tr("Mapping")

    def groupId(self):
        return "mapping"

    def tags(self):
        return tr("embedding,deep features,principal components,clustering,self-supervised").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Writes what a model knows of each pixel before it says a class: a raster with a band for each feature. Use it"
            " for clustering, for change, or for the classifiers of other tools.</p>"
            "<p>On request the features are summed up in a few principal components, or in a picture of the first three,"
            " which shows at a glance what the model tells apart.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer = QgsProcessingParameterNumber.Type.Integer
        add_inputs(self)
        self.add(
            QgsProcessingParameterFile("MODEL", tr("Model"), fileFilter=tr("Model files (*.safetensors)")),
            tr("Model file (.safetensors) made by 'Pre-train on unlabelled scenes' or 'Fine-tune on labels'."),
        )
        self.add(
            QgsProcessingParameterNumber("COMPONENTS", tr("Principal components"), integer, 0, False, 0, 1024),
            tr("Number of principal components to write in place of the features; 0 writes all features."),
        )
        self.add(
            QgsProcessingParameterBoolean("PICTURE", tr("Write a picture"), False),
            tr("Write the first three principal components as a picture: red, green and blue."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            tr("Part of the scene. By default the main raster's extent."),
        )
        add_overlap(self)
        add_device(self)
        add_format(self)
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Features")),
            tr("Raster to write (.tif)."),
        )
        self.addOutput(QgsProcessingOutputNumber("N_FEATURES", tr("Features of the model")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def problem_with(self, parameters, context):
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        return JobRequest(
            {
                "kind": "features",
                "inputs": inputs_from_parameters(self, parameters, context, feedback),
                "model": self.path_of(parameters, "MODEL", context),
                "components": self.parameterAsInt(parameters, "COMPONENTS", context),
                "picture": self.parameterAsBoolean(parameters, "PICTURE", context),
                "extent": extent_from_parameters(self, parameters, "EXTENT", context),
                "overlap": self.parameterAsDouble(parameters, "OVERLAP", context),
                "device": self.parameterAsEnumString(parameters, "DEVICE", context),
                "format": self.parameterAsEnumString(parameters, "FORMAT", context),
                "output": self.destination_layer(parameters, "OUTPUT", context),
            }
        )
