"""Make polygons of the classes of a map."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterNumber,
    QgsProcessingParameterVectorDestination,
)

from ..compat import VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import POLYGONS
from .inputs import add_choice, add_map, map_from_parameters


class VectorizeMap(WorkerAlgorithm):
    """``rsfusion:vectorizemap``."""

    STYLED_OUTPUTS = ("OUTPUT",)

    def name(self):
        return "vectorizemap"

    def displayName(self):
        return tr("Map to polygons")

    def group(self):
        return tr("After the map")

    def groupId(self):
        return "afterthemap"

    def tags(self):
        return tr("polygonize,polygonise,vectorize,vectorise,dissolve,simplify,outline").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Makes polygons of a land-cover map, with the class code, name and colour and the area in hectares of each,"
            " styled in the map's colours. Where nothing was mapped there is no polygon.</p>"
            "<p>Outlines follow the pixels, or are simplified so that neighbours keep their common border: no gaps, no"
            " overlaps. The area is always that of the pixels, measured on the ellipsoid, so that the areas of a class"
            " add up to those of the map. Clean a map first: every speck becomes a polygon.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_map(self, "MAP", tr("Land-cover map"))
        add_choice(
            self,
            "POLYGONS",
            tr("Polygons"),
            POLYGONS,
            tr("'patches': a polygon for each patch of pixels that touch by their sides. 'classes': one for each class."),
            False,
        )
        real = QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterNumber("SIMPLIFY", tr("Simplification in pixels"), real, 0.0, False, 0.0),
            tr("How much outlines are simplified: 1 takes away steps of one pixel, 2 to 3 generalise. 0: not at all."),
        )
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Polygons of the map"), VECTOR_POLYGON),
            tr("GeoPackage to write (.gpkg)."),
        )
        self.addOutput(QgsProcessingOutputNumber("N_POLYGONS", tr("Number of polygons")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        job = {
            "kind": "vectorize-map",
            "map": map_from_parameters(self, parameters, "MAP", context),
            "polygons": self.parameterAsEnumString(parameters, "POLYGONS", context),
            "simplify": self.parameterAsDouble(parameters, "SIMPLIFY", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job)
