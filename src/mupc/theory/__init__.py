"""Theory: what can be said of a network before it is trained, and of an energy by itself."""

from mupc.learning.regime import learned_regime_number as learned_regime_number
from mupc.theory.alignment import gradient_alignment as gradient_alignment
from mupc.theory.alignment import layer_cosines as layer_cosines
from mupc.theory.alignment import relative_change as relative_change
from mupc.theory.alignment import yardstick as yardstick
from mupc.theory.regime import precision_for as precision_for
from mupc.theory.regime import regime_number as regime_number
