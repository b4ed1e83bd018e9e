"""Opens secure cookies with the real webapp2_extras.sessions."""
import base64
import time

import webapp2
from webapp2_extras import sessions

from tagged import lines


def read(case):
    time.time = lambda: case["now"]
    config = case["config"]
    secret = config.get("secret")
    if secret is None:
        secret = base64.b64decode(config["secret_base64"])
    request = webapp2.Request.blank("/", headers={"Cookie": case["cookie"]})
    request.app = webapp2.WSGIApplication(config={"webapp2_extras.sessions": {
        "secret_key": secret, "cookie_name": config["cookie_name"], "session_max_age": config.get("session_max_age"),
    }})
    kwargs = {}
    if "max_age" in config:
        kwargs["max_age"] = config["max_age"]
    session = sessions.SessionStore(request).get_session(name=config.get("name"), **kwargs)
    if session.new:
        raise ValueError("webapp2 starts a new session")
    return dict(session)


lines(read)
