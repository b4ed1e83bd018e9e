package browser

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// client is the script of a page of another origin that uses an API: it logs in
// for a token, counts, has its token renewed, and logs out. It records every
// answer.
const client = `(async () => {
	let token = "";
	const answers = [];
	const call = async (path) => {
		const r = await fetch(API + path, {method: "POST", headers: token ? {Authorization: "Bearer " + token} : {}});
		const renewed = r.headers.get("Sojourn-Token");
		if (renewed !== null) token = renewed;
		const body = await r.text();
		answers.push(path + " " + r.status + (renewed === null ? "" : renewed === "" ? " over" : " renewed") + " " + (path === "/login" ? "" : body));
		return body;
	};
	token = await call("/login");
	await call("/count");
	await call("/count");
	const first = token;
	await call("/rotate");
	answers.push("another token: " + (token !== first && token.startsWith("sjn_")));
	await call("/count");
	await call("/logout");
	await call("/count");
	return answers.join("\n");
})()`

func aPageOfAnotherOriginUsesTokens(t *testing.T, browser context.Context) {
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New(), Bearer: true, Cookie: sojourn.Cookie{SameSite: http.SameSiteStrictMode}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set := make(chan string, 100) // cookies that the API sets
	api := m.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		switch r.URL.Path {
		case "/login":
			session.Login("ada")
			token, err := session.Token(r.Context())
			if err != nil {
				m.ServeError(w, r, err)
				return
			}
			_, _ = w.Write([]byte(token))
			return
		case "/rotate":
			session.Rotate()
		case "/logout":
			session.Logout()
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"user": session.User(), "visits": visits.Update(session, addOne)})
	})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Headers", "Authorization")
			return
		}
		api.ServeHTTP(w, r)
		for _, line := range h["Set-Cookie"] {
			set <- line[:strings.Index(line, "=")]
		}
	}))
	defer server.Close()

	s := newSite(t, sojourn.Config{})
	v := newVisitor(t, s, browser)
	tb := v.tab()
	tb.open(s.foreign("/", "<p id=state>a page of another origin</p>"))
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	script := strings.Replace(client, "API", `"https://api.example.com:`+port+`"`, 1)
	got := eval[string](tb, script)
	want := strings.Join([]string{
		"/login 200 ",
		`/count 200 {"user":"ada","visits":1}` + "\n",
		`/count 200 {"user":"ada","visits":2}` + "\n",
		`/rotate 200 renewed {"user":"ada","visits":3}` + "\n",
		"another token: true",
		`/count 200 {"user":"ada","visits":4}` + "\n",
		"/logout 200 over ",
		"/count 409 ", // as any page of another site without a token
	}, "\n")
	if !strings.HasPrefix(got, want) {
		t.Errorf("the page has got\n%s\nwant\n%s", got, want)
	}
	if names := v.cookies(); len(names) > 0 || len(set) > 0 {
		t.Errorf("the browser has the cookies %q, %d were set", names, len(set))
	}
}
