"""Data sets, and the order in which training and evaluation go through them."""

from mupc.data.augmentation import Augmentation as Augmentation
from mupc.data.augmentation import augmented as augmented
from mupc.data.catalogue import available as available
from mupc.data.catalogue import load as load
from mupc.data.corruption import Part as Part
from mupc.data.corruption import hidden_part as hidden_part
from mupc.data.corruption import with_noise as with_noise
from mupc.data.dataset import Dataset as Dataset
from mupc.data.loader import Weights as Weights
from mupc.data.loader import batch_indices as batch_indices
from mupc.data.loader import epoch_order as epoch_order
from mupc.data.loader import evaluation_batches as evaluation_batches
from mupc.data.loader import steps_per_epoch as steps_per_epoch
from mupc.data.requirements import check_dataset as check_dataset
from mupc.data.requirements import check_split as check_split
from mupc.data.scaling import Scaling as Scaling
from mupc.data.split import DataError as DataError
from mupc.data.split import DataWarning as DataWarning
from mupc.data.split import Split as Split
from mupc.data.targets import Label as Label
from mupc.data.targets import one_hot as one_hot
from mupc.data.text import load_shakespeare as load_shakespeare
from mupc.data.text import load_text as load_text
