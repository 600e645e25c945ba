"""Places where objects may be: selective search, its cache, files of proposals, their recall. Torch-free."""

from detseg.proposals.cache import ProposalCache
from detseg.proposals.contract import Proposals
from detseg.proposals.picture_files import Proposed, proposals_of, propose
from detseg.proposals.selective_search import MODES, SelectiveSearch, search
from detseg.proposals.sources import FileProposer, ProposalSettings, Proposer, Searcher
from detseg.proposals.table import ProposalTable, read, write

__all__ = [
    "MODES", "FileProposer", "ProposalCache", "ProposalSettings", "ProposalTable", "Proposals", "Proposed", "Proposer",
    "Searcher", "SelectiveSearch", "proposals_of", "propose", "read", "search", "write",
]  # fmt: skip
