"""Writes wire/testdata/native, or with --check compares it: golden frames of wire/FORMAT.md."""

import hashlib
import json
import pathlib
import sys

import ringtribe_wire as wire

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "wire" / "testdata" / "native"
BOOT_A, BOOT_B, TRIBES_ID = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
PACKAGE = wire.encode_package(bytes([10, 0, 0, 1]), 4000, TRIBES_ID, alive_ms=60_000)
HELLO = dict(version_min=1, version_max=1, offered=0, required=0, boot_id=BOOT_A,
             expected_boot_id=BOOT_B, tribes_id=TRIBES_ID, cluster_hash=wire.hash_name(b"default"),
             epoch=3, stream=2, streams=4, lane_class=0, auth_kind=0, key_id=0, max_frame=65536,
             max_message=256 << 20, next_sequence=1235)
HELLO_ACK = dict(version=1, status=0, features=0, boot_id=BOOT_B, epoch=3, received=1230,
                 applied=1228, credit=9_000_000, max_frame=65536, granted=1199)
KEY = wire.hash_name(b"session-1")
ACK = dict(received=1000, applied=990, credit=262_144 + 4096, granted=17, oldest_ms=250)
ECHO = dict(still_ms=250, token=0x0102030405060708, view_hash=0x1122334455667788, members=3,
            free_pollers=5)
DATA = dict(place=5, sequence=7, key=KEY, body=b"hello")
PAYLOAD = b"ten bytes!"
ENVELOPE = wire.encode_envelope(1_700_000_000_123, TRIBES_ID, 6)
ONE = wire.FIRST | wire.LAST
# 1024 entries: one failed, one accepted, and so on, each two numbers behind the one before.
ENTRIES = [(1 + 2 * n, 1, 202 if n % 2 == 0 else 0, n % 7) for n in range(1024)]


def greeting(kind, fields, tlvs, **more):
    body = wire.encode_tlvs(tlvs)
    return {"kind": kind, "fields": fields, "body": body, "tlvs": tlvs, **more}


def frame(kind, flags=0, body=b"", **fields):
    return {"kind": kind, "flags": flags, "fields": fields, "body": body}


def goldens():
    """File name without .bin, and what stands in it."""
    named = [(1, PACKAGE), (2, b"default")]
    yield "hello", greeting("HELLO", HELLO, named)
    reply = {**HELLO, "stream": 4, "lane_class": 1, "epoch": 4, "next_sequence": 1}
    yield "hello-reply-after-cut", greeting("HELLO", reply, [(1, b""), (2, b"")], flags=1)
    newer = {**HELLO, "version_max": 3, "offered": 0x80000001, "key_id": 9}
    unknown = [(9, b"later"), (2, b"default"), (2, b"second"), (1, PACKAGE)]
    yield "hello-newer", greeting("HELLO", newer, unknown, extra_words=b"more", reencodes=False)
    yield "hello-ack", greeting("HELLO_ACK", HELLO_ACK, [])
    for number, name in enumerate(wire.HELLO_STATUS[1:], 1):
        fields = {**HELLO_ACK, "status": number, "received": 0, "applied": 0, "credit": 0,
                  "granted": 0}
        reason = [(3, b"the cluster's name is \"production\" here")] if number == 4 else []
        name = "refused" if number == 8 else name.lower().replace("_", "-")
        yield "hello-ack-" + name, greeting("HELLO_ACK", fields, reason)
    yield "data", frame("DATA", ONE | wire.SHORT | wire.WANT_APPLIED, **DATA)
    yield "data-empty", frame("DATA", ONE, place=0, sequence=1, key=0)
    yield "data-reply", frame("DATA", ONE | wire.REPLY | wire.WANT_RECEIVED, **DATA)
    yield "data-envelope", frame("DATA", ONE | wire.ENVELOPE | wire.WANT_APPLIED, place=37,
                                 sequence=2**63, key=KEY, body=ENVELOPE + b"hello")
    yield "data-chunk-first", frame("DATA", wire.FIRST | wire.WANT_APPLIED, place=10, sequence=8,
                                    key=KEY, body=PAYLOAD[:4])
    yield "data-chunk-middle", frame("DATA", place=4, sequence=9, key=KEY, body=PAYLOAD[4:6])
    yield "data-chunk-last", frame("DATA", wire.LAST | wire.WANT_APPLIED, place=6, sequence=11,
                                   key=KEY, body=PAYLOAD[6:])
    yield "data-unknown-flag", frame("DATA", ONE | 0x80, **DATA)
    yield "data-extra-words", {**frame("DATA", ONE, **DATA), "extra_words": b"two more",
                               "reencodes": False}
    for name, some in [("ack-0", []), ("ack-1", [(2, 3, 202, 0)]), ("ack-1024", ENTRIES)]:
        body = b"".join(wire.struct.pack("<IIHH", *entry) for entry in some)
        fields = {"count": len(some), **ACK}
        yield name, {**frame("ACK", body=body, **fields), "entries": some}
    yield "gap", frame("GAP", cause=301, sequence=12, key=KEY, refused=3)
    yield "confirm", frame("CONFIRM", count=3)
    yield "echo", frame("ECHO", **ECHO)
    yield "echo-reply", frame("ECHO_REPLY", **ECHO)
    yield "goodbye", frame("GOODBYE", phase=0, reason=205, sequence=99)
    yield "goodbye-final", frame("GOODBYE", phase=1, reason=101, sequence=99)
    yield "join", frame("JOIN", token=42)
    yield "joined", frame("JOINED", token=42)
    text = b"sequence 14 where 13 comes next"
    yield "close", frame("CLOSE", code=207, text_length=len(text), sequence=12, body=text)
    yield "close-silent", frame("CLOSE", code=101, text_length=0, sequence=0)
    yield "optional-unknown", {**frame(0x90, body=b"of a later version"), "reencodes": False}


def readable(value):
    return value.hex() if isinstance(value, bytes) else value


def encoded(what):
    data = wire.encode(what["kind"], what.get("flags", 0), what["body"],
                       what.get("extra_words", b""), **what["fields"])
    return wire.MAGIC + data if what["kind"] in ("HELLO", "HELLO_ACK") else data


def checked(name, what, data):
    """Decodes it again: the decoder must agree with the encoder."""
    greets = what["kind"] in ("HELLO", "HELLO_ACK")
    found, end = wire.decode_greeting(data) if greets else wire.decode(data)
    assert end == len(data) and found["body"] == what["body"], name
    for field, value in what["fields"].items():
        assert found[field] == value, (name, field)


def entry(name, data, what):
    known = {"file": name + ".bin", "kind": what["kind"], "length": len(data),
             "sha256": hashlib.sha256(data).hexdigest(), "flags": what.get("flags", 0),
             "reencodes": what.get("reencodes", True)}
    known["fields"] = {field: readable(value) for field, value in what["fields"].items()}
    if "tlvs" in what:
        known["attributes"] = [[number, value.hex()] for number, value in what["tlvs"]]
    elif "entries" in what:
        known["entries"] = what["entries"]
    else:
        known["body"] = what["body"].hex()
    return known


def extension():
    fields = dict(boot_id=b"0123456789abcdef", package=b"a member package", version_min=1,
                  version_max=2, features=0x04030201, oldest_ms=1500, members=3, flags=3,
                  view_hash=0x1122334455667788)
    data = wire.encode_extension(**fields)
    return data, {"kind": "extension", "fields": fields, "body": b""}


def main():
    files, manifest = {}, []
    block, what = extension()
    files["heartbeat-extension.bin"] = block
    manifest.append(entry("heartbeat-extension", block, what))
    for name, what in goldens():
        data = encoded(what)
        checked(name, what, data)
        files[name + ".bin"] = data
        manifest.append(entry(name, data, what))
    lines = ",\n".join(json.dumps(line) for line in manifest)
    files["manifest.json"] = ("[\n" + lines + "\n]\n").encode()
    if "--check" in sys.argv[1:]:
        present = {path.name for path in DIRECTORY.iterdir()}
        wrong = sorted(present ^ files.keys())
        wrong += [name for name in sorted(present & files.keys())
                  if (DIRECTORY / name).read_bytes() != files[name]]
        if wrong:
            sys.exit("differ from what golden.py writes: " + ", ".join(wrong))
        print("%d files are as they should be" % len(files))
        return
    DIRECTORY.mkdir(exist_ok=True)
    for name, data in files.items():
        (DIRECTORY / name).write_bytes(data)
    print("%d files written" % len(files))


if __name__ == "__main__":
    main()
