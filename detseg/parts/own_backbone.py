"""Networks whose features are their own: nothing of the shared module, no ImageNet weights to start from."""

from __future__ import annotations

from detseg.errors import DetsegError

ITS_OWN = "its own"  # the backbone of such a network, as the catalog calls it


def expect_own(backbone: str, name: str) -> None:
    """Raises ValueError where another backbone is asked for than the one that the model `name` is."""
    if backbone != ITS_OWN:
        raise ValueError(f"{name} is all of one piece: --backbone {backbone} cannot change it; -m unet takes any")


def expect_no_weights(weights: str | None, name: str) -> None:
    """Raises DetsegError where the model `name` is to start from weights of a backbone."""
    if weights is not None:
        raise DetsegError(
            f"{name} has no backbone of the shared module and so no weights to start from; use --backbone-weights none"
        )
