"""Find change between the images of two dates."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..compat import RASTER, is_given
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import AUTO, CHANGE_MODES, SENTINEL2_OFFSETS
from .inputs import (
    ROLES,
    add_choice,
    add_device,
    add_inputs,
    add_labels,
    add_report,
    inputs_from_parameters,
    labels_from_parameters,
    later_rasters,
    problem_with_inputs,
)


class DetectChange(WorkerAlgorithm):
    """``rsfusion:detectchange``."""

    LAYERS = ("PROBABILITY", "VARIATES")
    STYLED_OUTPUTS = ("OUTPUT", *LAYERS)

    def name(self):
        return "detectchange"

    def displayName(self):
        return tr("Detect change between images")

    def group(self):
        return tr("Mapping")

    def groupId(self):
        return "mapping"

    def tags(self):
        return tr("change detection,two dates,bi-temporal,difference,MAD,IR-MAD,deforestation,damage").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Maps what has changed between the images of two dates. Both need images of the same sensors; the second"
            " date may lie on another grid and is read on that of the first.</p>"
            "<p>Without labels, iteratively reweighted multivariate alteration detection (IR-MAD) finds what differs. Light"
            " and haze that are alike in the whole image cancel out; seasons, clouds and shifted images do not. <b>Nothing"
            " says how accurate such a map is.</b></p>"
            "<p>With polygons or points of changed and unchanged ground, or of kinds of change, estimators learn from them,"
            " and blocks of ground that are held out in turn say how good they are. A network over both dates can be"
            " trained beside them, from a pre-trained model for instance; it maps only where it is clearly better.</p>"
            "<p>Two finished maps are compared by 'Change between two maps'.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self._add_later_rasters()
        add_labels(
            self,
            "LABELS",
            tr("Labels of change"),
            tr("The field that holds the class: changed or unchanged, or the kind of change."),
            optional=True,
            more=tr("Of changed and unchanged ground, or of kinds of change. Without any, what differs counts as changed."),
        )
        self._add_network()
        self._add_settings()
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Change")),
            tr("Class raster to write (.tif), on the grid of the first date; empty where a date has no data."),
        )
        self._add_layer(
            "PROBABILITY",
            tr("Probability of change"),
            tr("Raster to write, in percent. Without labels it is the level of a test, which is surer than it should be."),
        )
        self._add_layer(
            "VARIATES",
            tr("MAD variates"),
            tr(
                "Raster to write: how much each pixel differs, in deviations of unchanged ground, and a band for each of the"
                " combinations of bands that this is made of."
            ),
        )
        add_report(self, tr("HTML report to write, of a map made from labels: accuracy in blocks held out, and areas."))
        self.addOutput(QgsProcessingOutputNumber("CHANGED_HECTARES", tr("Hectares that changed")))
        self.addOutput(QgsProcessingOutputNumber("CHANGED_PERCENT", tr("Percent that changed")))
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", tr("Overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))
        self.addOutput(QgsProcessingOutputString("MODEL_USED", tr("Model")))

    def _add_later_rasters(self):
        names = {
            "OPTICAL": tr("Optical rasters of the second date"),
            "SAR": tr("SAR rasters of the second date"),
            "ELEVATION": tr("Elevation rasters of the second date"),
            "OTHER": tr("Other rasters of the second date"),
        }
        for role in ROLES:
            self.add(
                QgsProcessingParameterMultipleLayers("AFTER_" + role, names[role], RASTER, optional=True),
                tr("Of the same sensor as those of the first date, on any grid. At least one raster is needed."),
            )
        add_choice(
            self,
            "AFTER_SENTINEL2_OFFSET",
            tr("Sentinel-2 values of the second date carry the +1000 offset"),
            SENTINEL2_OFFSETS,
            tr("As for the first date: the two may lie before and after January 2022."),
        )

    def _add_network(self):
        number = QgsProcessingParameterNumber
        base_model = QgsProcessingParameterFile(
            "BASE_MODEL", tr("Model to start from"), optional=True, fileFilter=tr("Model files (*.safetensors)")
        )
        self.add(
            base_model,
            tr(
                "A model file (.safetensors) of 'Pre-train on unlabelled scenes' or 'Fine-tune on labels' over the same"
                " sensors. With labels, a network that starts from it is trained beside the estimators."
            ),
            True,
        )
        add_choice(
            self,
            "MODE",
            tr("What is trained"),
            CHANGE_MODES,
            tr(
                "With labels. 'vote': estimators, which take seconds. 'network': besides them a network over both dates,"
                " which maps where it is clearly better than they are on labels held out. 'auto': a network where a model"
                " to start from is given."
            ),
        )
        self.add(
            number("EPOCHS", tr("Epochs"), number.Type.Integer, 24, False, 1, 10000),
            tr("The most rounds to train a network; training stops early when the held-out labels show no further gain."),
            True,
        )
        add_device(self)

    def _add_settings(self):
        number = QgsProcessingParameterNumber
        self.add(
            QgsProcessingParameterString("UNCHANGED", tr("Class that means no change"), "unchanged"),
            tr("Which class of the labels means that nothing has changed; all others are kinds of change."),
            True,
        )
        self.add(
            number("NO_CHANGE_PROBABILITY", tr("Probability of no change"), number.Type.Double, 0.001, False, 1e-12, 0.999),
            tr(
                "Without labels: a pixel counts as changed where unchanged ground would differ as much with a probability"
                " below this. Real ground varies more than the test assumes: lower it where too much is called changed."
            ),
            True,
        )
        self.add(
            number("SEED", tr("Seed"), number.Type.Integer, 0, False, 0),
            tr("Seed of everything random: the same seed and inputs give the same map."),
            True,
        )

    def _add_layer(self, key, title, help_text):
        """A raster beside the map, which is written on request."""
        self.add(QgsProcessingParameterRasterDestination(key, title, None, True, False), help_text)

    def problem_with(self, parameters, context):
        if not any(is_given(parameters.get("AFTER_" + role)) for role in ROLES):
            return tr("No raster of the second date was given. Give at least one of {}.").format(
                ", ".join("AFTER_" + role for role in ROLES)
            )
        if is_given(parameters.get("LABELS")):
            if not is_given(parameters.get("CLASS_FIELD")):
                return tr("CLASS_FIELD: name the field of LABELS that holds the class.")
            if self._mode(parameters, context) == "vote" and is_given(parameters.get("BASE_MODEL")):
                return tr("BASE_MODEL: MODE 'vote' trains no network. Leave it out, or take 'auto' or 'network'.")
        elif is_given(parameters.get("REPORT")):
            return tr("REPORT: without LABELS there is nothing to measure. Leave it out, or give labels of change.")
        elif is_given(parameters.get("BASE_MODEL")) or self._mode(parameters, context) != AUTO:
            return tr("MODE, BASE_MODEL: without LABELS nothing is trained. Leave them out, or give labels of change.")
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def _mode(self, parameters, context):
        return self.parameterAsEnumString(parameters, "MODE", context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        labels, exports = None, []
        if is_given(parameters.get("LABELS")):
            labels, exports = labels_from_parameters(self, parameters, "LABELS", context, folder)
        job = {
            "kind": "detect-change",
            "inputs": inputs_from_parameters(self, parameters, context, feedback),
            **later_rasters(self, parameters, context, feedback),
            "after_sentinel2_offset": self.parameterAsEnumString(parameters, "AFTER_SENTINEL2_OFFSET", context),
            "labels": labels,
            "unchanged": self.parameterAsString(parameters, "UNCHANGED", context).strip(),
            "mode": self._mode(parameters, context),
            "base_model": self.path_of(parameters, "BASE_MODEL", context),
            "epochs": self.parameterAsInt(parameters, "EPOCHS", context),
            "no_change_probability": self.parameterAsDouble(parameters, "NO_CHANGE_PROBABILITY", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "output": self.destination_layer(parameters, "OUTPUT", context),
            **{key.lower(): self.destination_layer(parameters, key, context) for key in self.LAYERS},
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports)
