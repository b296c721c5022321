"""Measure the area of each class of a map in zones."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterVectorDestination,
)

from ..compat import VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_map, features_from_parameters, map_from_parameters


class ZonalAreas(WorkerAlgorithm):
    """``rsfusion:zonalareas``."""

    VECTOR_EXTENSIONS = (".gpkg", ".csv")

    def name(self):
        return "zonalareas"

    def displayName(self):
        return tr("Areas of classes in zones")

    def group(self):
        return tr("After the map")

    def groupId(self):
        return "afterthemap"

    def tags(self):
        return tr("zonal histogram,statistics,area,hectares,districts,tabulate").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Measures the area of each class of a land-cover map in each polygon of a layer, in hectares: a column a"
            " class, then the sum of all classes and what was not mapped.</p>"
            "<p>Pixels count where their centre lies in the zone, each with its own area on the ellipsoid, in geographic"
            " coordinates too. Zones may overlap and lie in another coordinate reference system. A zone outside the map has"
            " zeros, and is named. These are areas of the map, with its errors: 'Accuracy assessment' corrects for them.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_map(self, "MAP", tr("Land-cover map"))
        self.add(
            QgsProcessingParameterFeatureSource("ZONES", tr("Zones"), [VECTOR_POLYGON]),
            tr("Polygons, such as districts or catchments, in any coordinate reference system."),
        )
        self.add(
            QgsProcessingParameterField("ID_FIELD", tr("Field that names the zones"), parentLayerParameterName="ZONES"),
            tr("The field that says in the table which zone is which. Each polygon has a row of its own."),
        )
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Areas")),
            tr("Table to write: a GeoPackage with the zones (.gpkg), or comma-separated values alone (.csv)."),
        )
        self.addOutput(QgsProcessingOutputNumber("N_ZONES", tr("Number of zones")))
        self.addOutput(QgsProcessingOutputNumber("TOTAL_HECTARES", tr("Hectares of all classes in all zones")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        zones, exports = features_from_parameters(self, parameters, "ZONES", "ID_FIELD", context, folder)
        job = {
            "kind": "zonal-areas",
            "map": map_from_parameters(self, parameters, "MAP", context),
            "zones": zones,
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job, exports)
