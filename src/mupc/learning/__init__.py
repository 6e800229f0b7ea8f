"""Learning rules: how a batch becomes weight gradients."""

from mupc.learning.backpropagation import Backpropagation as Backpropagation
from mupc.learning.predictive_coding import PredictiveCoding as PredictiveCoding
from mupc.learning.rule import Batch as Batch
from mupc.learning.rule import Info as Info
from mupc.learning.rule import LearningRule as LearningRule
