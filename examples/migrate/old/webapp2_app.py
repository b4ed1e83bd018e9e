"""The old shop on webapp2, with its sessions in signed cookies.

Arguments: a folder, which it does not need, and the secret that signs the cookie.
"""
import sys

import webapp2
from webapp2_extras import sessions

from shop import page, serve


class Page(webapp2.RequestHandler):
    def dispatch(self):
        self.store = sessions.get_store(request=self.request)
        try:
            super(Page, self).dispatch()
        finally:
            self.store.save_sessions(self.response)

    @webapp2.cached_property
    def session(self):
        return self.store.get_session()

    def show(self):
        kind, body = page(self.request.environ, "Python with webapp2", self.session)
        self.response.headers["Content-Type"] = kind
        self.response.headers["Cache-Control"] = "private"
        self.response.write(body.decode("utf-8"))

    def back(self):
        self.response.status = 303
        self.response.headers["Location"] = "/"


class Home(Page):
    def get(self):
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.show()


class Cart(Page):
    def get(self):
        self.show()

    def post(self):
        cart = dict(self.session.get("cart", {}))
        item = self.request.POST["item"]
        cart[item] = cart.get(item, 0) + 1
        self.session["cart"] = cart
        self.back()


class Login(Page):
    def post(self):
        self.session["user"] = self.request.POST["user"]
        self.back()


class Logout(Page):
    def post(self):
        self.session.clear()
        self.back()


serve(webapp2.WSGIApplication(
    [("/", Home), ("/cart", Cart), ("/login", Login), ("/logout", Logout)],
    config={"webapp2_extras.sessions": {
        "secret_key": sys.argv[2],
        "cookie_name": "shop",
        "cookie_args": {"httponly": True},
    }},
))
