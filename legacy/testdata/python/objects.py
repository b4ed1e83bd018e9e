"""Prints sessions that hold one object each, pickled in every protocol by every pickler, as JSON lines.

Works on Python 2.7 and 3. The expected data are those of tagged.py, with what an
object stands for in its place, or its class.

    python objects.py           the recorded ones, as lines
    python objects.py --reread  reads lines of two pickles each, and answers whether the
                                two are the same to Python
"""
from __future__ import unicode_literals

import array
import base64
import collections
import datetime
import decimal
import fractions
import io
import json
import pickle
import re
import sys
import time
import uuid

import tagged as tags
from tagged import lines

PY2 = sys.version_info[0] == 2
if PY2:
    import cPickle
    picklers = [("c", cPickle.dumps), ("pure", pickle.dumps)]
else:
    picklers = [("c", pickle.dumps)]  # the other one writes the same
    import dataclasses
    import enum
    import ipaddress
    import pathlib
    import types
    try:
        import zoneinfo
    except ImportError:  # before 3.9
        zoneinfo = None
try:
    import markupsafe
    import werkzeug.datastructures
except ImportError:
    markupsafe = None


class Cart(object):
    """An ordinary class; its attributes are in a dictionary."""

    def __init__(self, **kw):
        self.__dict__.update(kw)


class Slotted(object):
    __slots__ = (str("a"), str("b"))


class WithState(object):
    def __getstate__(self):
        return ("v2", self.n)

    def __setstate__(self, state):
        self.n = state[1]


class Reduced(object):
    """Made by a function, and filled by all that __reduce__ can give."""

    def __init__(self, *args):
        self.args, self.items, self.more = args, [], {}

    def append(self, v):
        self.items.append(v)

    def extend(self, v):
        self.items.extend(v)

    def __setitem__(self, k, v):
        self.more[k] = v

    def __reduce__(self):
        return make_reduced, self.args, {"seen": True}, iter(self.items), iter(self.more.items())


def make_reduced(*args):
    return Reduced(*args)


class NewArgs(object):
    def __new__(cls, *args):
        self = object.__new__(cls)
        self.args = args
        return self

    def __getnewargs__(self):
        return self.args


class NewArgsEx(object):
    def __new__(cls, *args, **kw):
        self = object.__new__(cls)
        self.args, self.kw = args, kw
        return self

    def __getnewargs_ex__(self):
        return (1,), {"unit": "kg"}


class Text(type(u"")):
    pass


class Number(int):
    pass


class Items(list):
    pass


class Table(dict):
    pass


class Members(set):
    pass


class Problem(Exception):
    pass


class Zone(datetime.tzinfo):
    """A time zone of the application's own, as Python 2 needs one."""

    def utcoffset(self, dt):
        return datetime.timedelta(hours=1)

    def dst(self, dt):
        return datetime.timedelta(0)

    def tzname(self, dt):
        return "X"


Point = collections.namedtuple(str("Point"), str("x y"))

if PY2:
    class Old:
        def __init__(self, n):
            self.n = n
else:
    class Color(enum.Enum):
        RED = 1
        BLUE = "b"

    class Level(enum.IntEnum):
        LOW = 1

    class Rights(enum.Flag):
        READ = 1
        WRITE = 2

    Line = dataclasses.make_dataclass("Line", [("sku", str), ("n", int, 1)])
    Frozen = dataclasses.make_dataclass("Frozen", [("sku", str)], frozen=True)
    Line.__module__ = Frozen.__module__ = __name__  # before 3.12 it is another

    class Outer:
        class Inner:
            pass


def loop():
    a, b = Cart(name="a"), Cart(name="b")
    a.other, b.other, a.me, a.list = b, a, a, [b]
    a.list.append(a.list)
    return a


def filled(c):
    r = c(1, "two")
    r.extend([1, [2]])
    r["k"] = {"v": 3}
    return r


def slotted():
    s = Slotted()
    s.a, s.b = 1, [2]
    return s


def with_state():
    s = WithState()
    s.n = 5
    return s


def with_attribute(v):
    v.note = "kept"
    return v


def values():
    day = datetime.datetime(2021, 7, 1, 12, 30, 1, 5)
    shared = Cart(items=["x"])
    out = [
        ("deque", collections.deque([1, "a", [2]])),
        ("deque that is full", collections.deque([1, 2], 2)),
        ("empty deque", collections.deque()),
        ("defaultdict of lists", collections.defaultdict(list, {"a": [1]})),
        ("defaultdict of an own class", collections.defaultdict(Cart, {"a": 1})),
        ("defaultdict without a factory", collections.defaultdict(None, {"a": 1})),
        ("OrderedDict", collections.OrderedDict([("z", 1), ("a", collections.OrderedDict({"b": 2}))])),
        ("Counter", collections.Counter("aab")),
        ("empty Counter", collections.Counter()),
        ("Fraction", fractions.Fraction(-3, 4)),
        ("whole Fraction", fractions.Fraction(2 ** 70)),
        ("own class", Cart(items=[1, u"\xe9"], price=decimal.Decimal("1.50"), when=day, blob=b"\xff\x00")),
        ("own class without anything", Cart()),
        ("objects that refer to each other", loop()),
        ("one object in two places", [shared, {"again": shared}, shared.items]),
        ("object among plain values", {"list": [1, Cart(n=1), (Cart(n=2), 2)], "text": "t"}),
        ("__setstate__", with_state()),
        ("__reduce__ with all five", filled(Reduced)),
        ("subclass of text", Text(u"h\xe9")),
        ("subclass of int", Number(7)),
        ("subclass of list", Items([1, 2])),
        ("subclass of list with an attribute", with_attribute(Items([1]))),
        ("subclass of dict", Table(a=1)),
        ("subclass of dict with an attribute", with_attribute(Table(a=1))),
        ("subclass of set", Members([1])),
        ("exception", ValueError("no", 3)),
        ("own exception with an attribute", with_attribute(Problem("p"))),
        ("namedtuple", Point(1, "b")),
        ("namedtuple as a key", {Point(1, 2): "here"}),
        ("class as a value", Cart),
        ("builtin class as a value", dict),
        ("array", array.array(str("i"), [1, 2])),
        ("regular expression", re.compile(u"a+")),
        ("struct_time", time.gmtime(0)),
        ("time of a zone of the application", day.replace(tzinfo=Zone())),
        ("UUID in an object", [Cart(id=uuid.UUID(int=6)), decimal.Decimal(2)]),
        ("many objects", [Cart(n=i, name="n%d" % i) for i in range(60)]),
    ]
    if PY2:
        out += [("old-style class", Old([1])), ("xrange", xrange(1, 7, 2)), ("byte strings", Cart(a=b"abc", b="abc", c=5, d=long(5)))]
        return out
    utc = datetime.timezone.utc
    out += [
        ("range", range(10, 0, -3)),
        ("empty range", range(0)),
        ("range that is too long", range(10 ** 9)),
        ("slice", slice(1, None, 2)),
        ("Ellipsis", Ellipsis),
        ("IPv4Address", ipaddress.ip_address("192.0.2.1")),
        ("IPv6Address", ipaddress.ip_address("2001:db8::1")),
        ("IPv4Network", ipaddress.ip_network("10.0.0.0/8")),
        ("IPv6Interface", ipaddress.ip_interface("2001:db8::1/64")),
        ("address as a key", {ipaddress.ip_address("192.0.2.1"): 1, "192.0.2.1": 2}),
        ("PurePosixPath", pathlib.PurePosixPath("/srv/a/b.txt")),
        ("relative path", pathlib.PurePosixPath("a/b")),
        ("PureWindowsPath", pathlib.PureWindowsPath("C:\\a\\b")),
        ("Path", pathlib.Path("/tmp/x")),
        ("empty path", pathlib.PurePosixPath()),
        ("time with a zone", datetime.time(1, 2, 3, tzinfo=utc)),
        ("time with an offset", datetime.time(1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)))),
        ("datetime with a zone that has a name", day.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1), "X"))),
        ("time with a zone that has a name", datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "X"))),
        ("datetime with an offset of microseconds", day.replace(tzinfo=datetime.timezone(datetime.timedelta(0, 1, 5)))),
        ("zone by itself", utc),
        ("enum", Color.RED),
        ("enum as a key", {Color.RED: 1, Color.BLUE: 2, "x": [Color.RED]}),
        ("IntEnum", Level.LOW),
        ("Flag", Rights.READ | Rights.WRITE),
        ("dataclass", Line("a", 2)),
        ("frozen dataclass", Frozen("a")),
        ("class inside of a class", Outer.Inner()),
        ("dictionary view of a namespace", types.SimpleNamespace(a=1, b=[2])),
        ("ChainMap", collections.ChainMap({"a": 1}, {"b": 2})),
        ("UserDict", collections.UserDict(a=1)),
        ("frozenset of objects", frozenset([Point(1, 2)])),
        ("list iterator", iter([1, 2, 3])),
        ("__slots__", slotted()),
        ("__getnewargs__", NewArgs(1, "b")),
        ("__getnewargs_ex__", NewArgsEx(1, unit="kg")),
    ]
    if zoneinfo:
        tz = zoneinfo.ZoneInfo("Europe/Amsterdam")
        out += [
            ("datetime in summer with a ZoneInfo", day.replace(tzinfo=tz)),
            ("datetime in winter with a ZoneInfo", day.replace(month=1, tzinfo=tz)),
            ("datetime of long ago with a ZoneInfo", day.replace(year=1935, tzinfo=tz)),
            ("first of two equal times", datetime.datetime(2021, 10, 31, 2, 30, tzinfo=tz)),
            ("second of two equal times", datetime.datetime(2021, 10, 31, 2, 30, fold=1, tzinfo=tz)),
            ("time that was skipped", datetime.datetime(2021, 3, 28, 2, 30, tzinfo=tz)),
            ("time that was skipped, with fold", datetime.datetime(2021, 3, 28, 2, 30, fold=1, tzinfo=tz)),
            ("zone that is UTC", day.replace(tzinfo=zoneinfo.ZoneInfo("UTC"))),
            ("zone of half hours", day.replace(tzinfo=zoneinfo.ZoneInfo("Asia/Kolkata"))),
            ("zone south of the equator", day.replace(month=1, tzinfo=zoneinfo.ZoneInfo("America/Santiago"))),
            ("time with a ZoneInfo", datetime.time(1, 2, tzinfo=tz)),
            ("ZoneInfo by itself", tz),
        ]
    if markupsafe:
        out += [
            ("Markup", markupsafe.Markup("<b>x</b>")),
            ("MultiDict", werkzeug.datastructures.MultiDict([("a", 1), ("a", 2)])),
            ("ImmutableMultiDict", werkzeug.datastructures.ImmutableMultiDict({"a": 1})),
            ("ImmutableDict", werkzeug.datastructures.ImmutableDict(a=1)),
        ]
    return out


def plain(v):
    """Tagged JSON of v with objects as what they stand for."""
    t = type(v)
    if t in (list, tuple):
        return [plain(x) for x in v]
    if t is frozenset:
        return {"$frozenset": [plain(x) for x in v]}
    if t in (dict, collections.OrderedDict, collections.defaultdict, collections.Counter, Table):
        pairs = [(plain(k), plain(x)) for k, x in v.items()]
        if all(isinstance(k, tags.text_type) or PY2 and isinstance(k, str) for k, _ in pairs):
            return collections.OrderedDict(pairs)
        return {"$dict": [list(p) for p in pairs]}
    if t in (collections.deque, Items):
        return [plain(x) for x in v]
    if t is fractions.Fraction:
        return str(v)
    if t in (Text, Number):
        return t.__mro__[1](v)
    if t is array.array:
        return None  # bytes, in new protocols
    if PY2 and t is xrange or not PY2 and t is range and len(v) <= 10000:
        return list(v)
    if not PY2 and (t.__module__ == "ipaddress" or t.__module__.startswith("pathlib")):
        return str(v)
    if t.__module__.startswith("markupsafe"):
        return str(v)
    if t.__module__ == "werkzeug.datastructures.structures" and t.__name__.endswith("MultiDict"):
        return None
    if isinstance(v, datetime.datetime) and isinstance(v.tzinfo, Zone):
        return None
    out = tags.tagged(v) if t.__module__ in ("builtins", "__builtin__", "datetime", "decimal", "uuid") else {"$object": None}
    if isinstance(out, dict) and "$object" in out:
        return None  # which class it is depends on the protocol
    return out


def session(v):
    return {"v": v, "n": 1}  # Python 2 gets all text outside of objects back as unicode


def main():
    for name, v in values():
        for pickler, dumps in picklers:
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                try:
                    data = dumps(session(v), protocol)
                    pickle.loads(data)
                except Exception:  # some Pythons cannot pickle all they hold
                    continue
                sys.stdout.write(json.dumps({
                    "name": "%s %s %d" % (name, pickler, protocol), "value": name,
                    "pickle": base64.b64encode(data).decode("ascii"), "data": plain(v),
                }) + "\n")


def reread(case):
    """Whether Python makes the same of both pickles, and pickles it the same again."""
    first, second = [pickle.loads(base64.b64decode(case[k])) for k in ("first", "second")]
    if type(first["v"]) is not type(second["v"]) or second.get("seen") != 1:
        raise ValueError("%r and %r" % (first, second))
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        if dumps(first["v"], protocol, False) != dumps(second["v"], protocol, False):
            # What is shared between several objects has become a copy in each.
            again = [dumps(v["v"], protocol, True) for v in (first, second)]
            if again[0] != again[1]:
                raise ValueError("%r and %r" % tuple(again))
    return True


def dumps(v, protocol, copies):
    out = io.BytesIO()
    p = cPickle.Pickler(out, protocol) if PY2 else pickle.Pickler(out, protocol)
    p.fast = copies  # without references to what was there before
    p.dump(v)
    return out.getvalue()


if __name__ == "__main__":
    # Classes are found under the module's own name, wherever it is run.
    import objects
    if "--reread" in sys.argv:
        lines(objects.reread)
    else:
        objects.main()
