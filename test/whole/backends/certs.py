"""Certificates for 127.0.0.1 and localhost: a good one, and each way to be a bad one."""

from __future__ import annotations

import datetime
import functools
import ssl
from pathlib import Path

import trustme

DAY = datetime.timedelta(days=1)
HERE = ("127.0.0.1", "localhost", "::1")


class Certificates:
    """An authority whose certificate is in `ca_file`, and what it and another one issued."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def _issue(self, way: str):
        now = datetime.datetime.now(datetime.timezone.utc)
        if way == "expired":
            return self.authority.issue_cert(*HERE, not_before=now - 9 * DAY, not_after=now - DAY)
        if way == "not_yet_valid":
            return self.authority.issue_cert(*HERE, not_before=now + DAY, not_after=now + 9 * DAY)
        if way == "wrong_host":
            return self.authority.issue_cert("elsewhere.example")
        if way == "unknown_authority":
            return self.stranger.issue_cert(*HERE)
        assert way in ("good", "client"), way
        return self.authority.issue_cert(*HERE)

    @functools.lru_cache(maxsize=None)
    def files(self, way: str) -> tuple[Path, Path]:
        """The chain and the key of a certificate, as PEM files."""
        chain, key = self._directory / f"{way}.pem", self._directory / f"{way}.key"
        if way == "self_signed":
            return self._self_signed(chain, key)
        issued = self._issue(way)
        issued.private_key_pem.write_to_path(str(key))
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return chain, key

    def _self_signed(self, chain: Path, key: Path) -> tuple[Path, Path]:
        other = trustme.CA()
        other.cert_pem.write_to_path(str(chain))
        other.private_key_pem.write_to_path(str(key))
        return chain, key

    @functools.lru_cache(maxsize=None)
    def server(self, way: str = "good", h2: bool = False, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, self.files(way)))
        context.set_alpn_protocols(["h2"] if h2 else ["http/1.1"])
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(str(self.ca_file))
        return context
