"""Inference: how activities settle to a minimum of an energy."""

from mupc.inference.gradient import FixedStep as FixedStep
from mupc.inference.gradient import GradientDescent as GradientDescent
from mupc.inference.gradient import StepSize as StepSize
from mupc.inference.solve import InferenceResult as InferenceResult
from mupc.inference.solve import Progress as Progress
from mupc.inference.solve import Solution as Solution
from mupc.inference.solve import Solver as Solver
from mupc.inference.solve import infer as infer
from mupc.inference.stable import StableStep as StableStep
from mupc.inference.starts import FeedforwardStart as FeedforwardStart
from mupc.inference.starts import NormalStart as NormalStart
from mupc.inference.starts import Start as Start
from mupc.inference.starts import ZeroStart as ZeroStart
from mupc.inference.transformation import Optax as Optax
