"""The client over TLS: commands and both streams, and nothing to a server whose certificate is not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import trio

from penstock.adapters.client import ClientConfig, Unreachable, connect
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.tls import tls_context
from tests.adapters.certificates import make_certificate
from tests.adapters.serving import PATIENCE, penstock


@pytest.mark.parametrize("over", ["sse", "websocket"])
async def test_streams_and_commands_over_tls(over: Literal["sse", "websocket"], tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    config = ServerConfig(tls=tls_context(str(certificate.certfile), str(certificate.keyfile)))
    with trio.fail_after(PATIENCE):
        async with penstock(server=config) as server:
            url = server.url.replace("http:", "https:")
            async with connect(url, ssl_context=certificate.trusting()) as client:
                session = await client.create_session("s")
                async with session.events(over=over) as events:
                    assert (await anext(events)).type == "session.created"
                    posted = await session.post("hello")
                    assert (await anext(events)).message_id == posted.message_id
            async with connect(url, config=ClientConfig(patience=0.0)) as client:
                with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.session("s").snapshot()
                async with client.session("s").events(over=over) as events:
                    await events.receive()
                    assert events.statistics().connections == 0
