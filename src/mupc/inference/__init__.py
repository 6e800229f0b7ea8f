"""Inference: how activities settle to a minimum of an energy."""

from mupc.inference.flow import GradientFlow as GradientFlow
from mupc.inference.gauss_newton import GaussNewton as GaussNewton
from mupc.inference.gradient_descent import FixedStep as FixedStep
from mupc.inference.gradient_descent import GradientDescent as GradientDescent
from mupc.inference.gradient_descent import StepSize as StepSize
from mupc.inference.in_errors import InErrors as InErrors
from mupc.inference.linear import LinearSolve as LinearSolve
from mupc.inference.loop import infer as infer
from mupc.inference.optax_solver import Optax as Optax
from mupc.inference.quasi_newton import LBFGS as LBFGS
from mupc.inference.solver import InferenceResult as InferenceResult
from mupc.inference.solver import Keys as Keys
from mupc.inference.solver import Progress as Progress
from mupc.inference.solver import Schedule as Schedule
from mupc.inference.solver import Solution as Solution
from mupc.inference.solver import Solver as Solver
from mupc.inference.solver import step_limit as step_limit
from mupc.inference.stable_step import StableStep as StableStep
from mupc.inference.starts import FeedforwardStart as FeedforwardStart
from mupc.inference.starts import NormalStart as NormalStart
from mupc.inference.starts import Start as Start
from mupc.inference.starts import ZeroStart as ZeroStart
from mupc.inference.stopping import Endless as Endless
from mupc.inference.stopping import FixedSteps as FixedSteps
from mupc.inference.stopping import Stopping as Stopping
from mupc.inference.stopping import Tolerance as Tolerance
