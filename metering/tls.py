"""Certificates of both sides of a connection, from the files that settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

from metering.config import Settings, variable_of
from schemas.errors import SettingError


def client_context(
    settings: Settings, ca_setting: str, *, cert_setting: str = "", key_setting: str = ""
) -> ssl.SSLContext:
    """What a client trusts and shows: the CA file a setting names (else the system's), and a certificate of its own.

    Raises SettingError for a file that cannot be read or holds something else.
    """
    ca_file = checked_file(settings, ca_setting)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (ssl.SSLError, ValueError) as error:
        raise SettingError(f"{ca_file} holds no certificates ({error})", where=variable_of(ca_setting)) from error
    if cert_setting:
        _load_pair(context, settings, cert_setting, key_setting)
    return context


def check_server_files(settings: Settings) -> None:
    """Raise SettingError unless the gateway's certificate and key are both given and belong together, or neither is."""
    if bool(settings.gateway_tls_cert_file) != bool(settings.gateway_tls_key_file):
        raise SettingError(
            "a certificate and its key go together",
            where=variable_of("gateway_tls_key_file" if settings.gateway_tls_cert_file else "gateway_tls_cert_file"),
            fix="Give both, or neither",
        )
    if settings.gateway_tls_cert_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_pair(context, settings, "gateway_tls_cert_file", "gateway_tls_key_file")


def checked_file(settings: Settings, setting: str) -> str:
    """The path that a setting holds, empty for none. Raises SettingError for a file that cannot be read."""
    path: str = getattr(settings, setting)
    if path:
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise SettingError(f"cannot read {path}: {error.strerror}", where=variable_of(setting)) from error
    return path


def _load_pair(context: ssl.SSLContext, settings: Settings, cert_setting: str, key_setting: str) -> None:
    cert_file, key_file = checked_file(settings, cert_setting), checked_file(settings, key_setting)
    if not cert_file:
        return
    try:
        # Without the callback a key that is encrypted would be asked for at a terminal, for ever.
        context.load_cert_chain(cert_file, key_file or None, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise SettingError(
            f"{cert_file} and its key cannot be used ({error})",
            where=variable_of(cert_setting),
            fix="Give a certificate and its unencrypted private key, both as PEM",
        ) from error
