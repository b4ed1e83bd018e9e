"""Loads pickles with the interpreter's own unpicklers; both must agree."""
import base64
import pickle
import sys

from tagged import lines, tagged

if sys.version_info[0] == 2:
    import cPickle
    loaders = [pickle.loads, cPickle.loads]
else:
    loaders = [pickle.loads, pickle._loads]


def read(case):
    data = base64.b64decode(case["pickle"])
    values = [load(data) for load in loaders]
    if repr(tagged(values[0])) != repr(tagged(values[1])):
        raise ValueError("the two unpicklers disagree")
    return values[0]


lines(read)
