"""What HTTPS cannot be served with is refused by the name of its file, before a model is loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from poolc.errors import InvalidOption
from poolc.serve.certificate import check_certificate
from poolc.serve.server import serve
from poolc.serve.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make certificates and keys, good and bad ones."""
    made = tmp_path_factory.mktemp("tls")
    for name, bits in (("", 2048), ("other_", 2048), ("weak_", 512)):
        files = ("-keyout", f"{name}key.pem", "-out", f"{name}cert.pem")
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-nodes",
                "-newkey",
                f"rsa:{bits}",
                "-subj",
                "/CN=a",
                *files,
            ],
            cwd=made,
            check=True,
            capture_output=True,
        )
    encrypt = "openssl pkcs8 -topk8 -in key.pem -out encrypted.pem -passout pass:secret"
    subprocess.run(encrypt.split(), cwd=made, check=True, capture_output=True)
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
