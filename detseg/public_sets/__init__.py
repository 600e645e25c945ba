"""Public data sets fetched, checked, unpacked and laid out so that detseg reads them; what they are is in datasets/."""

from detseg.public_sets.install import ByHandError, Plan, Watcher, install, plan

__all__ = ["ByHandError", "Plan", "Watcher", "install", "plan"]
