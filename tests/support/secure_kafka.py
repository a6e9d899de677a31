"""The embedded Kafka with doors that ask who is there: TLS, also with a client's certificate, and SASL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from metering.config import Settings
from metering.embedded.kafka import EmbeddedKafka
from metering.embedded.ports import HOST, free_ports
from tests.support.tls_certificates import Certificates

USERNAME = "metering"
PROTOCOLS = {"SSL": "SSL", "MUTUAL": "SSL", "SASLSSL": "SASL_SSL", "SASLPLAIN": "SASL_PLAINTEXT"}


class SecureKafka(EmbeddedKafka):
    """One broker with a door for each of PROTOCOLS beside its plain one, and one user."""

    def __init__(self, data_dir: Path, certificates: Certificates, password: str) -> None:
        super().__init__(data_dir)
        self._certificates = certificates
        self._password = password
        # The user's SCRAM secrets are part of the cluster's first metadata.
        self.format_options = [
            option
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for option in ("--add-scram", f"{mechanism}=[name={USERNAME},password={password}]")
        ]
        self.ports = dict(zip(PROTOCOLS, free_ports(len(PROTOCOLS)), strict=True))

    def settings(self, door: str, **changes: Any) -> Settings:
        """Settings that lead through a door, with everything it asks for."""
        address = f"{HOST}:{self.ports[door]}"
        secrets: dict[str, Any] = {"kafka_servers": address, "kafka_security_protocol": PROTOCOLS[door]}
        if "SSL" in PROTOCOLS[door]:
            secrets["kafka_ca_file"] = str(self._certificates.authority)
        if door == "MUTUAL":
            secrets["kafka_cert_file"] = str(self._certificates.client.cert)
            secrets["kafka_key_file"] = str(self._certificates.client.key)
        if door.startswith("SASL"):
            secrets |= {"kafka_username": USERNAME, "kafka_password": self._password}
        return msgspec.structs.replace(Settings(), **{**secrets, **changes})

    def _write_config(self, controller_port: int) -> Path:
        path = super()._write_config(controller_port)
        doors = "".join(f",{name}://{HOST}:{port}" for name, port in self.ports.items())
        protocols = "".join(f",{name}:{protocol}" for name, protocol in PROTOCOLS.items())
        lines: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            name = line.partition("=")[0]
            extra = {"listeners": doors, "advertised.listeners": doors, "listener.security.protocol.map": protocols}
            lines.append(line + extra.get(name, ""))
        login = f'username="{USERNAME}" password="{self._password}" user_{USERNAME}="{self._password}";'
        more = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._certificates.server.both,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._certificates.authority,
            "listener.name.mutual.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        }
        for door in ("saslssl", "saslplain"):
            more[f"listener.name.{door}.plain.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {login}"
            )
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                more[f"listener.name.{door}.{mechanism}.sasl.jaas.config"] = (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                )
        lines += [f"{name}={value}" for name, value in more.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path
