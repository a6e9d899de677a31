"""Certificates for a test: an authority of its own, a server's on this machine, a client's."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from metering.clock import SystemClock

# Certificates are checked against the machine's clock.
NOW = SystemClock().now()


class Pair(msgspec.Struct, frozen=True):
    """PEM files of a certificate and its key; `both` has the two in one, as Kafka wants it."""

    cert: Path
    key: Path
    both: Path


class Certificates(msgspec.Struct, frozen=True):
    """`authority` signed `server` (for 127.0.0.1 and localhost) and `client`; `stranger` signed nobody."""

    authority: Path
    stranger: Path
    server: Pair
    client: Pair


def make_certificates(folder: Path) -> Certificates:
    """Make all of them in `folder`."""
    authority, authority_key = _authority("test authority")
    stranger, _ = _authority("stranger")
    return Certificates(
        authority=_written(folder / "authority.pem", authority),
        stranger=_written(folder / "stranger.pem", stranger),
        server=_pair(folder, "server", authority, authority_key),
        client=_pair(folder, "client", authority, authority_key),
    )


def _authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return builder.add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256()), key


def _pair(folder: Path, name: str, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(subject, authority.subject, key)
        .add_extension(names, critical=False)
        .add_extension(uses, critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = Pair(
        cert=_written(folder / f"{name}.pem", certificate), key=folder / f"{name}.key", both=folder / f"{name}.both.pem"
    )
    paths.key.write_bytes(pem)
    paths.both.write_bytes(pem + paths.cert.read_bytes())
    return paths


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=2))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _written(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path
