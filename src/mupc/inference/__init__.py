"""Inference: how activities settle to a minimum of an energy."""

from mupc.inference.errors import InErrors as InErrors
from mupc.inference.flow import GradientFlow as GradientFlow
from mupc.inference.gradient import FixedStep as FixedStep
from mupc.inference.gradient import GradientDescent as GradientDescent
from mupc.inference.gradient import StepSize as StepSize
from mupc.inference.linear import LinearSolve as LinearSolve
from mupc.inference.newton import GaussNewton as GaussNewton
from mupc.inference.quasi_newton import LBFGS as LBFGS
from mupc.inference.solve import infer as infer
from mupc.inference.solver import InferenceResult as InferenceResult
from mupc.inference.solver import Progress as Progress
from mupc.inference.solver import Schedule as Schedule
from mupc.inference.solver import Solution as Solution
from mupc.inference.solver import Solver as Solver
from mupc.inference.solver import step_limit as step_limit
from mupc.inference.stable import StableStep as StableStep
from mupc.inference.starts import Beginning as Beginning
from mupc.inference.starts import FeedforwardStart as FeedforwardStart
from mupc.inference.starts import NormalStart as NormalStart
from mupc.inference.starts import Start as Start
from mupc.inference.starts import ZeroStart as ZeroStart
from mupc.inference.transformation import Optax as Optax
