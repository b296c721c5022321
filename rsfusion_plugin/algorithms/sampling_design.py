"""Draw a sample of points from a map, to be interpreted as its reference."""

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from ..layers.rasters import raster_path
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import ALLOCATIONS
from .inputs import add_choice, unreadable_raster


class SamplingDesign(WorkerAlgorithm):
    """``rsfusion:samplingdesign``."""

    STYLED_OUTPUTS = ("OUTPUT",)

    def name(self):
        return "samplingdesign"

    def displayName(self):
        return tr("Sampling design")

    def group(self):
        return tr("Assessment")

    def groupId(self):
        return "assessment"

    def tags(self):
        return tr("stratified,random,sample size,reference,validation,cochran,neyman,olofsson").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Draws a stratified random sample of points from a land-cover map: the reference for its accuracy"
            " assessment, once a person has looked at each point and filled in what is there.</p>"
            "<p>The classes of the map are the strata. The sample is as large as the precision asked for needs (Cochran"
            " 1977; Olofsson et al. 2014). Fill in the field 'reference' of the points, from imagery better than what"
            " the map was made from; the form offers the classes. Points are numbered at random, and the form does not"
            " show what the map says. Then run 'Accuracy assessment' with 'reference' as class field; it finds the"
            " strata in the same file, also when another map of the same ground is assessed.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer = QgsProcessingParameterNumber.Type.Integer
        real = QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterRasterLayer("MAP", tr("Land-cover map")),
            tr("Class raster whose classes are the strata, as 'Multimodal land-cover map' writes it."),
        )
        self.add(
            QgsProcessingParameterString("EXPECTED_ACCURACY", tr("Expected user's accuracy"), "0.8"),
            tr(
                "How much of each mapped class is probably right: a number for all classes, or class=number after"
                " commas, as in '0.8, forest=0.9, water=0.95'. The less, the more points are needed."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                "TARGET_STANDARD_ERROR", tr("Standard error of overall accuracy"), real, 0.01, False, 0.0001, 0.4999
            ),
            tr("The precision to aim at: 0.01 is an interval of about 2 points to either side."),
        )
        self.add(
            QgsProcessingParameterNumber("SIZE", tr("Number of points"), integer, None, True, 1),
            tr("Takes the place of the standard error: as many points as somebody can look at."),
        )
        add_choice(
            self,
            "ALLOCATION",
            tr("Points of the classes"),
            ALLOCATIONS,
            tr(
                "'balanced': by area, but a minimum in each class, so that small classes are known too; 'proportional':"
                " by area; 'equal': as many in each; 'optimal': by area and expected error, best for overall accuracy."
            ),
        )
        self.add(
            QgsProcessingParameterNumber("MINIMUM", tr("Fewest points of a class"), integer, 50, False, 2),
            tr("Of the balanced allocation. 50 to 100 are usual. A class of fewer pixels is taken whole."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("MINIMUM_DISTANCE", tr("Distance between points, metres"), real, 0.0, False, 0.0),
            tr("Two points are never nearer than this. 0 draws at random, which is what the intervals suppose."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("The same number gives the same points."),
            True,
        )
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Points to interpret")),
            tr("GeoPackage to write (.gpkg), with the points and the table of the strata."),
        )
        self.addOutput(QgsProcessingOutputNumber("SAMPLE_SIZE", tr("Number of points")))
        self.addOutput(QgsProcessingOutputNumber("EXPECTED_STANDARD_ERROR", tr("Expected standard error")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        layer = self.parameterAsRasterLayer(parameters, "MAP", context)
        if layer is None:
            raise QgsProcessingException(unreadable_raster("MAP", parameters.get("MAP")))
        job = {
            "kind": "sampling-design",
            "map": raster_path(layer),
            "expected_accuracy": self.parameterAsString(parameters, "EXPECTED_ACCURACY", context),
            "target_standard_error": self.parameterAsDouble(parameters, "TARGET_STANDARD_ERROR", context),
            "size": self.optional_whole_number(parameters, "SIZE", context),
            "allocation": self.parameterAsEnumString(parameters, "ALLOCATION", context),
            "minimum": self.parameterAsInt(parameters, "MINIMUM", context),
            "minimum_distance": self.parameterAsDouble(parameters, "MINIMUM_DISTANCE", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
        }
        return JobRequest(job)
