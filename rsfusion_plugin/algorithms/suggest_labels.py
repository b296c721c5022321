"""Say where to label next."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterVectorDestination,
)

from ..compat import VECTOR_POINT, VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import (
    add_device,
    add_inputs,
    extent_from_parameters,
    inputs_from_parameters,
    mask_from_parameters,
    problem_with_inputs,
)


class SuggestLabels(WorkerAlgorithm):
    """``rsfusion:suggestlabels``."""

    def name(self):
        return "suggestlabels"

    def displayName(self):
        return tr("Suggest where to label next")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("active learning,uncertainty,training data,sampling,annotation,super-pixels").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Looks for the places whose labels would teach a model most, and draws them as polygons, ranked: where it is"
            " undecided between classes, or where the ground is unlike anything that was labelled; no two alike, no two in one"
            " place, none where a label is. The reason stands in a field.</p>"
            "<p>Look at each place, fill in the empty field 'class', add the polygons to your labels, and train again.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer = QgsProcessingParameterNumber.Type.Integer
        add_inputs(self)
        self.add(
            QgsProcessingParameterFile("MODEL", tr("Model"), fileFilter=tr("Model files (*.safetensors)")),
            tr("Model file (.safetensors) made by 'Fine-tune on labels'."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "EXISTING_LABELS", tr("Labels that there are"), [VECTOR_POLYGON, VECTOR_POINT], optional=True
            ),
            tr("Polygons or points that the model was trained on: no place lies on them."),
        )
        self.add(
            QgsProcessingParameterNumber("COUNT", tr("Number of places"), integer, 10, False, 1, 1000),
            tr("How many places to suggest."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            tr("Part of the scene to search. By default the main raster's extent."),
        )
        self.add(
            QgsProcessingParameterNumber("UNIT_PIXELS", tr("Size of a place in pixels"), integer, 64, False, 9, 10000),
            tr("Places are pieces of the image whose pixels look alike, with about so many pixels each."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Seed of everything random: the same seed and inputs give the same places."),
            advanced=True,
        )
        add_device(self)
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Places to label"), VECTOR_POLYGON),
            tr("GeoPackage to write (.gpkg)."),
        )
        self.addOutput(QgsProcessingOutputNumber("N_PLACES", tr("Number of places")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def problem_with(self, parameters, context):
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        labels, exports = mask_from_parameters(self, parameters, "EXISTING_LABELS", context, folder)
        job = {
            "kind": "suggest-labels",
            "inputs": inputs_from_parameters(self, parameters, context, feedback),
            "model": self.path_of(parameters, "MODEL", context),
            "existing_labels": labels,
            "count": self.parameterAsInt(parameters, "COUNT", context),
            "unit_pixels": self.parameterAsInt(parameters, "UNIT_PIXELS", context),
            "extent": extent_from_parameters(self, parameters, "EXTENT", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job, exports)
