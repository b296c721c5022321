"""Draw polygons where spectral indices are sure of a class."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterExtent,
    QgsProcessingParameterNumber,
    QgsProcessingParameterVectorDestination,
)

from ..compat import VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_inputs, extent_from_parameters, inputs_from_parameters, problem_with_inputs


class PseudoLabels(WorkerAlgorithm):
    """``rsfusion:pseudolabels``."""

    def name(self):
        return "pseudolabels"

    def displayName(self):
        return tr("Label from spectral indices")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("pseudo labels,weak supervision,NDVI,NDWI,MNDWI,DBSI,water,vegetation,bare soil,built-up").split(",")

    def shortHelpString(self):
        return tr(
            "<p>A start without any label: draws polygons where spectral indices and radar backscatter are sure of water,"
            " vegetation, bare ground or built-up, spread over the scene. The rule that drew a polygon and the mean of each"
            " index stand in its fields.</p>"
            "<p><b>These are rules, not truth.</b> Look at each polygon, correct its class, delete what is wrong, draw what is"
            " missing, and give the layer to 'Fine-tune on labels' with the field 'code'.</p>"
            "<p>Water: NDWI above 0 and dark radar, or MNDWI above 0. Vegetation: the greenest fifth by NDVI. Bare ground:"
            " the highest tenth by DBSI, with low NDVI. Built-up: the brightest tenth of radar, with low NDVI. Needed are red"
            " and near infrared, for water green, for bare ground a short-wave band near 1600 nm, for built-up radar. Radar"
            " alone tells water only, and takes dry sand and shadow for it.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer = QgsProcessingParameterNumber.Type.Integer
        add_inputs(self)
        self.add(
            QgsProcessingParameterNumber("COUNT", tr("Polygons of a class"), integer, 30, False, 1, 1000),
            tr("The most polygons to draw of each class, far from each other."),
        )
        self.add(
            QgsProcessingParameterNumber("MINIMUM_PIXELS", tr("Fewest pixels of a polygon"), integer, 9, False, 1, 256),
            tr("Smaller connected pieces are left out: they are mostly mixed pixels or noise."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            tr("Part of the scene to search. By default the main raster's extent."),
        )
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Polygons to correct"), VECTOR_POLYGON),
            tr("GeoPackage to write (.gpkg)."),
        )
        self.addOutput(QgsProcessingOutputNumber("N_POLYGONS", tr("Number of polygons")))

    def problem_with(self, parameters, context):
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        job = {
            "kind": "pseudolabels",
            "inputs": inputs_from_parameters(self, parameters, context, feedback),
            "count": self.parameterAsInt(parameters, "COUNT", context),
            "minimum_pixels": self.parameterAsInt(parameters, "MINIMUM_PIXELS", context),
            "extent": extent_from_parameters(self, parameters, "EXTENT", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job)
