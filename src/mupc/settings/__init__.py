"""Settings of runs: each is declared once, and read by every surface."""

from mupc.settings.configuration import Configuration as Configuration
from mupc.settings.setting import ConfigError as ConfigError
