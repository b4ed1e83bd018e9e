"""The old shop, as a WSGI application with Beaker sessions in files.

Arguments: the folder of the sessions, and the secret that signs their cookie.
"""
import sys

from beaker.middleware import SessionMiddleware

from shop import form, page, serve

folder, secret = sys.argv[1:3]


def shop(environ, start_response):
    session = environ["beaker.session"]
    path, post = environ["PATH_INFO"], environ["REQUEST_METHOD"] == "POST"
    if post and path == "/logout":
        session.delete()
    elif post and path == "/login":
        session["user"] = form(environ, "user")
        session.save()
    elif post and path == "/cart":
        cart = session.get("cart", {})
        item = form(environ, "item")
        cart[item] = cart.get(item, 0) + 1
        session["cart"] = cart
        session.save()
    elif path == "/":
        session["visits"] = session.get("visits", 0) + 1
        session.save()
    if post:
        start_response("303 See Other", [("Location", "/")])
        return [b""]
    kind, body = page(environ, "Python with Beaker", session)
    start_response("200 OK", [("Content-Type", kind), ("Cache-Control", "private")])
    return [body]


serve(SessionMiddleware(shop, {
    "session.type": "file",
    "session.data_dir": folder,
    "session.key": "shop",
    "session.secret": secret,
    "session.httponly": True,
}))
