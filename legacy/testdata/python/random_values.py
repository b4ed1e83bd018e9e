"""Prints random values, pickled in every protocol by every pickler, as JSON lines.

Arguments: seed, number of values. What the interpreter itself reads back is
the expected data.
"""
from __future__ import unicode_literals

import base64
import datetime
import decimal
import json
import pickle
import random
import sys
import uuid
from collections import OrderedDict

from tagged import tagged

PY2 = sys.version_info[0] == 2
dice = random.Random(int(sys.argv[1]))
protocols = range(pickle.HIGHEST_PROTOCOL + 1)
if PY2:
    import cPickle
    picklers = [("c", cPickle.dumps), ("pure", pickle.dumps)]
else:
    picklers = [("c", pickle.dumps), ("pure", pickle._dumps)]

LETTERS = "abc\\'\"\n\r\t\x00\x1a u\xe9\xdf\u0416\u4e2d\u2028\ufeff\ud7ff"
if sys.maxunicode > 0xFFFF:
    LETTERS += "\U0001f600\U00020000"


def text():
    return "".join(dice.choice(LETTERS) for _ in range(dice.choice([0, 1, 3, 8, 8, 300])))


def leaf():
    moment = datetime.datetime(
        dice.randrange(1, 10000), dice.randrange(1, 13), dice.randrange(1, 29),
        dice.randrange(24), dice.randrange(60), dice.randrange(60), dice.choice([0, dice.randrange(1000000)]))
    choices = [
        lambda: None,
        lambda: dice.random() < 0.5,
        lambda: dice.randrange(-300, 70000),
        lambda: dice.choice([1, -1]) * 2 ** dice.randrange(200) + dice.randrange(-2, 3),
        lambda: dice.choice([0.0, -0.0, 1.5, 1e300, 5e-324, 1400000000.0, float("inf"), -float("inf")]),
        lambda: dice.uniform(-1e9, 1e9),
        text, text, text,
        lambda: text().encode("utf-8"),
        lambda: bytes(bytearray(dice.randrange(256) for _ in range(dice.choice([0, 1, 5, 300])))),
        lambda: moment,
        lambda: moment.date(),
        lambda: moment.time(),
        lambda: datetime.timedelta(dice.randrange(-1000, 1000), dice.randrange(86400), dice.randrange(1000000)),
        lambda: decimal.Decimal(dice.choice(["1.50", "-0", "1E+30", "Infinity", "123456789012345678901234567890.5"])),
        lambda: uuid.UUID(int=dice.getrandbits(128)),
        lambda: complex(dice.choice([0.0, 1.5, -2.25]), dice.choice([0.0, 3.5])),
    ]
    if not PY2:
        zone = datetime.timezone(datetime.timedelta(minutes=dice.randrange(-1439, 1440)))
        choices.append(lambda: moment.replace(tzinfo=zone))
    return dice.choice(choices)()


def value(depth, shared):
    kind = dice.randrange(12)
    if depth == 0 or kind < 5:
        return leaf()
    if kind == 5 and shared:
        return dice.choice(shared)
    size = dice.choice([0, 1, 2, 3, 4, 6])
    if kind == 6:
        v = [value(depth - 1, shared) for _ in range(size)]
    elif kind == 7:
        v = tuple(value(depth - 1, shared) for _ in range(size))
    elif kind == 8:
        v = set(leaf() for _ in range(size))
    elif kind == 9:
        v = frozenset(leaf() for _ in range(size))
    elif kind == 10:
        v = OrderedDict((text(), value(depth - 1, shared)) for _ in range(size))
    elif dice.random() < 0.5:
        v = dict((text(), value(depth - 1, shared)) for _ in range(size))
    else:
        v = dict((dice.choice([leaf, lambda: (leaf(), leaf())])(), value(depth - 1, shared)) for _ in range(size))
    shared.append(v)
    return v


def plain(depth):
    """Only what JSON holds."""
    kind = dice.randrange(8) if depth else dice.randrange(5)
    if kind < 5:
        return [None, dice.random() < 0.5, dice.randrange(-2 ** 70, 2 ** 70), dice.uniform(-1e20, 1e20), text() + "\ud83d"][kind]
    if kind == 5:
        return [plain(depth - 1) for _ in range(dice.randrange(4))]
    return dict((text(), plain(depth - 1)) for _ in range(dice.randrange(4)))


def show(answer):
    sys.stdout.write(json.dumps(answer) + "\n")


for i in range(int(sys.argv[2])):
    v = value(4, [])
    for name, dumps in picklers:
        for protocol in protocols:
            try:
                data = dumps(v, protocol)
            except ValueError:  # some Pythons cannot pickle all they hold
                continue
            show({"name": "%d %s %d" % (i, name, protocol), "pickle": base64.b64encode(data).decode("ascii"),
                  "data": tagged(pickle.loads(data))})
    v = plain(4)
    for style in ({}, {"separators": (",", ":")}, {"indent": 1}):
        show({"name": "%d json" % i, "json": json.dumps(v, **style), "data": tagged(json.loads(json.dumps(v)))})
