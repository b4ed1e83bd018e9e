"""A request to an application with Beaker that changes its session, and where the cookie is good.

Reads a JSON line with "options", "cookie" (the Cookie field), "values" to set, and
optionally "path" and "domain"; answers with the Set-Cookie field and all values.
"""
import json
import sys

from beaker.session import SessionObject

for line in sys.stdin:
    case = json.loads(line)
    environ = {"HTTP_COOKIE": str(case["cookie"])} if case["cookie"] else {}
    session = SessionObject(environ, **case["options"])
    if case.get("path"):
        session.path = case["path"]
    if case.get("domain"):
        session.domain = case["domain"]
    session.update(case["values"])
    session.save()
    session.persist()
    request = session.__dict__["_sess"].request
    print(json.dumps({"set_cookie": request["cookie_out"].strip(),
                      "data": {k: v for k, v in session.items() if not k.startswith("_")}}))
