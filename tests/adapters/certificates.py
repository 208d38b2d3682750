"""A certificate for 127.0.0.1 that nobody else knows, made anew for each run."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificate", "make_certificate"]


@frozen
class Certificate:
    certfile: Path
    keyfile: Path
    encrypted_keyfile: Path

    def trusting(self, *alpn: str) -> ssl.SSLContext:
        """A client's context that knows nobody else."""
        context = ssl.create_default_context(cafile=str(self.certfile))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "penstock's tests")])
    now = datetime.now(UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(loopback, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    certificate = Certificate(folder / "cert.pem", folder / "key.pem", folder / "encrypted.pem")
    certificate.certfile.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    for path, protection in (
        (certificate.keyfile, serialization.NoEncryption()),
        (certificate.encrypted_keyfile, serialization.BestAvailableEncryption(b"secret")),
    ):
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    return certificate
