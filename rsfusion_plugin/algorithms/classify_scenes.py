"""Classify polygons or the cells of a grid as wholes."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterVectorDestination,
)

from ..compat import VECTOR_POLYGON, is_given
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import MULTI_LABEL
from .inputs import (
    add_choice,
    add_device,
    add_inputs,
    add_report,
    extent_from_parameters,
    inputs_from_parameters,
    labels_from_parameters,
    mask_from_parameters,
    problem_with_inputs,
)


class ClassifyScenes(WorkerAlgorithm):
    """``rsfusion:classifyscenes``."""

    STYLED_OUTPUTS = ("OUTPUT",)

    def name(self):
        return "classifyscenes"

    def displayName(self):
        return tr("Classify scenes")

    def group(self):
        return tr("Mapping")

    def groupId(self):
        return "mapping"

    def tags(self):
        return tr("scene classification,patch,multi-label,object-based,grid,bigearthnet,forest,logistic").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Gives polygons, or the cells of a grid over the scene, the classes that they have as wholes: one class"
            " each, or several. A random forest and logistic regressions learn from polygons with classes what the bands"
            " in them look like (mean, spread, quantiles); the one that does best on blocks of ground that it has not seen"
            " is taken.</p>"
            "<p>The layer has for each polygon the three most probable classes, the probability of every class and the"
            " part with data. The report says how good the classes are on polygons that were held out. For a class of each"
            " pixel use 'Fine-tune on labels' and 'Multimodal land-cover map'.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self._add_training()
        self._add_units()
        self._add_settings()
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Classified scenes")),
            tr("Vector layer to write (.gpkg)."),
        )
        model_files = tr("Model files (*.safetensors)")
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT_MODEL", tr("Model to write"), model_files, None, True, False),
            tr("Model file to write (.safetensors), to classify other scenes with."),
        )
        add_report(self, tr("HTML report to write, with how good the classes are and all that was tried."))
        self.addOutput(QgsProcessingOutputString("CLASSIFIER_USED", tr("Classifier used")))
        self.addOutput(QgsProcessingOutputNumber("TOP1", tr("Top-1 accuracy")))
        self.addOutput(QgsProcessingOutputNumber("TOP3", tr("Top-3 accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))
        self.addOutput(QgsProcessingOutputNumber("MAP", tr("Mean average precision")))
        self.addOutput(QgsProcessingOutputNumber("VALIDATION_UNITS", tr("Polygons held out")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def _add_training(self):
        self.add(
            QgsProcessingParameterFeatureSource("TRAINING", tr("Training polygons"), [VECTOR_POLYGON], None, True),
            tr("Polygons of known classes, in any coordinate reference system. Not needed where a model is given."),
        )
        self.add(
            QgsProcessingParameterField("CLASS_FIELD", tr("Class field"), parentLayerParameterName="TRAINING", optional=True),
            tr("The field that holds the class, or several classes as in 'Water; Trees'."),
        )
        add_choice(
            self,
            "MULTI_LABEL",
            tr("Several classes a polygon"),
            MULTI_LABEL,
            tr("Whether a polygon may have several classes, separated by ';' or ','. 'auto' looks at the field."),
        )
        self.add(
            QgsProcessingParameterFile("MODEL", tr("Model"), fileFilter=tr("Model files (*.safetensors)"), optional=True),
            tr("Model file that this algorithm has written, in place of training polygons."),
        )

    def _add_units(self):
        real = QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterFeatureSource("UNITS", tr("Polygons to classify"), [VECTOR_POLYGON], None, True),
            tr("What is classified. By default the cells of a grid over the scene."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            tr("Part of the scene to classify. By default the main raster's extent."),
        )
        self.add(
            QgsProcessingParameterNumber("CELL_SIZE", tr("Size of a cell"), real, None, True, 0.0),
            tr(
                "Side of a grid's cell, in the units of the main raster's coordinate reference system. By default 64 pixels:"
                " 640 m at 10 m."
            ),
        )

    def _add_settings(self):
        number = QgsProcessingParameterNumber
        base_model = QgsProcessingParameterFile(
            "BASE_MODEL", tr("Base model"), fileFilter=tr("Model files (*.safetensors)"), optional=True
        )
        self.add(
            base_model,
            tr("Model of 'Pre-train on unlabelled scenes' or 'Fine-tune on labels', whose features are looked at, too."),
            True,
        )
        self.add(
            number("VALIDATION_FRACTION", tr("Part held out"), number.Type.Double, 0.3, False, 0.05, 0.85),
            tr("Part of the polygons that is held out, in spatial blocks, to say how good the classes are."),
            True,
        )
        self.add(
            number("SEED", tr("Seed"), number.Type.Integer, 0, False, 0),
            tr("Seed of everything random. The same seed gives the same classes."),
            True,
        )
        add_device(self)

    def problem_with(self, parameters, context):
        has_training, has_model = (is_given(parameters.get(key)) for key in ("TRAINING", "MODEL"))
        if has_training == has_model:
            return tr("A classifier comes from TRAINING polygons or from a MODEL file: give one of them.")
        if has_training and not is_given(parameters.get("CLASS_FIELD")):
            return tr("CLASS_FIELD: name the field of TRAINING that holds the class.")
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        training, exports = None, []
        if is_given(parameters.get("TRAINING")):
            training, exports = labels_from_parameters(self, parameters, "TRAINING", context, folder)
        units, more = mask_from_parameters(self, parameters, "UNITS", context, folder)
        job = {
            "kind": "classify-scenes",
            "inputs": inputs_from_parameters(self, parameters, context, feedback),
            "training": training,
            "multi_label": self.parameterAsEnumString(parameters, "MULTI_LABEL", context),
            "units": units,
            "extent": extent_from_parameters(self, parameters, "EXTENT", context),
            "cell_size": self.optional_number(parameters, "CELL_SIZE", context),
            "base_model": self.path_of(parameters, "BASE_MODEL", context),
            "model": self.path_of(parameters, "MODEL", context),
            "validation_fraction": self.parameterAsDouble(parameters, "VALIDATION_FRACTION", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
            "output_model": self.destination(parameters, "OUTPUT_MODEL", context),
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports + more)
