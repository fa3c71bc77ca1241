"""The bytes of wire/FORMAT.md: frames, hellos, the probe. No sockets, no state."""

import struct

MAGIC = b"\x89RINGT\r\n"
VERSION = 1
MAX_FRAME = 65536
MAX_BODY = 65504
ENVELOPE_BYTES = 32

FIRST, LAST, SHORT, REPLY = 0x01, 0x02, 0x04, 0x08
WANT_RECEIVED, WANT_APPLIED, ENVELOPE = 0x10, 0x20, 0x40
AFTER_CUT = 0x01

HELLO_STATUS = ["OK", "RESET", "OLD_EPOCH", "WRONG_INCARNATION", "WRONG_CLUSTER", "VERSION",
                "BOOT_ID_IN_USE", "CLOSING", "REFUSED"]

# kind: name, length of the header, fields as (name, struct letter or bytes, offset). Section 4.3.
KINDS = {
    1: ("DATA", 32, [("place", "I", 12), ("sequence", "Q", 16), ("key", "Q", 24)]),
    2: ("ACK", 56, [("count", "I", 12), ("received", "Q", 16), ("applied", "Q", 24),
                    ("credit", "Q", 32), ("granted", "Q", 40), ("oldest_ms", "I", 48)]),
    3: ("GAP", 40, [("cause", "H", 12), ("sequence", "Q", 16), ("key", "Q", 24),
                    ("refused", "Q", 32)]),
    4: ("CONFIRM", 24, [("count", "Q", 16)]),
    5: ("ECHO", 40, [("still_ms", "I", 12), ("token", "Q", 16), ("view_hash", "Q", 24),
                     ("members", "H", 32), ("free_pollers", "H", 34)]),
    7: ("GOODBYE", 24, [("phase", "H", 12), ("reason", "H", 14), ("sequence", "Q", 16)]),
    8: ("JOIN", 24, [("token", "Q", 16)]),
    10: ("CLOSE", 24, [("code", "H", 12), ("text_length", "H", 14), ("sequence", "Q", 16)]),
    16: ("HELLO", 128, [
        ("version_min", "H", 12), ("version_max", "H", 14), ("offered", "I", 16),
        ("required", "I", 20), ("boot_id", "16s", 24), ("expected_boot_id", "16s", 40),
        ("tribes_id", "16s", 56), ("cluster_hash", "Q", 72), ("epoch", "Q", 80),
        ("stream", "H", 88), ("streams", "H", 90), ("lane_class", "B", 92), ("auth_kind", "B", 93),
        ("key_id", "H", 94), ("max_frame", "I", 96), ("max_message", "Q", 100),
        ("next_sequence", "Q", 108)]),
    17: ("HELLO_ACK", 80, [
        ("version", "H", 12), ("status", "H", 14), ("features", "I", 16), ("boot_id", "16s", 20),
        ("epoch", "Q", 36), ("received", "Q", 44), ("applied", "Q", 52), ("credit", "Q", 60),
        ("max_frame", "I", 68), ("granted", "Q", 72)]),
}
KINDS[6] = ("ECHO_REPLY",) + KINDS[5][1:]
KINDS[9] = ("JOINED",) + KINDS[8][1:]
NUMBERS = {name: number for number, (name, _, _) in KINDS.items()}
TLV_NAMES = {1: "member_package", 2: "cluster_name", 3: "reason"}


class Fault(Exception):
    """Bytes that break the protocol."""

    code = 207  # Protocol


class TooBig(Fault):
    """A message that is longer than this member takes."""

    code = 104


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_BYTE = _table()
# Two bytes at a step.
_PAIR = [(_BYTE[x & 255] >> 8) ^ _BYTE[(_BYTE[x & 255] ^ x >> 8) & 255] for x in range(65536)]


def crc32c(before, data):
    """CRC-32C of data, continued from the CRC of what comes before it (4.2)."""
    crc = before ^ 0xFFFFFFFF
    pair = _PAIR
    for word in struct.unpack_from("<%dH" % (len(data) // 2), data):
        crc = pair[(crc ^ word) & 0xFFFF] ^ crc >> 16
    if len(data) % 2:
        crc = _BYTE[(crc ^ data[-1]) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def fnv(data):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def hash_name(name):
    """Hash of a key's or cluster's name (7.2)."""
    value = fnv(name)
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def encode(kind, flags=0, body=b"", extra_words=b"", **fields):
    """A frame; extra_words stand behind the header, as those of a later version."""
    number = NUMBERS.get(kind, kind)
    _, length, layout = KINDS.get(number, (kind, 12, []))
    header = bytearray(length)
    for name, letter, offset in layout:
        struct.pack_into("<" + letter, header, offset, fields.pop(name))
    if fields:
        raise ValueError("%s has no %s" % (kind, ", ".join(fields)))
    header += extra_words
    struct.pack_into("<IBBH", header, 0, len(header) + len(body), number, len(header) // 4, flags)
    crc = crc32c(crc32c(crc32c(0, body), header[:8]), header[12:])
    struct.pack_into("<I", header, 8, crc)
    return bytes(header) + bytes(body)


def decode(data, start=0):
    """The frame at start as (fields, end), or None if more bytes are needed."""
    have = len(data) - start
    if have < 4:
        return None
    (length,) = struct.unpack_from("<I", data, start)
    if not 12 <= length <= MAX_FRAME:
        raise Fault("frame of %d bytes, 12 to %d are accepted" % (length, MAX_FRAME))
    if have < 8:
        return None
    number, words, flags = struct.unpack_from("<BBH", data, start + 4)
    if not 12 <= 4 * words <= length:
        raise Fault("header of %d bytes in a frame of %d" % (4 * words, length))
    if flags & 0xFF00:
        raise Fault("flags %#06x, version %d knows none above 0xff" % (flags, VERSION))
    if have < length:
        return None
    header = bytes(data[start:start + 4 * words])
    body = bytes(data[start + 4 * words:start + length])
    (crc,) = struct.unpack_from("<I", header, 8)
    if crc != crc32c(crc32c(crc32c(0, body), header[:8]), header[12:]):
        raise Fault("checksum of a frame of kind %d is wrong" % number)
    if number not in KINDS:
        if number < 0x80:
            raise Fault("kind %d is not known" % number)
        return {"kind": number, "flags": flags, "body": body}, start + length
    name, header_bytes, layout = KINDS[number]
    if len(header) < header_bytes:
        raise Fault("header of %d bytes, %s has %d" % (len(header), name, header_bytes))
    frame = {"kind": name, "flags": flags, "body": body}
    for field, letter, offset in layout:
        (frame[field],) = struct.unpack_from("<" + letter, header, offset)
    if name == "ACK" and 12 * frame["count"] != len(body):
        raise Fault("%d entries in %d bytes" % (frame["count"], len(body)))
    if name == "GOODBYE" and frame["phase"] > 1:
        raise Fault("phase %d of a goodbye" % frame["phase"])
    if name == "CLOSE" and frame["text_length"] > min(256, len(body)):
        raise Fault("text of %d bytes" % frame["text_length"])
    if name == "HELLO" and frame["lane_class"] > 1:
        raise Fault("lane class %d" % frame["lane_class"])
    if name == "HELLO_ACK" and frame["status"] >= len(HELLO_STATUS):
        raise Fault("status %d of a hello" % frame["status"])
    return frame, start + length


def decode_greeting(data):
    """Magic and HELLO or HELLO_ACK at the front as (fields, end), or None."""
    if not MAGIC.startswith(bytes(data[:8])):
        raise Fault("no Ringtribe connection: it starts with %r" % bytes(data[:8]))
    found = decode(data, 8) if len(data) >= 8 else None
    if found:
        found[0].update(decode_tlvs(found[0]["body"]))
    return found


def encode_ack(entries=(), **fields):
    """An ACK; an entry is (offset, count, status, cause)."""
    body = b"".join(struct.pack("<IIHH", *entry) for entry in entries)
    return encode("ACK", body=body, count=len(entries), **fields)


def entries(frame):
    """The entries of an ACK."""
    return list(struct.iter_unpack("<IIHH", frame["body"]))


def encode_tlvs(pairs):
    """Attributes of (type, value)."""
    return b"".join(struct.pack("<HH", number, len(value)) + value for number, value in pairs)


def decode_tlvs(body):
    """The attributes that have a name; of two of one type the first."""
    found = {name: b"" for name in TLV_NAMES.values()}
    seen, at = set(), 0
    while at < len(body):
        if at + 4 > len(body):
            raise Fault("half an attribute")
        number, length = struct.unpack_from("<HH", body, at)
        if at + 4 + length > len(body):
            raise Fault("attribute %d of %d bytes ends behind the frame" % (number, length))
        if number in TLV_NAMES and number not in seen:
            found[TLV_NAMES[number]] = body[at + 4:at + 4 + length]
        seen.add(number)
        at += 4 + length
    return found


def encode_envelope(timestamp_ms, unique_id, options):
    """7.3."""
    return struct.pack("<q16siI", timestamp_ms, unique_id, options, 0)


# Finding a member, section 2.

TRIBES_ACK = b"FLT2002\x00\x00\x00\x03\x06\x02\x03TLF2003"
PROBE_ID = b"RINGTRIBE-PROBE1"
PROBE_MESSAGE = bytes.fromhex(
    "4fa77348798243c99f6f8980a15b07147dd9525bebf1439ab77ebe8f81671eb6"
    "3715be87457e4ca8bf0a4d135338153255f694b73afa407891047dd77284c0d5")


def encode_package(host, port, unique_id, alive_ms=0, payload=b""):
    """A member package (2.3); host is 4 or 16 bytes."""
    fields = struct.pack(">qiiib", alive_ms, port, -1, -1, len(host)) + host
    fields += struct.pack(">ii", 0, 0) + unique_id + struct.pack(">i", len(payload)) + payload
    return b"TRIBES-B\x01\x00" + struct.pack(">i", len(fields)) + fields + b"TRIBES-E\x01\x00"


def is_package(data):
    """Whether a member package stands at the front."""
    if len(data) < 14 or data[:10] != b"TRIBES-B\x01\x00":
        return False
    end = 14 + struct.unpack_from(">i", data, 10)[0]
    return 14 < end <= len(data) - 10 and data[end:end + 10] == b"TRIBES-E\x01\x00"


def encode_probe(package, time_ms=0):
    """2.1."""
    body = struct.pack(">iqi", 3, time_ms, 16) + PROBE_ID + struct.pack(">i", len(package))
    body += package + struct.pack(">i", 64) + PROBE_MESSAGE
    return b"FLT2002" + struct.pack(">i", len(body)) + body + b"TLF2003"


def tribes_frame_end(data):
    """Length of the Tribes frame at the front, None if it is not whole."""
    if not b"FLT2002".startswith(bytes(data[:7])):
        raise Fault("no Tribes frame")
    if len(data) < 11:
        return None
    (length,) = struct.unpack_from(">i", data, 7)
    if not 0 <= length <= 1 << 20:
        raise Fault("Tribes frame of %d bytes" % length)
    return length + 18 if len(data) >= length + 18 else None


def encode_extension(boot_id, package=None, version_min=1, version_max=1, features=0, oldest_ms=0,
                     members=0, flags=1, view_hash=0, cluster=b""):
    """2.2."""
    tlvs = b"" if package is None else encode_tlvs([(1, package)])
    tlvs += encode_tlvs([(2, cluster)]) if cluster else b""
    head = b"RTHX" + struct.pack("<HBBI16sIHHQ", 48 + len(tlvs), version_min, version_max, features,
                                 boot_id, oldest_ms, members, flags, view_hash)
    return head + struct.pack("<I", crc32c(crc32c(0, head), tlvs)) + tlvs


def decode_extension(data):
    """The fields of the block that is all of data; None if it is none, or not whole."""
    if len(data) < 48 or data[:4] != b"RTHX":
        return None
    names = ("length", "version_min", "version_max", "features", "boot_id", "oldest_ms", "members",
             "flags", "view_hash", "crc")
    block = dict(zip(names, struct.unpack_from("<HBBI16sIHHQI", data, 4)))
    if len(data) < block["length"] or block["length"] < 48:
        return None
    tlvs = data[48:block["length"]]
    if crc32c(crc32c(0, data[:44]), tlvs) != block["crc"]:
        raise Fault("checksum of an extension block")
    if not 1 <= block["version_min"] <= block["version_max"]:
        raise Fault("versions of an extension block")
    values = decode_tlvs(tlvs)
    block["package"], block["cluster"] = values["member_package"], values["cluster_name"]
    return block
