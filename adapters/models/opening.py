"""``openai:NAME`` to a model, with an error for each way in which that can fail.

The HTTP library is loaded here and only when a model is opened: it is an extra.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import urlsplit

from penstock.engine import InvalidBody, JSONObject, decode_json

from .assistant import Assistant
from .chat import CHAT
from .claude import CLAUDE
from .dialect import Dialect, Provider
from .model import Key, Model
from .responses import RESPONSES

__all__ = ["ModelError", "open_assistant", "open_model", "parse_options", "parse_spec"]

_DIALECTS: Final[Mapping[str, Dialect]] = {"openai": CHAT, "openai-responses": RESPONSES, "anthropic": CLAUDE}


@final
class ModelError(Exception):
    """A model cannot be used; the text says why and what to do."""


def parse_spec(text: str) -> tuple[Dialect, str]:
    """How the model in ``dialect:NAME`` is spoken to, and its name, which may hold colons. Raises `ModelError`."""
    kind, _, name = text.partition(":")
    dialect = _DIALECTS.get(kind)
    if dialect is None or not name.strip():
        raise ModelError(f"{text!r} is none of openai:NAME, openai-responses:NAME, anthropic:NAME")
    return dialect, name.strip()


def parse_options(text: str) -> JSONObject:
    """Fields for every request, as a JSON object. Raises `ModelError`."""
    try:
        value = decode_json(text.encode(errors="surrogateescape"))  # a command line may be no text
    except InvalidBody as error:
        raise ModelError(f"the model's options are {error.detail}") from error
    if not isinstance(value, dict):
        raise ModelError('the model\'s options are a JSON object, as in {"temperature": 0.2}')
    return value


def open_model(
    spec: str, *, base_url: str | None = None, api_key: Key | None = None, options: JSONObject | None = None
) -> Model:
    """The model that ``openai:NAME``, ``openai-responses:NAME`` or ``anthropic:NAME`` names.

    What is not given is taken from the variables that the provider's own SDK reads: ``OPENAI_BASE_URL``,
    ``OPENAI_API_KEY``, ``ANTHROPIC_BASE_URL``, ``ANTHROPIC_API_KEY`` or ``ANTHROPIC_AUTH_TOKEN``; so are headers:
    ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``, ``OPENAI_CUSTOM_HEADERS``, ``ANTHROPIC_CUSTOM_HEADERS``. ``api_key`` may
    be an async function, which is called before each request: an `OSError` of it counts as ``MODEL_UNAVAILABLE``, and
    what else it raises ends the generation. A base URL on this machine needs no key. ``options`` are fields of every
    request, as the provider documents them. Nothing is sent. Raises `ModelError`.
    """
    dialect, name = parse_spec(spec)
    provider = dialect.provider
    url = provider.base_url(os.environ) if base_url is None else base_url
    if not url.startswith(("http://", "https://")):
        raise ModelError(f"the base URL {url!r} begins with neither http:// nor https://")
    key = api_key or provider.key(os.environ) or ""
    if not key and not _is_local(url):
        raise _no_key(spec, provider)
    try:
        import httpx  # noqa: PLC0415  loaded only when it is asked for

        from .provider import ProviderModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{spec} needs the package {error.name!r}, which is not installed: pip install 'penstock[models]'"
        ) from error
    try:
        return ProviderModel(dialect, name, url, key=key, headers=provider.headers(os.environ), options=options or {})
    except (httpx.InvalidURL, ImportError, OSError, ValueError) as error:
        raise ModelError(
            f"{spec}: the base URL, the headers, the proxies, NO_PROXY or the certificates cannot be used: {error}"
        ) from error


def _is_local(url: str) -> bool:
    """Whether it is a server on this machine: most of those ask for no key."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:  # it is no address
        return False


def _no_key(spec: str, provider: Provider) -> ModelError:
    unread = [name for name in provider.unread if os.environ.get(name)]
    hint = "".join(f"; {each} is not read, but a program may give open_model a function for tokens" for each in unread)
    return ModelError(f"{spec} needs a key: set {provider.keys[0]} (a server that asks for none takes any text){hint}")


def open_assistant(
    spec: str,
    *,
    base_url: str | None = None,
    system: str | None = None,
    options: str | None = None,
    context_tokens: int | None = None,
    show_errors: bool = False,
) -> Assistant:
    """A producer without tools, from what a command line says. Raises `ModelError`."""
    read = None if options is None else parse_options(options)
    model = open_model(spec, base_url=base_url, options=read)
    return Assistant(model, system=system, context_tokens=context_tokens, show_errors=show_errors)
