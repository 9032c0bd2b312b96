from .conversion import ConvertOptions as ConvertOptions
from .dataset import ShardSet as ShardSet
from .errors import ConfigError as ConfigError
from .errors import DatasetError as DatasetError
from .errors import ImageError as ImageError
from .errors import SagittaError as SagittaError
from .errors import SourceError as SourceError
from .evaluation import Evaluation as Evaluation
from .loading import Augmentation as Augmentation
from .loading import ImageData as ImageData
from .loading import Loader as Loader
from .loading import Plan as Plan
from .loading import Preprocessing as Preprocessing
from .loading import SplitDataset as SplitDataset
from .models import Classifier as Classifier
from .models import load_classifier as load_classifier
from .settings import Settings as Settings
from .sources import SourceOptions as SourceOptions
from .sources import open_source as open_source
from .training import PredictionImages as PredictionImages
from .verbs import Run as Run
from .verbs import convert as convert
from .verbs import evaluate as evaluate
from .verbs import fit as fit
from .verbs import predict as predict
from .verbs import probe as probe

__version__: str
