"""Training: the loop, its records, evaluation, and the configuration of a run."""

from mupc.training.checkpoint import Checkpoints as Checkpoints
from mupc.training.export import load_network as load_network
from mupc.training.export import save_network as save_network
from mupc.training.loop import fit as fit
from mupc.training.metrics import Evaluation as Evaluation
from mupc.training.metrics import evaluate as evaluate
from mupc.training.results import Ended as Ended
from mupc.training.results import FitResult as FitResult
from mupc.training.results import Record as Record
from mupc.training.results import RegimeRecord as RegimeRecord
from mupc.training.results import TraceRecord as TraceRecord
from mupc.training.results import TrainRecord as TrainRecord
from mupc.training.results import ValidationRecord as ValidationRecord
from mupc.training.results import scalars as scalars
from mupc.training.step import Metrics as Metrics
from mupc.training.step import State as State
from mupc.training.tensorboard import TensorBoard as TensorBoard
