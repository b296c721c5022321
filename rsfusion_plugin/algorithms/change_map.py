"""Compare two maps of one place."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
)

from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .inputs import add_map, map_from_parameters


class ChangeMap(WorkerAlgorithm):
    """``rsfusion:changemap``."""

    STYLED_OUTPUTS = ("OUTPUT",)

    def name(self):
        return "changemap"

    def displayName(self):
        return tr("Change between two maps")

    def group(self):
        return tr("After the map")

    def groupId(self):
        return "afterthemap"

    def tags(self):
        return tr("change detection,transition matrix,gains,losses,post-classification comparison,from-to").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Compares two land-cover maps: a raster of the transitions that occur, named and coloured, a matrix of"
            " hectares from each class to each class, and the gains and losses of each class. Classes are matched by name;"
            " the second map is read on the grid of the first.</p>"
            "<p><b>The difference of two maps has the errors of both.</b> Where each is right in 90 % of its pixels, up to a"
            " fifth of all pixels may differ without any change on the ground. Clean both maps first, distrust thin changes"
            " along the borders of classes, and take reference points of the change before you publish its area.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_map(self, "BEFORE", tr("First map"))
        add_map(self, "AFTER", tr("Second map"))
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Transitions")),
            tr("Raster of transitions to write (.tif), on the grid of the first map."),
        )
        kind = tr("CSV files (*.csv)")
        self.add(
            QgsProcessingParameterFileDestination("MATRIX", tr("Transition matrix"), kind, None, True, True),
            tr("Table to write: hectares from the class of the row to the class of the column."),
        )
        self.add(
            QgsProcessingParameterFileDestination("SUMMARY", tr("Gains and losses"), kind, None, True, True),
            tr("Table to write: hectares of each class before and after, gained, lost, and the net change."),
        )
        self.addOutput(QgsProcessingOutputNumber("CHANGED_HECTARES", tr("Hectares that changed")))
        self.addOutput(QgsProcessingOutputNumber("CHANGED_PERCENT", tr("Percent that changed")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        job = {
            "kind": "change-map",
            "before": map_from_parameters(self, parameters, "BEFORE", context),
            "after": map_from_parameters(self, parameters, "AFTER", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
            "matrix": self.destination(parameters, "MATRIX", context),
            "summary": self.destination(parameters, "SUMMARY", context),
        }
        return JobRequest(job)
