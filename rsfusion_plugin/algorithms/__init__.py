"""The Processing algorithms: parameters to a job, results to outputs, nothing else."""

from .accuracy import Accuracy
from .classify_scenes import ClassifyScenes
from .features import Features
from .finetune import Finetune
from .land_cover_map import LandCoverMap
from .pretrain import Pretrain
from .sample_scene import SampleScene
from .setup_environment import SetupEnvironment

ALGORITHMS = (SetupEnvironment, SampleScene, Pretrain, Finetune, LandCoverMap, ClassifyScenes, Features, Accuracy)
