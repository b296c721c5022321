"""Train a model on drawn polygons or points."""

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

from ..compat import is_given
from ..texts import tr
from .base import JobRequest, WorkerAlgorithm
from .choices import ARCHITECTURES, AUTO, ENCODERS, FUSIONS, MODES, SIZES
from .inputs import (
    add_choice,
    add_device,
    add_inputs,
    add_labels,
    add_missing_inputs,
    add_report,
    inputs_from_parameters,
    labels_from_parameters,
    problem_with_inputs,
)


class Finetune(WorkerAlgorithm):
    """``rsfusion:finetune``."""

    def name(self):
        return "finetune"

    def displayName(self):
        return tr("Fine-tune on labels")

    def group(self):
        return tr("Training")

    def groupId(self):
        return "training"

    def tags(self):
        return tr("train,deep learning,classification,fusion,land cover,u-net,supervised").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Trains a model that tells land-cover classes apart, from the polygons or points that you have drawn on"
            " optical, SAR, elevation or other rasters, in any combination. Everything that carries no label is"
            " ignored.</p>"
            "<p>Part of the labels is held out in spatial blocks and measures the accuracy. The report shows it beside"
            " that of simpler methods trained on the same labels.</p>"
            "<p>Where some of the rasters have no data, clouds for instance, the model learns to do with the others. The"
            " report says how good it is with which of them.</p>"
            "<p>If the label layer has a categorised style on the class field, its names and colours are those of the"
            " map. Only the selected features are used if you ask for it.</p>"
        )

    def initAlgorithm(self, configuration=None):
        add_inputs(self)
        self._add_labels()
        self._add_training()
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT_MODEL", tr("Model"), tr("Model files (*.safetensors)")),
            tr("Model file to write. Use it in 'Multimodal land-cover map'."),
        )
        add_report(self, tr("HTML report to write: accuracy, curves, pictures, and how simpler methods do on the same labels."))
        self.addOutput(QgsProcessingOutputString("MODEL_USED", tr("Model")))
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", tr("Overall accuracy")))
        self.addOutput(QgsProcessingOutputNumber("MACRO_F1", tr("Macro F1")))
        self.addOutput(QgsProcessingOutputNumber("EXPECTED_CALIBRATION_ERROR", tr("Expected calibration error")))
        self.addOutput(QgsProcessingOutputString("DEVICE_USED", tr("Device used")))

    def _add_labels(self):
        add_labels(self, "LABELS", tr("Labels"), tr("The field that holds the class: text or whole numbers."))
        self.add(
            QgsProcessingParameterString("CLASS_SCHEME", tr("Class scheme"), AUTO),
            tr(
                "Names, codes and colours of the classes: the name of a shipped scheme, the path of a scheme's JSON"
                " file, or 'auto', which makes them from the layer's style or from the class field."
            ),
            True,
        )

    def _add_training(self):
        integer, real = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        base_model = QgsProcessingParameterFile(
            "BASE_MODEL", tr("Model to start from"), optional=True, fileFilter=tr("Model files (*.safetensors)")
        )
        self.add(
            base_model,
            tr(
                "A model file (.safetensors) to train further; it keeps its own architecture. Without one, training starts"
                " afresh."
            ),
        )
        add_choice(
            self,
            "MODE",
            tr("What is trained"),
            MODES,
            tr(
                "'auto': a network, forests and logistic regressions; the vote of a regression and two forests is the model,"
                " unless the network is clearly better on labels held out. 'scratch': a network. Of a base model 'linear': only"
                " what follows its encoders, 'partial': also their last stage, 'full': all, its first layers least,"
                " 'adapters': also small changes of all layers of its encoders. 'forest', 'boosting', 'logistic': no network,"
                " in seconds."
            ),
        )
        self._add_architecture()
        self._add_encoder_weights()
        self._add_label_switches()
        self.add(
            QgsProcessingParameterNumber("EPOCHS", tr("Epochs"), integer, 24, False, 1, 10000),
            tr("The most rounds to train; training stops early when the held-out labels show no further gain."),
        )
        self.add(
            QgsProcessingParameterNumber("MINUTES", tr("Minutes to try other networks"), real, None, True, 0.0),
            tr(
                "For 'auto': time for the whole training. After the first network others are trained as long as they are"
                " likely to end in it: at other learning rates and, of a model to start from, other parts. By default one"
                " network is trained, which is mostly enough: the vote seldom loses."
            ),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Seed of everything random: the same seed and inputs give the same model."),
            True,
        )
        add_device(self)
        add_missing_inputs(
            self,
            tr(
                "'allow': learn to map where only some of the rasters have data, too, because of clouds or a swath that"
                " ends. 'require': learn only from places that all rasters cover, and map only these."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                "VALIDATION_FRACTION", tr("Held-out part of the labels"), real, 0.3, False, 0.01, 0.89
            ),
            tr("Part of the labels that is not trained on but measures the accuracy, in spatial blocks."),
            True,
        )
        self.add(
            QgsProcessingParameterNumber("BLOCK_SIZE", tr("Side of a spatial block (m)"), real, None, True, 0.0),
            tr("All labels within one block are either trained on or held out. By default chosen from the labels."),
            True,
        )

    def _add_label_switches(self):
        self.add(
            QgsProcessingParameterBoolean("SPREAD_LABELS", tr("Spread labels within super-pixels"), False),
            tr(
                "A connected piece of the image that looks alike, with drawn pixels of one class only, gives its other pixels"
                " that class, with less weight. Scores are of drawn pixels alone."
            ),
            True,
        )
        self.add(
            QgsProcessingParameterNumber(
                "SELF_TRAINING", tr("Rounds of self-training"), QgsProcessingParameterNumber.Type.Integer, 0, False, 0, 10
            ),
            tr(
                "In each round, forests and regressions learn from unlabelled pixels around the labels, too, where they are"
                " sure of the class. Two or three are usual; 0: none. A network is not concerned."
            ),
            True,
        )

        self.add(
            QgsProcessingParameterBoolean("CONSISTENCY", tr("Consistency on unlabelled pixels"), False),
            tr(
                "A network also has to agree, on unlabelled pixels around the labels, with what the average of its weights is"
                " sure of. Training takes about half as long again."
            ),
            True,
        )

    def _add_encoder_weights(self):
        weights = QgsProcessingParameterFile(
            "ENCODER_WEIGHTS",
            tr("Weights of a public encoder"),
            optional=True,
            fileFilter=tr("Weights (*.safetensors)"),
        )
        self.add(
            weights,
            tr(
                "A file (.safetensors) with the weights of a public encoder, such as a ResNet or a vision transformer of"
                " timm, to start from. Choose the architecture that it fits: 'resnet_intermediate' for a ResNet-18,"
                " 'vit_joint_tokens' for a tiny vision transformer."
            ),
            True,
        )
        self.add(
            QgsProcessingParameterString("ENCODER_KEYS", tr("Names of the weights"), AUTO),
            tr(
                "Which weight is which: 'auto', 'timm_resnet', 'timm_vit', or the path of a JSON file with pairs of a"
                " regular expression and a name."
            ),
            True,
        )

    def _add_architecture(self):
        hints = " ".join("{}: {}".format(name, tr(use)) for name, use in ARCHITECTURES.items())
        add_choice(
            self,
            "ARCHITECTURE",
            tr("Architecture"),
            ARCHITECTURES,
            tr("How a new model is built, and how it joins the rasters.") + " " + hints,
            advanced=False,
        )
        own = tr("'auto' takes what belongs to the architecture.")
        add_choice(
            self,
            "ENCODER",
            tr("Encoder"),
            ENCODERS,
            own
            + " "
            + tr(
                "The part that looks at the images. 'unet' keeps every pixel apart and learns from few labels; 'resnet',"
                " 'resunet' and 'vit' see more of the surroundings and are at their best after pre-training."
            ),
        )
        add_choice(
            self,
            "FUSION",
            tr("Fusion"),
            FUSIONS,
            own
            + " "
            + tr(
                "How the kinds of rasters are joined. 'early': all bands are stacked first. 'intermediate': each kind has"
                " its own branch, and they meet at every level. 'late': each kind makes its own picture, and these are"
                " joined at the end. The others let one kind look at the others. With rasters of one kind there is"
                " nothing to join."
            ),
        )
        add_choice(
            self,
            "SIZE",
            tr("Size"),
            SIZES,
            own
            + " "
            + tr(
                "Size of the encoder. Larger ones need more labels, memory and time; 'resunet' has no 'tiny' one and"
                " 'vit' no 'large' one."
            ),
        )

    def problem_with(self, parameters, context):
        if is_given(parameters.get("MINUTES")) and self.parameterAsEnumString(parameters, "MODE", context) != AUTO:
            return tr("MINUTES are for trying several networks: take MODE 'auto', or leave them out.")
        return problem_with_inputs(parameters) or super().problem_with(parameters, context)

    def job_from_parameters(self, parameters, context, feedback, folder):
        inputs = inputs_from_parameters(self, parameters, context, feedback)
        labels, exports = labels_from_parameters(self, parameters, "LABELS", context, folder)
        labels["class_scheme"] = self.parameterAsString(parameters, "CLASS_SCHEME", context).strip() or AUTO
        job = {
            "kind": "finetune",
            "inputs": inputs,
            "labels": labels,
            "base_model": self.path_of(parameters, "BASE_MODEL", context),
            "architecture": self.parameterAsEnumString(parameters, "ARCHITECTURE", context),
            "encoder": self.optional_choice(parameters, "ENCODER", context),
            "encoder_weights": self.path_of(parameters, "ENCODER_WEIGHTS", context),
            "encoder_keys": self._encoder_keys(parameters, context),
            "fusion": self.optional_choice(parameters, "FUSION", context),
            "size": self.optional_choice(parameters, "SIZE", context),
            "missing_inputs": self.parameterAsEnumString(parameters, "MISSING_INPUTS", context),
            "mode": self.parameterAsEnumString(parameters, "MODE", context),
            "spread_labels": self.parameterAsBoolean(parameters, "SPREAD_LABELS", context),
            "self_training": self.parameterAsInt(parameters, "SELF_TRAINING", context),
            "consistency": self.parameterAsBoolean(parameters, "CONSISTENCY", context),
            "epochs": self.parameterAsInt(parameters, "EPOCHS", context),
            "minutes": self.optional_number(parameters, "MINUTES", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            "device": self.parameterAsEnumString(parameters, "DEVICE", context),
            "validation_fraction": self.parameterAsDouble(parameters, "VALIDATION_FRACTION", context),
            "block_size": self.optional_number(parameters, "BLOCK_SIZE", context),
            "output_model": self.destination(parameters, "OUTPUT_MODEL", context),
            "report": self.destination(parameters, "REPORT", context),
        }
        return JobRequest(job, exports)

    def _encoder_keys(self, parameters, context):
        keys = self.parameterAsString(parameters, "ENCODER_KEYS", context).strip()
        return keys if keys != AUTO and keys else None
