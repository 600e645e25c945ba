"""A group of subcommands that suggests one for a mistyped name, and one that imports a subcommand when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import click


class SubcommandGroup(click.Group):
    """`detseg data inof` -> did you mean 'info'?"""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(args[0], names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
            raise click.UsageError(f"there is no command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


class LazySubcommandGroup(SubcommandGroup):
    """Subcommand NAME is the object `command` of the module `<modules>_NAME`; nothing is imported for a listing.

    `helps` gives the names, in the order they are shown, and what each does in one line.
    """

    def __init__(self, *args: Any, modules: str, helps: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules, self.helps = modules, helps

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order they are shown."""
        return list(self.helps)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the subcommand's module."""
        if cmd_name not in self.helps:
            return None
        command: click.Command = importlib.import_module(f"{self.modules}_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The listing, from the words given."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.helps.items()))
