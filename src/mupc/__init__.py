"""Very deep predictive coding networks in JAX."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

from mupc import data as data
from mupc import theory as theory
from mupc.energies import AmortisedEnergy as AmortisedEnergy
from mupc.energies import BidirectionalEnergy as BidirectionalEnergy
from mupc.energies import Energy as Energy
from mupc.energies import ErrorEnergy as ErrorEnergy
from mupc.energies import FreeEnergy as FreeEnergy
from mupc.energies import HopfieldEnergy as HopfieldEnergy
from mupc.energies import NudgedEnergy as NudgedEnergy
from mupc.energies import Point as Point
from mupc.hyperparameters import traced as traced
from mupc.inference import LBFGS as LBFGS
from mupc.inference import Endless as Endless
from mupc.inference import FeedforwardStart as FeedforwardStart
from mupc.inference import FixedPoint as FixedPoint
from mupc.inference import FixedSteps as FixedSteps
from mupc.inference import GaussNewton as GaussNewton
from mupc.inference import GradientDescent as GradientDescent
from mupc.inference import GradientFlow as GradientFlow
from mupc.inference import InErrors as InErrors
from mupc.inference import InferenceResult as InferenceResult
from mupc.inference import Langevin as Langevin
from mupc.inference import LinearSolve as LinearSolve
from mupc.inference import NormalStart as NormalStart
from mupc.inference import Optax as Optax
from mupc.inference import Progress as Progress
from mupc.inference import Schedule as Schedule
from mupc.inference import Solution as Solution
from mupc.inference import Solver as Solver
from mupc.inference import StableStep as StableStep
from mupc.inference import Start as Start
from mupc.inference import StepSize as StepSize
from mupc.inference import Stopping as Stopping
from mupc.inference import Tolerance as Tolerance
from mupc.inference import ZeroStart as ZeroStart
from mupc.inference import infer as infer
from mupc.learning import AugmentedLagrangian as AugmentedLagrangian
from mupc.learning import Backpropagation as Backpropagation
from mupc.learning import Batch as Batch
from mupc.learning import BidirectionalPredictiveCoding as BidirectionalPredictiveCoding
from mupc.learning import EquilibriumPropagation as EquilibriumPropagation
from mupc.learning import HybridPredictiveCoding as HybridPredictiveCoding
from mupc.learning import IncrementalPredictiveCoding as IncrementalPredictiveCoding
from mupc.learning import Info as Info
from mupc.learning import LearningRule as LearningRule
from mupc.learning import MonteCarloPredictiveCoding as MonteCarloPredictiveCoding
from mupc.learning import PredictiveCoding as PredictiveCoding
from mupc.learning import ZeroDivergence as ZeroDivergence
from mupc.likelihoods import Bernoulli as Bernoulli
from mupc.likelihoods import Categorical as Categorical
from mupc.likelihoods import Gaussian as Gaussian
from mupc.likelihoods import Laplace as Laplace
from mupc.likelihoods import Likelihood as Likelihood
from mupc.networks import Bidirectional as Bidirectional
from mupc.networks import Block as Block
from mupc.networks import Chain as Chain
from mupc.networks import Dense as Dense
from mupc.networks import Feedforward as Feedforward
from mupc.networks import Hopfield as Hopfield
from mupc.networks import Network as Network
from mupc.networks import Scaled as Scaled
from mupc.networks import Stage as Stage
from mupc.networks import bidirectional_mlp as bidirectional_mlp
from mupc.networks import bound_weights as bound_weights
from mupc.networks import chain_from_mlp as chain_from_mlp
from mupc.networks import chain_from_modules as chain_from_modules
from mupc.networks import class_decoder as class_decoder
from mupc.networks import conv_decoder as conv_decoder
from mupc.networks import conv_resnet as conv_resnet
from mupc.networks import decoder as decoder
from mupc.networks import identity as identity
from mupc.networks import layered_hopfield as layered_hopfield
from mupc.networks import residual_hopfield as residual_hopfield
from mupc.networks import residual_mlp as residual_mlp
from mupc.networks import scale_adam as scale_adam
from mupc.networks import scale_sgd as scale_sgd
from mupc.networks import scale_uniform as scale_uniform
from mupc.networks import transformer as transformer
from mupc.networks import vgg as vgg
from mupc.networks import vision_transformer as vision_transformer
from mupc.networks import with_prior as with_prior
from mupc.parameterisations import Base as Base
from mupc.parameterisations import Parameterisation as Parameterisation
from mupc.parameterisations import Scale as Scale
from mupc.parameterisations import Shape as Shape
from mupc.parameterisations import generative as generative
from mupc.parameterisations import hopfield as hopfield
from mupc.parameterisations import mupc as mupc
from mupc.parameterisations import normal as normal
from mupc.parameterisations import ntk as ntk
from mupc.parameterisations import orthogonal as orthogonal
from mupc.parameterisations import standard as standard
from mupc.regularisers import ActivityDecay as ActivityDecay
from mupc.regularisers import Regulariser as Regulariser
from mupc.regularisers import SpectralPenalty as SpectralPenalty
from mupc.regularisers import WeightDecay as WeightDecay
from mupc.training import Checkpoints as Checkpoints
from mupc.training import Ended as Ended
from mupc.training import Evaluation as Evaluation
from mupc.training import FitResult as FitResult
from mupc.training import Metrics as Metrics
from mupc.training import Recall as Recall
from mupc.training import State as State
from mupc.training import TensorBoard as TensorBoard
from mupc.training import evaluate as evaluate
from mupc.training import fit as fit
from mupc.training import recall as recall
from mupc.training import sample as sample
from mupc.training import scalars as scalars
from mupc.training.layout import Layout as Layout
from mupc.training.step import init as init
from mupc.training.step import step as step

if TYPE_CHECKING:
    from mupc.runs.network_file import load_network as load_network
    from mupc.runs.network_file import save_network as save_network

__version__ = importlib.metadata.version("mupc")


def __dir__() -> list[str]:
    """Return the public names: what pages and completion list."""
    here = {name for name in globals() if not name.startswith("_")}
    here -= {"Any", "TYPE_CHECKING", "importlib"}
    return sorted(here | {"__version__", "load_network", "save_network"})


def __getattr__(name: str) -> Any:
    """Import what needs more packages than the core once it is asked for."""
    if name in ("load_network", "save_network"):
        from mupc.runs import network_file

        return getattr(network_file, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
