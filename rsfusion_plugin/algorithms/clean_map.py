"""Remove specks and small patches from a map."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import AREA_UNITS, CONNECTEDNESS
from .inputs import add_choice, add_map, map_from_parameters


class CleanMap(WorkerAlgorithm):
    """``rsfusion:cleanmap``."""

    STYLED_OUTPUTS = ("OUTPUT",)

    def name(self):
        return "cleanmap"

    def displayName(self):
        return tr("Clean a map")

    def group(self):
        return tr("After the map")

    def groupId(self):
        return "afterthemap"

    def tags(self):
        return tr("sieve,minimum mapping unit,majority,filter,salt and pepper,generalise,generalize").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Removes patches below a minimum mapping unit from a land-cover map, the smallest first: each goes to the"
            " class with which it shares the longest border (ties: most corners, then the lower code). A majority filter"
            " may smooth the map before.</p>"
            "<p>Areas are measured on the ellipsoid, in geographic coordinates too; a patch that lacks less than 0.3 %"
            " counts as large enough. Where nothing was mapped nothing is filled, and a patch that borders on nothing"
            " else stays. Names, colours and the attribute table are kept.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_map(self, "MAP", tr("Land-cover map"))
        real = QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterNumber("MINIMUM_AREA", tr("Minimum mapping unit"), real, 0.5, False, 0.0),
            tr("Smaller patches go to a neighbouring class. 0 leaves all patches, for a majority filter alone."),
        )
        add_choice(
            self,
            "UNIT",
            tr("Unit of the minimum mapping unit"),
            AREA_UNITS,
            tr("Whether the minimum mapping unit is an area on the ground or a number of pixels."),
            False,
        )
        add_choice(
            self,
            "CONNECTEDNESS",
            tr("Connectedness"),
            CONNECTEDNESS,
            tr("'4': pixels of a patch touch by their sides. '8': by their corners too, which keeps thin diagonal lines."),
        )
        whole = QgsProcessingParameterNumber.Type.Integer
        self.add(
            QgsProcessingParameterNumber("MAJORITY", tr("Window of the majority filter"), whole, 1, False, 1, 51),
            tr(
                "Side in pixels, an odd number, of the square whose most frequent class a pixel gets before small patches"
                " are looked for. Pixels without data have no vote and get no class. 1: no filter."
            ),
            True,
        )
        self.add(
            QgsProcessingParameterString("KEEP", tr("Classes to keep"), "", False, True),
            tr("Names or codes of classes that lose no patch however small, separated by semicolons. They may grow."),
            True,
        )
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Cleaned map")),
            tr("Class raster to write (.tif)."),
        )
        self.addOutput(QgsProcessingOutputNumber("SMALL_PATCHES", tr("Patches that were too small")))

    def problem_with(self, parameters, context):
        if self.parameterAsInt(parameters, "MAJORITY", context) % 2 == 0:
            return tr("MAJORITY: the window has a middle pixel; give an odd number.")
        return super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        names = self.parameterAsString(parameters, "KEEP", context).split(";")
        job = {
            "kind": "clean-map",
            "map": map_from_parameters(self, parameters, "MAP", context),
            "minimum_area": self.parameterAsDouble(parameters, "MINIMUM_AREA", context),
            "unit": self.parameterAsEnumString(parameters, "UNIT", context),
            "connectedness": self.parameterAsEnumString(parameters, "CONNECTEDNESS", context),
            "majority": self.parameterAsInt(parameters, "MAJORITY", context),
            "keep": [name.strip() for name in names if name.strip()],
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job)
