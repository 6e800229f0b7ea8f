"""Figures and the HTML report, made from folders of runs and sweeps alone: nothing needs JAX."""

from mupc.plots.layers import diagnostics as diagnostics
from mupc.plots.layers import heat_map as heat_map
from mupc.plots.layers import layer_profiles as layer_profiles
from mupc.plots.reading import RunRecords as RunRecords
from mupc.plots.reading import read_run as read_run
from mupc.plots.reading import read_runs as read_runs
from mupc.plots.report import write_report as write_report
from mupc.plots.runs import accuracy_in_time as accuracy_in_time
from mupc.plots.runs import curves as curves
from mupc.plots.runs import inference_traces as inference_traces
from mupc.plots.theory import alignments as alignments
from mupc.plots.theory import condition_numbers as condition_numbers
from mupc.plots.theory import coordinates as coordinates
from mupc.plots.theory import energy_ratios as energy_ratios
from mupc.plots.theory import spectra as spectra
