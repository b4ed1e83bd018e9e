"""Opens sessions with the real Beaker. The first line out names its version."""
import base64
import datetime
import json
import os
import shutil
import sys
import tempfile
import time

try:  # Debian installs pycryptodome under another name
    import Crypto  # noqa: F401
except ImportError:
    try:
        import Cryptodome
        import Cryptodome.Cipher.AES
        import Cryptodome.Hash.HMAC
        import Cryptodome.Hash.SHA
        import Cryptodome.Util.Counter
        for name in list(sys.modules):
            if name.startswith("Cryptodome"):
                sys.modules["Crypto" + name[len("Cryptodome"):]] = sys.modules[name]
    except ImportError:
        pass

import pkg_resources
from beaker.session import CookieSession, Session

from tagged import lines

ciphers = []
for name, module in (("cryptography", "pyca_cryptography"), ("pycrypto", "pycrypto"), ("nss", "nsscrypto")):
    try:
        __import__("beaker.crypto." + module)
        ciphers.append(name)
    except ImportError:
        pass
sys.stdout.write(json.dumps({"version": pkg_resources.get_distribution("Beaker").version, "ciphers": ciphers}) + "\n")

OWN = ("_id", "_creation_time", "_accessed_time", "_domain", "_path", "_expires")


def read(case):
    time.time = lambda: case["now"]
    options = dict(case["options"])
    kind = options.pop("type")
    expires = options.get("cookie_expires")
    if isinstance(expires, int) and not isinstance(expires, bool):
        options["cookie_expires"] = datetime.timedelta(seconds=expires)
    folder = tempfile.mkdtemp()
    request = {"cookie": case["cookie"], "cookie_out": None, "set_cookie": False}
    try:
        if kind == "cookie":
            session = CookieSession(request, **options)
        else:
            for entry in case["storage"]:
                path = os.path.join(folder, entry["key"])
                if not os.path.isdir(os.path.dirname(path)):
                    os.makedirs(os.path.dirname(path))
                with open(path, "wb") as f:
                    f.write(base64.b64decode(entry["value_base64"]))
            session = Session(request, type=kind, data_dir=folder, **options)
        if session.is_new:
            raise ValueError("Beaker starts a new session")
        return {k: v for k, v in dict(session).items() if k not in OWN}
    finally:
        shutil.rmtree(folder)


lines(read)
