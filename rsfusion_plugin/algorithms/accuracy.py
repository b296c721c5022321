"""Compare a map with reference polygons or points."""

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingParameterRasterLayer,
)

from ..layers.rasters import raster_path
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_labels, add_report, labels_from_parameters, unreadable_raster


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
            "<p>For an honest figure the reference must not have been used to train the model.</p>"
        )

    def initAlgorithm(self, configuration=None):
        self.add(
            QgsProcessingParameterRasterLayer("MAP", tr("Land-cover map")),
            tr("Class raster, as 'Multimodal land-cover map' writes it."),
        )
        add_labels(self, "REFERENCE", tr("Reference"), tr("The field that holds the class, named or numbered as in the map."))
        add_report(self, tr("HTML report to write, one file with the pictures in it."))
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", tr("Overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        layer = self.parameterAsRasterLayer(parameters, "MAP", context)
        if layer is None:
            raise QgsProcessingException(unreadable_raster("MAP", parameters.get("MAP")))
        reference, exports = labels_from_parameters(self, parameters, "REFERENCE", context, folder)
        job = {
            "kind": "accuracy",
            "map": raster_path(layer),
            "reference": reference,
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports)
