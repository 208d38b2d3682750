"""What ``penstock serve`` may be told about a model, as one group of options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, final

import click
from attrs import fields_dict, frozen

from ..models import Assistant, ModelError, open_assistant

__all__ = ["ChosenModel", "model_options"]


@final
@frozen(kw_only=True)
class ChosenModel:
    """What was said, each by the option of its name."""

    model: str
    base_url: str | None = None
    system: str | None = None
    model_options: str | None = None
    context_tokens: int | None = None

    def open(self, *, show_errors: bool) -> Assistant:
        """The producer; ``show_errors`` as it has it. Raises `click.ClickException`."""
        try:
            return open_assistant(
                self.model,
                base_url=self.base_url,
                system=self.system,
                options=self.model_options,
                context_tokens=self.context_tokens,
                show_errors=show_errors,
            )
        except ModelError as error:
            raise click.ClickException(f"--model: {error}") from error


_OPTIONS: Final = (
    click.option(
        "--model",
        metavar="KIND:NAME",
        envvar="PENSTOCK_MODEL",
        show_envvar=True,
        help="Register the producer 'model': openai:NAME, openai-responses:NAME or anthropic:NAME.",
    ),
    click.option(
        "--base-url",
        metavar="URL",
        envvar="PENSTOCK_MODEL_BASE_URL",
        show_envvar=True,
        help="Of a server that speaks like the provider; one on this machine needs no key.  [default: the provider]",
    ),
    click.option("--system", metavar="TEXT", envvar="PENSTOCK_SYSTEM", show_envvar=True, help="The system prompt."),
    click.option(
        "--model-options",
        metavar="JSON",
        envvar="PENSTOCK_MODEL_OPTIONS",
        show_envvar=True,
        help="""Fields of every request to the model, as in '{"temperature": 0.2}'.""",
    ),
    click.option(
        "--context-tokens",
        metavar="N",
        type=click.IntRange(min=1),
        envvar="PENSTOCK_CONTEXT_TOKENS",
        show_envvar=True,
        help="How many tokens the model reads and writes at most: of a longer conversation the oldest turns are left "
        "out.  [default: found out by asking]",
    ),
)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to ``command``, which gets what they name as one argument, ``model``: a `ChosenModel` or None."""

    @functools.wraps(command)
    def inner(**given: Any) -> None:
        own = {name: given.pop(name) for name in fields_dict(ChosenModel)}
        if own["model"] is None and any(own.values()):
            raise click.UsageError("--base-url, --system, --model-options and --context-tokens belong to a --model")
        command(model=None if own["model"] is None else ChosenModel(**own), **given)

    wrapped: Callable[..., None] = inner
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
