"""Whether the files that HTTPS is to be served with can be used, and which of them cannot."""

from __future__ import annotations

import ssl
from pathlib import Path

from poolc.errors import InvalidOption
from poolc.serve.settings import Settings


def check_certificate(settings: Settings) -> None:
    """Raise InvalidOption that names the file where HTTPS cannot be served with what was given."""
    certificate, key = settings.ssl_certfile, settings.ssl_keyfile
    if certificate is None or key is None:
        return
    for name, file in (("ssl_certfile", certificate), ("ssl_keyfile", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise _unfit(name, file, error.strerror or str(error)) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise _unfit("ssl_certfile", certificate, "it holds no certificate (PEM)") from error
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedKey as error:
        raise _unfit("ssl_keyfile", key, "it is encrypted; give one that is not") from error
    except ssl.SSLError as error:
        if error.reason is None:
            raise _unfit("ssl_keyfile", key, "it holds no private key (PEM)") from error
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of {certificate}"
            raise _unfit("ssl_keyfile", key, why) from error
        # Such as a key that is too short for what it is to protect.
        why = error.reason.replace("_", " ").lower()
        raise _unfit("ssl_certfile", certificate, why) from error


class _EncryptedKey(Exception):
    """OpenSSL would ask the terminal for a password."""


def _no_password() -> str:
    raise _EncryptedKey


def _unfit(option: str, file: str, why: str) -> InvalidOption:
    what = "certificate" if option == "ssl_certfile" else "key"
    flag = option.replace("_", "-")
    return InvalidOption(f"cannot use {file} as the {what} (--{flag}): {why}", param=option)
