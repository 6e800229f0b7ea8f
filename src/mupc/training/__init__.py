"""Training: the step, the loop over it, its records, and evaluation."""

from mupc.records import Ended as Ended
from mupc.records import Record as Record
from mupc.records import RegimeRecord as RegimeRecord
from mupc.records import TraceRecord as TraceRecord
from mupc.records import TrainRecord as TrainRecord
from mupc.records import ValidationRecord as ValidationRecord
from mupc.records import scalars as scalars
from mupc.training.checkpoint import Checkpoints as Checkpoints
from mupc.training.evaluate import Evaluation as Evaluation
from mupc.training.evaluate import evaluate as evaluate
from mupc.training.fit import fit as fit
from mupc.training.metrics import Metrics as Metrics
from mupc.training.recall import Recall as Recall
from mupc.training.recall import recall as recall
from mupc.training.recall import sample as sample
from mupc.training.results import FitResult as FitResult
from mupc.training.step import State as State
from mupc.training.tensorboard import TensorBoard as TensorBoard
