"""`penstock serve` with a certificate of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from tests.adapters.certificates import make_certificate
from tests.e2e.conftest import START, ServerProcess

Start = Callable[..., ServerProcess]


def test_a_server_with_a_certificate_serves_https(start_server: Start, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    server = start_server("--certfile", str(certificate.certfile), "--keyfile", str(certificate.keyfile))
    assert server.url.startswith("https://")
    request = Request(f"{server.url}/v1/sessions/s", data=b"{}", method="PUT")
    with urlopen(request, timeout=START, context=certificate.trusting()) as answer:
        assert json.loads(answer.read())["created"] is True
    assert server.stop() == 0, server.log.read_text()
