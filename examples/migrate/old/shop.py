"""What both old shops have in common: the pages, and how they are served.

It runs on Python 2.7 and 3.
"""
import json
import os
import signal
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

try:
    from html import escape
    from urllib.parse import parse_qs
except ImportError:  # Python 2
    from cgi import escape
    from urlparse import parse_qs


def form(environ, name):
    """Returns a field of the form that was sent."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    fields = parse_qs(environ["wsgi.input"].read(size).decode("utf-8"))
    return fields.get(name, [""])[0]


def page(environ, answered_by, session):
    """Returns the type and the bytes of a page."""
    shown = {
        "answered_by": answered_by,
        "user": session.get("user", ""),
        "visits": session.get("visits", 0),
        "cart": session.get("cart", {}),
    }
    if "application/json" in environ.get("HTTP_ACCEPT", ""):
        return "application/json", json.dumps(shown).encode("utf-8")
    items = "".join(
        "<li>%s &times; %d</li>" % (escape(item), n) for item, n in sorted(shown["cart"].items())
    )
    html = HTML.format(
        answered_by=answered_by, user=escape(shown["user"]) or "nobody", visits=shown["visits"], items=items
    )
    return "text/html; charset=utf-8", html.encode("utf-8")


HTML = u"""<!doctype html><title>The shop</title>
<p>This page comes from <b>{answered_by}</b>.</p>
<p>Logged in: {user}. Visits: {visits}.</p><ul>{items}</ul>
<form method=post action=/cart><input name=item value=tea> <button>Into the cart</button></form>
<form method=post action=/login><input name=user value=ada> <button>Log in</button></form>
<form method=post action=/logout><button>Log out</button></form>
<p><a href=/>Home</a> <a href=/cart>Cart</a></p>
"""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def serve(app):
    """Serves on a free port, whose number it prints, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the program that started it
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    print(server.server_port)
    sys.stdout.flush()

    def wait():
        sys.stdin.read()
        os._exit(0)

    waiting = threading.Thread(target=wait)
    waiting.daemon = True
    waiting.start()
    server.serve_forever()
