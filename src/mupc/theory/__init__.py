"""Theory: what can be said of a network before it is trained, and of an energy by itself."""

from mupc.inference.linear import equilibrium as equilibrium
from mupc.inference.linear import linear_hessian as linear_hessian
from mupc.inference.tridiagonal import BlockTridiagonal as BlockTridiagonal
from mupc.learning.regime import mean_regime_number as mean_regime_number
from mupc.learning.regime import precision_for as precision_for
from mupc.learning.regime import regime_number as regime_number
from mupc.learning.regime import sensitivity as sensitivity
from mupc.networks.network import layer_scales as layer_scales
from mupc.theory.alignment import Alignment as Alignment
from mupc.theory.alignment import alignment as alignment
from mupc.theory.alignment import exact_gradient as exact_gradient
from mupc.theory.alignment import gradient_alignment as gradient_alignment
from mupc.theory.alignment import relative_change as relative_change
from mupc.theory.alignment import yardstick as yardstick
from mupc.theory.coordinates import Coordinates as Coordinates
from mupc.theory.coordinates import coordinate_check as coordinate_check
from mupc.theory.equilibrated import Equilibrated as Equilibrated
from mupc.theory.equilibrated import equilibrated_energy as equilibrated_energy
from mupc.theory.hessian import Extremes as Extremes
from mupc.theory.hessian import Spectrum as Spectrum
from mupc.theory.hessian import activity_hessian as activity_hessian
from mupc.theory.hessian import extreme_eigenvalues as extreme_eigenvalues
from mupc.theory.hessian import largest_eigenvalues as largest_eigenvalues
from mupc.theory.hessian import spectrum as spectrum
from mupc.theory.steps import measured_step_limit as measured_step_limit
from mupc.theory.steps import predicted_step_limit as predicted_step_limit
