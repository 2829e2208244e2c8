"""Mutations of JSON, of safetensors files and of plain bytes; every choice is drawn from one generator."""

import copy
import json
import random
import struct

NUMBERS = [0, 1, -1, 2, 3, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 1e308, 0.5, -0.0]
TEXTS = ["", "a", "..", "../x", "/etc/passwd", "C:\\x", "\0", "\ud800", "\u202e", "x" * 300, "x" * 70_000, "true", "1"]
VALUES = [None, True, False, [], {}, [[]], [None], {"a": 1}, *NUMBERS, *TEXTS, float("nan"), float("inf")]
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "X9", ""]


def paths(value, here=()):
    """Every place inside a JSON value."""
    yield here
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*here, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from paths(value[index], (*here, index))


def mutate_json(value, rng, most=3):
    """A copy with a few places changed, dropped, doubled, moved or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, most)):
        places = [path for path in paths(value) if path]
        if not places:
            return rng.choice(VALUES)
        path = rng.choice(places)
        parent = value
        for step in path[:-1]:
            parent = parent[step]
        _change(value, parent, path[-1], places, rng)
    return value


def _change(value, parent, key, places, rng):
    action = rng.randrange(8)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, dict):
        parent[rng.choice([*parent, *map(str, TEXTS[:6])])] = parent.pop(key)
    elif action == 2:  # the value of another place
        found = value
        for step in rng.choice(places):
            found = found[step]
        parent[key] = copy.deepcopy(found)
    elif action == 3 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
        parent[key] = rng.choice([parent[key] + 1, parent[key] - 1, -parent[key], parent[key] * 2, parent[key] * 1.5])
    elif action == 4 and isinstance(parent[key], list):
        parent[key] = parent[key] * rng.choice([2, 5])
    elif action == 5:
        parent[key] = [parent[key]]
    elif action == 6 and isinstance(parent[key], str):
        parent[key] = mutate_text(parent[key], rng)
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))


def mutate_text(text, rng):
    """A text with a piece cut, doubled or replaced."""
    where = rng.randint(0, len(text))
    return rng.choice(
        [text[:where], text[where:], text + text, text[:where] + rng.choice(TEXTS) + text[where:], text.upper()]
    )


def dump(value):
    """Bytes of a JSON value; lone surrogates and NaN are written as Python writes them."""
    return json.dumps(value).encode()


def mutate_bytes(data, rng):
    """Bytes flipped, cut, put in, moved or repeated."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        where, length = rng.randint(0, len(data)), rng.choice([1, 2, 4, 8, 64])
        action = rng.randrange(6)
        if action == 0 and data:
            data[where % len(data)] = rng.randrange(256)
        elif action == 1:
            del data[where : where + length]
        elif action == 2:
            data[where:where] = rng.randbytes(length)
        elif action == 3:
            data[where:where] = data[: rng.randint(0, len(data))][:4096]
        elif action == 4:
            del data[where:]
        elif data:
            data[where % len(data)] ^= 1 << rng.randrange(8)
    return bytes(data)


def split_safetensors(data):
    """Header and body of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header, body, length=None):
    """The file of a header and a body."""
    encoded = header if isinstance(header, bytes) else dump(header)
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + body


def mutate_safetensors(data, rng):
    """A file with another header, other dtypes, shapes, offsets or names, or other bytes."""
    header, body = split_safetensors(data)
    action = rng.randrange(9)
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    if action == 0:
        return mutate_bytes(data, rng)
    if action == 1:
        return join_safetensors(mutate_json(header, rng), body)
    if action == 2:
        header[name]["dtype"] = rng.choice(DTYPES)
    elif action == 3:
        header[name]["shape"] = mutate_json(header[name]["shape"], rng, 2)
    elif action == 4:
        first, last = header[name]["data_offsets"]
        header[name]["data_offsets"] = [rng.choice([first, first + 1, last, *NUMBERS]), rng.choice([last, *NUMBERS])]
    elif action == 5:
        header[mutate_text(name, rng)] = header.pop(name)
    elif action == 6:  # two tensors change places
        other = rng.choice(names)
        header[name], header[other] = header[other], header[name]
    elif action == 7:
        return join_safetensors(header, body, rng.choice(NUMBERS[:16]) % 2**64 if rng.random() < 0.5 else None)[
            : rng.randint(0, len(data))
        ]
    else:  # values: NaN, infinities, denormals, noise
        where = rng.randint(0, max(0, len(body) - 4))
        body = bytearray(body)
        body[where : where + 4] = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0\0\0", rng.randbytes(4)])
    return join_safetensors(header, bytes(body))


def generator(seed, number):
    """The generator of one case: a case can be made again from its number alone."""
    return random.Random(f"{seed}/{number}")
