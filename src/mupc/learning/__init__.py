"""Learning rules: how a batch becomes weight gradients."""

from mupc.learning.augmented_lagrangian import AugmentedLagrangian as AugmentedLagrangian
from mupc.learning.backpropagation import Backpropagation as Backpropagation
from mupc.learning.bidirectional import (
    BidirectionalPredictiveCoding as BidirectionalPredictiveCoding,
)
from mupc.learning.bidirectional import HybridPredictiveCoding as HybridPredictiveCoding
from mupc.learning.equilibrium_propagation import EquilibriumPropagation as EquilibriumPropagation
from mupc.learning.equilibrium_propagation import Phases as Phases
from mupc.learning.explain import explain as explain
from mupc.learning.implicit import ImplicitGradient as ImplicitGradient
from mupc.learning.incremental import IncrementalPredictiveCoding as IncrementalPredictiveCoding
from mupc.learning.monte_carlo import MonteCarloPredictiveCoding as MonteCarloPredictiveCoding
from mupc.learning.predictive_coding import Nudge as Nudge
from mupc.learning.predictive_coding import PredictiveCoding as PredictiveCoding
from mupc.learning.predictive_coding import as_free as as_free
from mupc.learning.predictive_coding import generated as generated
from mupc.learning.regime import Regime as Regime
from mupc.learning.regime import mean_regime_number as mean_regime_number
from mupc.learning.regime import precision_for as precision_for
from mupc.learning.regime import regime_number as regime_number
from mupc.learning.regime import sensitivity as sensitivity
from mupc.learning.rule import Batch as Batch
from mupc.learning.rule import Info as Info
from mupc.learning.rule import LearningRule as LearningRule
from mupc.learning.rule import first_gradients as first_gradients
from mupc.learning.rule import taken_from_size as taken_from_size
from mupc.learning.zero_divergence import ZeroDivergence as ZeroDivergence
