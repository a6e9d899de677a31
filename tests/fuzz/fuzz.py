"""`python -m tests.fuzz.fuzz TARGET SECONDS`: let atheris look for bytes that break a promise. See `make fuzz`.

What it finds is written to tests/fuzz/found/TARGET-…; kept there, it is a test from then on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ingest", "schemas", "metering"]):
    from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"


def main() -> None:
    """Fuzz one target for some seconds, from what was found before and what is made up here."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(SEEDS.get(name, ())):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=30", f"-artifact_prefix={FOUND}/{name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(FOUND)], TARGETS[name])
    atheris.Fuzz()


EVENT = (
    b'{"specversion":"1.0","id":"1","source":"/a","type":"used","subject":"s","time":"2013-01-01T00:00:00Z",'
    b'"data":{"n":1.5,"region":"eu","deep":{"app":"a"},"user":"u"}}'
)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "decoders": (
        EVENT,
        EVENT.replace(b'"used"', b'"metering.event.voided"').replace(b'"n":1.5', b'"source":"/b","id":"2"'),
        EVENT.replace(b'"used"', b'"metering.event.replaced"').replace(
            b'"n":1.5', b'"source":"/b","id":"2","type":"used","time":"2013-01-01T00:00:00Z","data":{"n":2}'
        ),
    ),
    "numbers": (b"1", b"-0.000000000001", b"999999999999999999.999999999999", b"1e17", b"12E-3"),
    "times": (b"2013-01-01T00:00:00.123456789+05:45", b"2013-03-10", b"2013-01-01 00:00:00Z"),
    "inflating": (
        bytes.fromhex("1f8b08000000000002ff4bcccd4d0500f3a3b7a204000000"),
        bytes.fromhex("28b52ffd0400210000616d6d65"),
    ),
    "bodies": (b"\0" + EVENT, b"\1[" + EVENT + b"," + EVENT + b"]", b"\2" + EVENT),
}

if __name__ == "__main__":
    main()
