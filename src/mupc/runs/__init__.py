"""Runs: from a configuration to a folder that holds all that came of it, and back."""

from mupc.runs.generate import generate as generate
from mupc.runs.run import Run as Run
from mupc.runs.run import Start as Start
from mupc.runs.run import resume as resume
from mupc.runs.run import train as train
from mupc.runs.run import train_together as train_together
from mupc.runs.setup import summary as summary
from mupc.runs.stored import load_run as load_run
from mupc.runs.stored import load_trained as load_trained
