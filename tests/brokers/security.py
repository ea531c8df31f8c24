"""Who may talk to a cluster with security on, and the key and certificate that it shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.brokers.waiting import BrokerError

__all__ = ["MECHANISMS", "TLS_PASSWORD", "USERS", "make_certificate", "scram_arguments"]

#: `admin` may do everything; `shop` may do nothing until an ACL allows it.
USERS = {"admin": "admin-secret", "shop": "shop-secret"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
TLS_PASSWORD = "postline"


def scram_arguments() -> list[str]:
    """What `StorageTool format` needs to know the users by."""
    return [
        argument
        for mechanism in MECHANISMS[1:]
        for user, password in USERS.items()
        for argument in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
    ]


def make_certificate(java: Path, directory: Path) -> None:
    """A key for all brokers in `broker.p12`, and in `ca.pem` the certificate, signed by itself, to trust."""
    store, certificate = directory / "broker.p12", directory / "ca.pem"
    keytool = [str(java.with_name("keytool")), "-keystore", str(store), "-storepass", TLS_PASSWORD, "-alias", "broker"]
    generate = ["-genkeypair", "-storetype", "PKCS12", "-keyalg", "RSA", "-keysize", "2048", "-validity", "3650"]
    names = ["-dname", "CN=postline-brokers", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-ext", "bc:c"]
    for command in ([*keytool, *generate, *names], [*keytool, "-exportcert", "-rfc", "-file", str(certificate)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"keytool made no certificate: {done.stdout}{done.stderr}")
