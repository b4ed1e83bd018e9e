"""Decodes memcache items and spells datastore keys with the App Engine SDK's own client code."""
import base64
import pickle

from google.appengine.api import datastore_types, memcache

from tagged import lines


def read(case):
    if "path" in case:
        return str(datastore_types.Key.from_path(*case["path"], _app=case["app"], namespace=case["namespace"]))
    value = memcache._decode_value(base64.b64decode(case["value"]), case["flags"], pickle.loads)
    if case["flags"] == 0:
        try:
            return value.decode("utf-8")  # Python 2 stored text so
        except UnicodeDecodeError:
            pass
    return value


lines(read)
