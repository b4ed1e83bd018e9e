package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// DevicesOptions are the options of [Devices].
type DevicesOptions struct {
	// Path is where the handler is mounted, such as "/account/devices/", with a
	// slash at both ends. Required. Do not strip it (http.StripPrefix).
	Path string

	// LoginURL is the application's page to sign in, on this site: a path such
	// as "/login". Visitors who are not signed in are redirected there, with a
	// parameter for the return path. "" = they get status 401.
	LoginURL string

	// ConfirmURL is the application's page, on this site, where a signed-in
	// user authenticates again. It gets the same parameter, and calls
	// Session.Login on success. "" = LoginURL. One of the two is required
	// unless RecentWithin is negative.
	ConfirmURL string

	// ReturnParameter is that parameter's name. "" = "next". Its value is Path,
	// never anything from a request.
	ReturnParameter string

	// RecentWithin is how recently a user must have authenticated to sign a
	// device out; see Session.Recent. 0 = 10 minutes, negative = any time.
	RecentWithin time.Duration

	// Site is the application's name, shown at the top with a link to Home.
	// "" = no name. Home is a path on this site; "" = "/".
	Site, Home string

	// Stylesheet is a stylesheet of the application, on this site, such as
	// "/static/devices.css". It is loaded after the page's own and can set its
	// CSS variables, such as --accent; the README lists them. "" = none.
	Stylesheet string

	// Texts returns the texts of the page for a request. It may get the
	// request's session from the manager. nil = EnglishDevices.
	Texts func(*http.Request) DevicesTexts

	// Logger gets errors. nil = slog.Default().
	Logger *slog.Logger
}

const (
	devicesPerPage = 20
	defaultRecent  = 10 * time.Minute

	// Levels of the flash messages that this package puts into a session. They
	// differ from an application's own levels, so that neither shows the
	// other's messages.
	flashDone    = "sojourn.done"
	flashProblem = "sojourn.problem"
)

type devices struct {
	*pages
	m *sojourn.Manager
	o DevicesOptions
}

// Devices returns a handler with a page that lists a user's sessions, this
// device and others, with buttons to sign one or all others out. It shows the
// first and last use, the browser and system that the browser reported, the IP
// address, and a warning where a session's cookie may have been copied.
//
// Only sessions of the request's user are listed and ended. The handler wraps
// itself in m. m needs a store with an index by user, as all durable stores of
// this project have.
//
// The error lists every mistake in o. The handler returned with an error
// refuses every request with 403.
func Devices(m *sojourn.Manager, o DevicesOptions) (http.Handler, error) {
	var errs []error
	if m == nil {
		errs = append(errs, errors.New("the manager is nil"))
	}
	if err := checkPath(o.Path); err != nil {
		errs = append(errs, fmt.Errorf("DevicesOptions.%w", err))
	}
	if o.ConfirmURL == "" {
		o.ConfirmURL = o.LoginURL
	}
	if o.ConfirmURL == "" && o.RecentWithin >= 0 {
		errs = append(errs, errors.New("DevicesOptions: set LoginURL or ConfirmURL, or a negative RecentWithin"))
	}
	if o.Home == "" {
		o.Home = "/"
	}
	for name, u := range map[string]string{"LoginURL": o.LoginURL, "ConfirmURL": o.ConfirmURL, "Home": o.Home, "Stylesheet": o.Stylesheet} {
		if u != "" && !localPath(u) {
			errs = append(errs, fmt.Errorf("DevicesOptions.%s %q is not a path on this site", name, u))
		}
	}
	if o.ReturnParameter == "" {
		o.ReturnParameter = "next"
	}
	if o.Texts == nil {
		o.Texts = func(*http.Request) DevicesTexts { return DevicesTexts{} }
	}
	if o.RecentWithin == 0 {
		o.RecentWithin = defaultRecent
	}
	pages, err := newPages(o.Path, o.Logger, "devices", "message")
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return refusing("Devices", errs...)
	}
	d := &devices{pages, m, o}
	pages.problem = func(w http.ResponseWriter, r *http.Request, status int) {
		t := d.texts(r)
		if status == http.StatusForbidden {
			d.say(w, r, status, t.OtherSite, t.OtherSiteText)
			return
		}
		d.say(w, r, status, t.NotFound, t.NotFoundText)
	}
	routes := map[string]http.HandlerFunc{
		"GET ":                 d.signedIn(d.list),
		"POST sign-out":        d.signedIn(d.recently(d.signOut)),
		"POST sign-out-others": d.signedIn(d.recently(d.signOutOthers)),
	}
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.serve(w, r, routes)
	})), nil
}

// devicesPage is the data of the list.
type devicesPage struct {
	This    device
	Others  []device
	Pager   pager
	Confirm bool // signing out asks for a recent authentication first
}

// device is one of the user's sessions.
type device struct {
	sojourn.Info
	Text            *DevicesTexts
	Name, Icon, Ago string
}

func (d *devices) device(t *DevicesTexts, info sojourn.Info) device {
	a := parseAgent(info.UserAgent)
	shown := device{Info: info, Text: t, Name: t.Device(a.Browser, a.System), Icon: a.Icon, Ago: t.Unknown}
	if !info.LastSeen.IsZero() {
		shown.Ago = t.Ago(max(0, d.now().Sub(info.LastSeen)))
	}
	return shown
}

// texts are the texts of the page that answers a request.
func (d *devices) texts(r *http.Request) *DevicesTexts { return d.o.Texts(r).complete() }

// deviceHandler answers a request of a signed-in user.
type deviceHandler func(http.ResponseWriter, *http.Request, *sojourn.Session)

// signedIn admits only signed-in users.
func (d *devices) signedIn(next deviceHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := d.m.Get(r.Context())
		switch {
		case err != nil:
			d.m.ServeError(w, r, err)
		case s.User() != "":
			next(w, r, s)
		case d.o.LoginURL != "":
			redirect(w, d.withReturn(d.o.LoginURL))
		default:
			t := d.texts(r)
			d.say(w, r, http.StatusUnauthorized, t.NotSignedIn, t.NotSignedInText)
		}
	}
}

// recently requires a recent authentication.
func (d *devices) recently(next deviceHandler) deviceHandler {
	return func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		if d.needsConfirmation(s) {
			redirect(w, d.withReturn(d.o.ConfirmURL))
			return
		}
		next(w, r, s)
	}
}

func (d *devices) needsConfirmation(s *sojourn.Session) bool {
	return d.o.RecentWithin > 0 && !s.Recent(d.o.RecentWithin)
}

// withReturn adds the way back to one of the application's pages.
func (d *devices) withReturn(page string) string {
	page, fragment, _ := strings.Cut(page, "#")
	sep := "?"
	if strings.Contains(page, "?") {
		sep = "&"
	}
	page += sep + url.QueryEscape(d.o.ReturnParameter) + "=" + url.QueryEscape(d.o.Path)
	if fragment != "" {
		page += "#" + fragment
	}
	return page
}

func (d *devices) list(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
	all, err := d.m.Sessions(r.Context(), s.User())
	if err != nil {
		d.failed(w, r, "list", err)
		return
	}
	t := d.texts(r)
	this := s.Info()
	this.Current = true
	var others []sojourn.Info
	for _, info := range all {
		if info.Current {
			this = info // an inline session has no device information
		} else {
			others = append(others, info)
		}
	}
	content := devicesPage{This: d.device(t, this), Confirm: d.needsConfirmation(s), Pager: newPager(r, len(others), devicesPerPage, "")}
	content.Pager.Text = t
	for _, info := range cut(others, content.Pager) {
		content.Others = append(content.Others, d.device(t, info))
	}
	pg := d.page(r, t.Title, content)
	for _, f := range s.Flashes(flashDone, flashProblem) {
		pg.Messages = append(pg.Messages, message{strings.TrimPrefix(f.Level, "sojourn."), f.Text})
	}
	d.render(w, r, http.StatusOK, "devices", pg)
}

func (d *devices) signOut(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
	handle := r.PostFormValue("handle")
	if handle == s.Handle() {
		s.Flash(flashProblem, d.texts(r).NotThisDevice)
		redirect(w, "./")
		return
	}
	switch err := d.m.Revoke(r.Context(), s.User(), handle); {
	case errors.Is(err, sojourn.ErrNotFound):
		// The same answer as for another user's handle: it must not reveal whether that exists.
		s.Flash(flashProblem, d.texts(r).AlreadySignedOut)
	case err != nil:
		d.failed(w, r, "sign out", err)
		return
	default:
		s.Flash(flashDone, d.texts(r).SignedOut)
	}
	redirect(w, "./")
}

func (d *devices) signOutOthers(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
	n, err := d.m.RevokeUser(r.Context(), s.User(), s.Handle())
	if err != nil {
		d.failed(w, r, "sign out all others", err)
		return
	}
	s.Flash(flashDone, d.texts(r).OthersSignedOut(n))
	redirect(w, "./")
}

func (d *devices) page(r *http.Request, title string, content any) page {
	return page{Text: d.texts(r), Title: title, Site: d.o.Site, Home: d.o.Home, Look: d.o.Stylesheet, Content: content}
}

func (d *devices) say(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	d.render(w, r, status, "message", d.page(r, title, text))
}

// failed answers when the store failed.
func (d *devices) failed(w http.ResponseWriter, r *http.Request, doing string, err error) {
	d.logger.ErrorContext(r.Context(), "your devices: "+doing, slog.Any("error", err))
	t := d.texts(r)
	if errors.Is(err, errors.ErrUnsupported) {
		d.say(w, r, http.StatusNotImplemented, t.NotAvailable, t.NotAvailableText)
		return
	}
	d.say(w, r, http.StatusServiceUnavailable, t.TryAgain, t.TryAgainText)
}
