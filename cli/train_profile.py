"""The figures of `detseg train --profile` as people read them."""

from __future__ import annotations

from detseg.training.profile import PARTS, Profile, advice

from .tables import table


def told(profile: Profile) -> str:
    """Where a step's time goes, what a frame costs a worker, memory, and what to change."""
    config, frame = profile.config, profile.frame
    parts = [
        (part, f"{1000 * profile.seconds[part]:.1f}", f"{profile.share(part):.1%}")
        for part in PARTS
        if part in profile.seconds
    ]
    making = [
        (name, f"{1000 * seconds:.1f}", f"{seconds / frame.total:.1%}")
        for name, seconds in (
            ("read and decode", frame.read),
            ("lay in and alter", frame.alter),
            ("batch", frame.collate),
        )
    ]
    needed = f"{profile.workers_needed} needed, {config.workers} there"
    there = "" if profile.memory_there is None else f" of {profile.memory_there / 1e9:.1f}"
    return "\n".join(
        [
            f"{profile.steps} steps of {profile.batch} pictures: {1000 * profile.step:.0f} ms each, "
            f"{profile.rate:.1f} pictures/s",
            table(("part of a step", "ms", "share"), parts, right=(1, 2)),
            "",
            f"a frame takes a worker {1000 * frame.total:.1f} ms; workers: {needed}",
            table(("part of a frame", "ms", "share"), making, right=(1, 2)),
            "",
            f"memory at most: {profile.memory / 1e9:.1f}{there} GB "
            + ("of the GPU" if profile.gpu else "in this process"),
            *advice(profile),
        ]
    )
