"""Files from the network, checked, and archives unpacked so that nothing leaves its folder."""

from detseg.downloads.archives import Limits, unpack
from detseg.downloads.transfer import DownloadError, Fetched, MismatchError, disagreement, fetch, hash_of

__all__ = ["DownloadError", "Fetched", "Limits", "MismatchError", "disagreement", "fetch", "hash_of", "unpack"]
