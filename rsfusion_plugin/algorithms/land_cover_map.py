"""Map a scene with a model."""

from qgis.core import (
    QgsProcessingOutputString,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
)

from ..compat import VECTOR_POLYGON
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import PRECISIONS
from .inputs import (
    add_choice,
    add_device,
    add_format,
    add_inputs,
    add_missing_inputs,
    add_overlap,
    extent_from_parameters,
    inputs_from_parameters,
    mask_from_parameters,
    problem_with_inputs,
)


class LandCoverMap(WorkerAlgorithm):
    """``rsfusion:landcovermap``."""

    LAYERS = ("CONFIDENCE", "PROBABILITIES", "ENTROPY", "MARGIN", "NOVELTY", "CONTRIBUTIONS")
    STYLED_OUTPUTS = ("OUTPUT", *LAYERS)

    def name(self):
        return "landcovermap"

    def displayName(self):
        return tr("Multimodal land-cover map")

    def group(self):
        return tr("Mapping")

    def groupId(self):
        return "mapping"

    def tags(self):
        return tr("classify,predict,inference,deep learning,land cover,land use,fusion").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Maps land cover with a model made by 'Fine-tune on labels', from the same kinds of rasters that the"
            " model was trained on. The rasters may lie on different grids and in different coordinate reference"
            " systems.</p>"
            "<p>The map comes with class names, colours and areas. On request a second raster tells how sure the model"
            " is of each pixel, in percent; others the probability of each class, where the ground is unlike anything"
            " that was labelled, and what each raster contributes.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self.add(
            QgsProcessingParameterFile("MODEL", tr("Model"), fileFilter=tr("Models (*.safetensors *.onnx)")),
            tr("Model file (.safetensors) of 'Fine-tune on labels', or a graph (.onnx) that 'rsfusion export' made of one."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            tr("Part of the scene to map. By default the main raster's extent."),
        )
        self.add(
            QgsProcessingParameterFeatureSource("MASK", tr("Mask"), [VECTOR_POLYGON], optional=True),
            tr("Polygons outside which nothing is mapped."),
        )
        add_overlap(self)
        add_device(self)
        add_missing_inputs(
            self,
            tr(
                "'allow': map such places from the rasters that do have data, with less confidence, if the model has"
                " learned to; a raster may also be left out altogether. 'require': leave them empty."
            ),
        )
        add_choice(
            self,
            "PRECISION",
            tr("Precision"),
            PRECISIONS,
            tr(
                "Numbers that a network computes with. 'auto': 16 bits for a large scene, where the processor computes with"
                " them and a trial gives 99.5 percent of the pixels the same class; the log says so."
            ),
        )
        add_format(self)
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Land-cover map")),
            tr("Class raster to write (.tif)."),
        )
        self._add_layer(
            "CONFIDENCE", tr("Confidence"), tr("Raster to write with the probability of the mapped class, in percent.")
        )
        self._add_layer(
            "PROBABILITIES",
            tr("Class probabilities"),
            tr("Raster to write with the probability of each class, a band a class."),
        )
        self._add_layer(
            "ENTROPY",
            tr("Entropy"),
            tr("Raster to write of how evenly the probability is spread, in percent: 0 = one class, 100 = all alike."),
        )
        self._add_layer(
            "MARGIN",
            tr("Margin"),
            tr("Raster to write of how far the likeliest class is ahead of the next, in percent."),
        )
        self._add_layer(
            "NOVELTY",
            tr("Outside what the model has seen"),
            tr(
                "Raster to write of how unlike the labelled ground each pixel is. 95 % of the labels that were held out lie"
                " below 1; far above it, the model has not seen such ground, however sure it is."
            ),
        )
        self._add_layer(
            "CONTRIBUTIONS",
            tr("What each raster contributes"),
            tr(
                "Raster to write, a band an input: how many percent of the probability would move to other classes without"
                " it. It takes one more prediction for each input."
            ),
        )
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def _add_layer(self, key, title, help_text):
        """A raster beside the map, which is written on request."""
        self.add(QgsProcessingParameterRasterDestination(key, title, None, True, False), help_text)

    def problem_with(self, parameters, context):
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        inputs = inputs_from_parameters(self, parameters, context, feedback)
        mask, exports = mask_from_parameters(self, parameters, "MASK", context, folder)
        job = {
            "kind": "map",
            "inputs": inputs,
            "model": self.path_of(parameters, "MODEL", context),
            "extent": extent_from_parameters(self, parameters, "EXTENT", context),
            "mask": mask,
            "overlap": self.parameterAsDouble(parameters, "OVERLAP", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "missing_inputs": self.parameterAsEnumString(parameters, "MISSING_INPUTS", context),
            "precision": self.parameterAsEnumString(parameters, "PRECISION", context),
            "format": self.parameterAsEnumString(parameters, "FORMAT", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
            **{key.lower(): self.destination_layer(parameters, key, context) for key in self.LAYERS},
        }
        return JobRequest(job, exports)
