"""The Processing algorithms: parameters to a job, results to outputs, nothing else."""

from .accuracy import Accuracy
from .change_map import ChangeMap
from .classify_scenes import ClassifyScenes
from .clean_map import CleanMap
from .detect_change import DetectChange
from .distil import Distil
from .features import Features
from .finetune import Finetune
from .land_cover_map import LandCoverMap
from .pretrain import Pretrain
from .pseudo_labels import PseudoLabels
from .sample_scene import SampleScene
from .sampling_design import SamplingDesign
from .setup_environment import SetupEnvironment
from .suggest_labels import SuggestLabels
from .vectorize_map import VectorizeMap
from .zonal_areas import ZonalAreas

ALGORITHMS = (
    SetupEnvironment,
    SampleScene,
    PseudoLabels,
    Pretrain,
    Finetune,
    Distil,
    LandCoverMap,
    DetectChange,
    ClassifyScenes,
    Features,
    SuggestLabels,
    SamplingDesign,
    Accuracy,
    CleanMap,
    VectorizeMap,
    ZonalAreas,
    ChangeMap,
)
