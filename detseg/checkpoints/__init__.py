"""Weight files: tensors with the card from which a model is rebuilt. Importing it does not import torch."""

from detseg.checkpoints.card import Card
from detseg.checkpoints.header import read_card
from detseg.checkpoints.tensors import load, load_into, save

__all__ = ["Card", "load", "load_into", "read_card", "save"]
