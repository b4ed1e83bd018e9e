"""Records sessions of the real old shop: python3 make.py > beaker.json, with
python3-beaker installed. They go with the secret in old.go."""
import base64
import io
import json
import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../old"))
import shop  # noqa: E402

apps = []
shop.serve = apps.append
folder = tempfile.mkdtemp()
sys.argv[1:] = [folder, "the secret of the old shop, 2011"]
import beaker_app  # noqa: E402,F401


def ask(cookie, method, path, form=b""):
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(form)),
        "wsgi.input": io.BytesIO(form), "HTTP_COOKIE": cookie, "SERVER_NAME": "localhost", "SERVER_PORT": "80",
    }
    sent = []

    def start_response(_status, headers, _error=None):
        sent.extend(v for k, v in headers if k.lower() == "set-cookie")

    list(apps[0](environ, start_response))
    return sent[-1].split(";")[0].strip() if sent else cookie


out = []
for steps in (
    [("GET", "/"), ("POST", "/login", b"user=ada"), ("POST", "/cart", b"item=tea")],
    [("GET", "/"), ("POST", "/login", b"user=ben"), ("POST", "/cart", b"item=tea"),
     ("POST", "/cart", b"item=pot"), ("POST", "/cart", b"item=tea")],
    [("GET", "/"), ("POST", "/cart", b"item=cup")],
):
    cookie = ""
    for step in steps:
        cookie = ask(cookie, *step)
    sid = cookie.split("=", 1)[1][40:]
    path = "container_file/%s/%s/%s.cache" % (sid[0], sid[:2], sid)
    with open(os.path.join(folder, path), "rb") as f:
        out.append({"cookie": cookie, "path": path, "file": base64.b64encode(f.read()).decode()})
shutil.rmtree(folder)
print(json.dumps(out, indent=2))
