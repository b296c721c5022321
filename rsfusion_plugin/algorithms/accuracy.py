"""Compare a map with reference polygons or points."""

import os

from qgis.core import (
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingOutputNumber,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsProviderRegistry,
)

from ..layers.rasters import raster_path
from ..layers.vectors import has_table
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_labels, add_report, labels_from_parameters, unreadable_raster

STRATUM_FIELD, STRATA_TABLE = "stratum", "strata"
"""As ``core/assessment/sample_layer.py`` calls them."""


class Accuracy(WorkerAlgorithm):
    """``rsfusion:accuracy``."""

    def name(self):
        return "accuracy"

    def displayName(self):
        return tr("Accuracy assessment")

    def group(self):
        return tr("Assessment")

    def groupId(self):
        return "assessment"

    def tags(self):
        return tr("validation,confusion matrix,kappa,f1,area estimate,olofsson").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Compares a land-cover map with reference polygons or points: confusion matrix, overall accuracy, user's"
            " and producer's accuracy and F1 of each class, and areas of the classes corrected for the map's errors,"
            " with confidence intervals (Olofsson et al. 2014).</p>"
            "<p>Points of a 'Sampling design' are recognised: each counts with the ground that it stands for, also where"
            " another map than the one they were drawn from is assessed (Stehman 2014).</p>"
            "<p>For an honest figure the reference must not have been used to train the model.</p>"
        )

    def initAlgorithm(self, configuration=None):
        self.add(
            QgsProcessingParameterRasterLayer("MAP", tr("Land-cover map")),
            tr("Class raster, as 'Multimodal land-cover map' writes it."),
        )
        add_labels(self, "REFERENCE", tr("Reference"), tr("The field that holds the class, named or numbered as in the map."))
        self.add(
            QgsProcessingParameterField(
                "STRATA_FIELD", tr("Field of the strata"), parentLayerParameterName="REFERENCE", optional=True
            ),
            tr(
                "Of points drawn at random in strata: the field with the stratum of each. Found by itself in the points of"
                " 'Sampling design'."
            ),
            True,
        )
        self.add(
            QgsProcessingParameterFile("STRATA", tr("Table of the strata"), optional=True, fileFilter="GeoPackage (*.gpkg)"),
            tr(
                "GeoPackage with the table of the strata, where the reference is a copy that has lost its own. Without any,"
                " the strata are the classes of the map."
            ),
            True,
        )
        add_report(self, tr("HTML report to write, one file with the pictures in it."))
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", tr("Overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))
        self.addOutput(QgsProcessingOutputNumber("AREA_ADJUSTED_ACCURACY", tr("Area-adjusted overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("AREA_ADJUSTED_HALF_WIDTH", tr("Half of its 95 % interval")))

    def _design_file(self, parameters, context):
        """The GeoPackage of the reference if it is that of a sampling design; else None."""
        value = parameters.get("REFERENCE")
        if isinstance(value, QgsProcessingFeatureSourceDefinition):
            # QGIS finds no layer behind a selection.
            value = QgsProcessingUtils.mapLayerFromString(value.source.staticValue(), context)
        layer = self.parameterAsVectorLayer({"REFERENCE": value}, "REFERENCE", context)
        if layer is None or layer.providerType() != "ogr" or layer.fields().indexOf(STRATUM_FIELD) < 0:
            return None
        path = QgsProviderRegistry.instance().decodeUri("ogr", layer.source()).get("path") or ""
        return os.path.abspath(path) if os.path.isfile(path) and has_table(path, STRATA_TABLE) else None

    def job_from_parameters(self, parameters, context, feedback, folder):
        layer = self.parameterAsRasterLayer(parameters, "MAP", context)
        if layer is None:
            raise QgsProcessingException(unreadable_raster("MAP", parameters.get("MAP")))
        strata_field = self.parameterAsString(parameters, "STRATA_FIELD", context) or None
        strata = self.path_of(parameters, "STRATA", context)
        design = self._design_file(parameters, context)
        if design and not strata_field:
            strata_field = STRATUM_FIELD
        further = [strata_field] if strata_field else []
        reference, exports = labels_from_parameters(self, parameters, "REFERENCE", context, folder, further)
        if exports and design and not strata:
            # What is written for the worker are the points alone.
            strata = design
        job = {
            "kind": "accuracy",
            "map": raster_path(layer),
            "reference": reference,
            "strata_field": strata_field,
            "strata": strata,
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports)
