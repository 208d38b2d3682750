"""What ``penstock serve`` may be told about a model, as one group of options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import click

from ..models import Assistant, ModelError, open_assistant

__all__ = ["model_options"]

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
        help="Of a server that speaks like the provider.  [default: the provider]",
    ),
    click.option("--system", metavar="TEXT", envvar="PENSTOCK_SYSTEM", show_envvar=True, help="The system prompt."),
    click.option(
        "--model-options",
        metavar="JSON",
        envvar="PENSTOCK_MODEL_OPTIONS",
        show_envvar=True,
        help="""Fields of every request to the model, as in '{"temperature": 0.2}'.""",
    ),
)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to ``command``, which gets what they name as one argument, ``assistant``."""

    @functools.wraps(command)
    def inner(
        *, model: str | None, base_url: str | None, system: str | None, model_options: str | None, **others: object
    ) -> None:
        assistant: Assistant | None = None
        if model is None and any((base_url, system, model_options)):
            raise click.UsageError("--base-url, --system and --model-options belong to a --model")
        if model is not None:
            try:
                assistant = open_assistant(model, base_url=base_url, system=system, options=model_options)
            except ModelError as error:
                raise click.ClickException(f"--model: {error}") from error
        command(assistant=assistant, **others)

    wrapped: Callable[..., None] = inner
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
