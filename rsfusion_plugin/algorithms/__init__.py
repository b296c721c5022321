"""The Processing algorithms: parameters to a job, results to outputs, nothing else."""

from .accuracy import Accuracy
from .finetune import Finetune
from .land_cover_map import LandCoverMap
from .sample_scene import SampleScene
from .setup_environment import SetupEnvironment

ALGORITHMS = (SetupEnvironment, SampleScene, Finetune, LandCoverMap, Accuracy)
