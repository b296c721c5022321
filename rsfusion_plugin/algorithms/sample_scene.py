"""Write a simulated scene to try everything on."""

import os

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
)

from ..texts import tr
from .base import JobRequest, WorkerAlgorithm


class SampleScene(WorkerAlgorithm):
    """``rsfusion:samplescene``."""

    STYLED_OUTPUTS = ("OPTICAL", "SAR", "ELEVATION", "TRUTH", "LABELS", "REFERENCE")

    def name(self):
        return "samplescene"

    def displayName(self):
        return tr("Create a sample scene")

    def group(self):
        return tr("Getting started")

    def groupId(self):
        return "gettingstarted"

    def tags(self):
        return tr("simulate,example,demo,sentinel,test data").split(",")

    def shortHelpString(self):
        return tr(
            "<p>Writes a simulated landscape to try the other algorithms on: Sentinel-1 with speckle, Sentinel-2, a"
            " surface model on a finer grid and in another coordinate reference system, the true land cover, and"
            " polygons of known classes, and points to assess a map with.</p>"
            "<p>The same size and seed give the same files. The files are added to the project.</p>"
        )

    def initAlgorithm(self, configuration=None):
        integer = QgsProcessingParameterNumber.Type.Integer
        self.add(
            QgsProcessingParameterNumber("SIZE", tr("Size"), integer, 500, False, 64, 20000),
            tr("Width and height in pixels of 10 m."),
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), integer, 0, False, 0),
            tr("Another number gives another landscape."),
        )
        self.add(
            QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of the scene")),
            tr("Folder to write the files to. It is created if its parent folder exists."),
        )
        self.addOutput(QgsProcessingOutputRasterLayer("OPTICAL", tr("Optical raster (Sentinel-2)")))
        self.addOutput(QgsProcessingOutputRasterLayer("SAR", tr("SAR raster (Sentinel-1)")))
        self.addOutput(QgsProcessingOutputRasterLayer("ELEVATION", tr("Surface model")))
        self.addOutput(QgsProcessingOutputVectorLayer("LABELS", tr("Polygons of known classes")))
        self.addOutput(QgsProcessingOutputVectorLayer("REFERENCE", tr("Points of known classes, for the assessment")))
        self.addOutput(QgsProcessingOutputRasterLayer("TRUTH", tr("True land cover")))

    def job_from_parameters(self, parameters, context, feedback, folder):
        job = {
            "kind": "sample-scene",
            "output": os.path.abspath(self.parameterAsFileOutput(parameters, "OUTPUT", context)),
            "size": self.parameterAsInt(parameters, "SIZE", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
        }
        return JobRequest(job)

    def postProcessAlgorithm(self, context, feedback):
        project = context.project()
        if project is not None:
            for key in self.STYLED_OUTPUTS:
                path = self._results.get(key)
                if path:
                    name = self.outputDefinition(key).description()
                    details = QgsProcessingContext.LayerDetails(name, project, key)
                    context.addLayerToLoadOnCompletion(path, details)
        return super().postProcessAlgorithm(context, feedback)
