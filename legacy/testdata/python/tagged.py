"""Turns Python values into tagged JSON, and reads and writes JSON lines.

Works on Python 2.7 and 3. Python 2 byte strings that are UTF-8 count as text.
"""
import base64
import datetime
import decimal
import json
import math
import sys
import uuid
from collections import OrderedDict

if sys.version_info[0] == 2:
    text_type, integers = unicode, (int, long)  # noqa: F821
else:
    text_type, integers = str, (int,)


def tagged(v):
    if v is None or isinstance(v, (bool, text_type)):
        return v
    if isinstance(v, bytes):
        if sys.version_info[0] == 2:
            try:
                return v.decode("utf-8")
            except UnicodeDecodeError:
                pass
        return {"$bytes": base64.b64encode(v).decode("ascii")}
    if isinstance(v, bytearray):
        return {"$bytes": base64.b64encode(bytes(v)).decode("ascii")}
    if isinstance(v, integers):
        return int(v) if abs(v) <= 2 ** 53 else {"$int": "%d" % v}
    if isinstance(v, float):
        if math.isnan(v):
            return {"$float": "nan"}
        if math.isinf(v):
            return {"$float": "inf" if v > 0 else "-inf"}
        return v
    if isinstance(v, complex):
        return {"$complex": [tagged(v.real), tagged(v.imag)]}
    if isinstance(v, datetime.datetime):
        return {"$datetime": v.isoformat()}
    if isinstance(v, datetime.date):
        return {"$date": v.isoformat()}
    if isinstance(v, datetime.time):
        return {"$time": v.isoformat()}
    if isinstance(v, datetime.timedelta):
        return {"$timedelta": [v.days, v.seconds, v.microseconds]}
    if isinstance(v, decimal.Decimal):
        return {"$decimal": str(v)}
    if isinstance(v, uuid.UUID):
        return {"$uuid": str(v)}
    if isinstance(v, frozenset):
        return {"$frozenset": [tagged(x) for x in v]}
    if isinstance(v, set):
        return {"$set": [tagged(x) for x in v]}
    if isinstance(v, (list, tuple)):
        return [tagged(x) for x in v]
    if isinstance(v, dict):
        pairs = [(tagged(k), tagged(x)) for k, x in v.items()]
        if all(isinstance(k, text_type) for k, _ in pairs):
            return OrderedDict(pairs)
        return {"$dict": [[k, x] for k, x in pairs]}
    return {"$object": type(v).__name__}


def lines(read):
    """Answers each JSON line on stdin with {"name", "data"} or {"name", "error"}."""
    for line in sys.stdin:
        case = json.loads(line)
        answer = {"name": case["name"]}
        try:
            answer["data"] = tagged(read(case))
        except Exception as e:  # the real library refuses: say how
            answer["error"] = "%s: %s" % (type(e).__name__, e)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
