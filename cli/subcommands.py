"""A group of subcommands that suggests one for a mistyped name."""

from __future__ import annotations

from difflib import get_close_matches

import click


class SubcommandGroup(click.Group):
    """`detseg data inof` -> did you mean 'info'?"""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(self.commands)}"
            raise click.UsageError(f"there is no command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)
