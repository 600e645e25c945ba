"""`detseg samples`: photographs to try detseg on, from scikit-image's collection."""

from __future__ import annotations

from pathlib import Path

import click

from detseg.errors import DetsegError

from . import options

# photographs that come inside the scikit-image package: nothing is fetched
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


@click.command(cls=options.Command)
@click.argument("folder", type=click.Path(path_type=Path))
@options.quiet
def command(folder: Path, quiet: bool) -> None:
    """Write sample photographs to try detseg on.

    FOLDER gets five photographs (JPEG) of scikit-image's collection; pictures of the same name that are there
    already are kept.

    \b
    Example:
      detseg samples photos
      detseg detect photos
    """
    for name in PHOTOGRAPHS:
        target = folder / f"{name}.jpg"
        if target.exists():
            continue
        write_photograph(name, target)
        if not quiet:
            click.echo(target)


def write_photograph(name: str, target: Path) -> None:
    """Writes one photograph of the collection as JPEG."""
    import cv2
    import skimage.data

    from detseg import files

    image = getattr(skimage.data, name)()
    done, content = cv2.imencode(".jpg", image if image.ndim == 2 else image[..., ::-1])
    if not done:
        raise DetsegError(f"{target}: cannot be encoded as JPEG")
    files.write_bytes(target, content.tobytes())
