"""Data sets, and the order in which training and evaluation go through them."""

from mupc.data.catalogue import available as available
from mupc.data.catalogue import load as load
from mupc.data.dataset import DataError as DataError
from mupc.data.dataset import Dataset as Dataset
from mupc.data.dataset import Split as Split
from mupc.data.dataset import check_dataset as check_dataset
from mupc.data.dataset import check_split as check_split
from mupc.data.dataset import one_hot as one_hot
from mupc.data.loader import batch_indices as batch_indices
from mupc.data.loader import evaluation_batches as evaluation_batches
from mupc.data.loader import steps_per_epoch as steps_per_epoch
