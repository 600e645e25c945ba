"""What is wrong with a data set, and its repair. Torch-free."""

from detseg.checks.check import check
from detseg.checks.finding import Finding, Report
from detseg.checks.kinds import KINDS, SEVERITIES

__all__ = ["KINDS", "SEVERITIES", "Finding", "Report", "check"]
