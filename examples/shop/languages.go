package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// language is the shop's texts in one language: texts/CODE.json.
type language struct {
	Code  string // BCP 47
	texts map[string]string
}

func readLanguages(root fs.FS, codes ...string) ([]*language, error) {
	var all []*language
	for _, code := range codes {
		l := &language{Code: code}
		data, err := fs.ReadFile(root, "texts/"+code+".json")
		if err == nil {
			err = json.Unmarshal(data, &l.texts)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the %s texts: %w", code, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// language returns the visitor's chosen language, or else the browser's.
func (p *pages) language(r *http.Request, session *sojourn.Session) *language {
	if l := p.byCode(languageKey.Get(session)); l != nil {
		return l
	}
	return p.preferred(r)
}

// preferred returns the first of the browser's languages that the shop supports.
func (p *pages) preferred(r *http.Request) *language {
	for item := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, _, _ := strings.Cut(item, ";")
		primary, _, _ := strings.Cut(strings.TrimSpace(tag), "-")
		if l := p.byCode(strings.ToLower(primary)); l != nil {
			return l
		}
	}
	return p.languages[0]
}

// byCode returns nil for an unsupported language.
func (p *pages) byCode(code string) *language {
	for _, l := range p.languages {
		if l.Code == code {
			return l
		}
	}
	return nil
}

// T returns the text of that name, with args filled in as by fmt.Sprintf.
func (l *language) T(name string, args ...any) string {
	text, ok := l.texts[name]
	if !ok {
		return name
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// Price formats an amount in cents as euros.
func (l *language) Price(cents int) string {
	return l.T("format.price", l.Decimal(float64(cents)/100, 2))
}

// Decimal writes a number with this language's decimal mark.
func (l *language) Decimal(x float64, digits int) string {
	return strings.Replace(fmt.Sprintf("%.*f", digits, x), ".", l.T("format.decimal"), 1)
}

// Millis writes a duration in milliseconds.
func (l *language) Millis(d time.Duration) string {
	return l.Decimal(float64(d)/float64(time.Millisecond), 2) + " ms"
}

// Moment writes a time to the minute, in the server's zone.
func (l *language) Moment(t time.Time) string {
	return t.Local().Format(l.T("format.moment"))
}
