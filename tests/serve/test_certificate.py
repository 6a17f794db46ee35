"""What HTTPS cannot be served with is refused by the name of its file, before a model is loaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from poolc.errors import InvalidOption
from poolc.serve.certificate import check_certificate
from poolc.serve.server import serve
from poolc.serve.settings import Settings


def pem(key: rsa.RSAPrivateKey, secret: bytes = b"") -> bytes:
    how = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def certificate_of(key: rsa.RSAPrivateKey) -> bytes:
    """Return one that the key signed itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make certificates and keys, good and bad ones."""
    made = tmp_path_factory.mktemp("tls")
    for name, bits in (("", 2048), ("other_", 2048), ("weak_", 1024)):
        key = rsa.generate_private_key(65537, bits)
        (made / f"{name}key.pem").write_bytes(pem(key))
        (made / f"{name}cert.pem").write_bytes(certificate_of(key))
        (made / f"{name}encrypted.pem").write_bytes(pem(key, b"secret"))
    (made / "junk.pem").write_text("junk", encoding="utf-8")
    return made


def settings_of(folder: Path, certificate: str, key: str) -> Settings:
    return Settings(ssl_certfile=str(folder / certificate), ssl_keyfile=str(folder / key))


def test_what_can_be_used(folder: Path) -> None:
    check_certificate(settings_of(folder, "cert.pem", "key.pem"))
    check_certificate(Settings())


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("none.pem", "key.pem", r"none\.pem as the certificate \(--ssl-certfile\): No such file"),
        ("cert.pem", "none.pem", r"none\.pem as the key \(--ssl-keyfile\): No such file"),
        ("junk.pem", "key.pem", r"junk\.pem as the certificate .*: it holds no certificate"),
        ("key.pem", "cert.pem", r"key\.pem as the certificate .*: it holds no certificate"),
        ("cert.pem", "junk.pem", r"junk\.pem as the key .*: it holds no private key"),
        (
            "cert.pem",
            "other_key.pem",
            r"other_key\.pem as the key .*: it is not the key of .*/cert",
        ),
        ("cert.pem", "encrypted.pem", r"encrypted\.pem as the key .*: it is encrypted"),
        (
            "weak_cert.pem",
            "weak_key.pem",
            r"weak_cert\.pem as the certificate .*: ee key too small",
        ),
        (".", "key.pem", r"as the certificate .*: Is a directory"),
    ],
)
def test_what_cannot(folder: Path, certificate: str, key: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        serve(["no such model"], settings_of(folder, certificate, key))
