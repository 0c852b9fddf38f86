"""Certificates that sign themselves, and those of an authority that lives for a test."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: an authority's certificate, and one that it has signed, with its key."""

    authority: Path
    certificate: Path
    key: Path


def self_signed(certificate: Path, key: Path, *names: str) -> None:
    """Writes a certificate for 127.0.0.1, or for some hosts, and its key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = _name("test")
    signed = _builder(name, name, secret, names, authority=True).sign(secret, hashes.SHA256())
    _write(signed, certificate, secret, key)


def signed(folder: Path) -> Certificates:
    """Makes an authority, and a certificate of it for 127.0.0.1."""
    files = Certificates(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    secret, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("an authority of a test")
    above = _builder(issuer, issuer, secret, (), authority=True).sign(secret, hashes.SHA256())
    files.authority.write_bytes(above.public_bytes(Encoding.PEM))
    below = _builder(_name("test"), issuer, own, (), authority=False).sign(secret, hashes.SHA256())
    _write(below, files.certificate, own, files.key)
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    secret: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    others = [x509.DNSName(one) for one in names]
    return (
        x509.CertificateBuilder(issuer, subject, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([*others] if names else [address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )


def _write(
    signed: x509.Certificate, certificate: Path, secret: ec.EllipticCurvePrivateKey, key: Path
) -> None:
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
