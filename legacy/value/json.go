package value

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

const (
	// MaxJSON is the maximum size of a JSON text to read, in bytes.
	MaxJSON = 4 << 20
	// maxValues is how many values one JSON text may hold.
	maxValues = 250_000
	// maxDigits bounds an integer, because the conversion's cost grows faster
	// than the text.
	maxDigits = 10_000
)

// ParseJSON reads JSON like Python's json module: integers of any size (up to
// 10,000 digits), the bare words NaN, Infinity and -Infinity, and \u escapes of
// lone surrogates. The last of several equal keys counts. Its errors wrap
// [reason.Decode] for invalid JSON and [reason.ResourceLimit] for texts over
// [MaxJSON], 250,000 values or [MaxDepth] levels.
func ParseJSON(data []byte) (any, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("%w: JSON of %d bytes", reason.ResourceLimit, len(data))
	}
	p := jsonParser{in: data}
	p.space()
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at != len(p.in) {
		return nil, p.fail("text after the value")
	}
	return v, nil
}

type jsonParser struct {
	in     []byte
	at     int
	values int
}

func (p *jsonParser) fail(what string) error {
	return fmt.Errorf("%w: JSON at byte %d: %s", reason.Decode, p.at, what)
}

func (p *jsonParser) space() {
	for p.at < len(p.in) {
		switch p.in[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// take consumes a byte if it is the next one.
func (p *jsonParser) take(c byte) bool {
	if p.at < len(p.in) && p.in[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *jsonParser) word(w string) bool {
	if bytes.HasPrefix(p.in[p.at:], []byte(w)) {
		p.at += len(w)
		return true
	}
	return false
}

func (p *jsonParser) value(depth int) (any, error) {
	if p.values++; p.values > maxValues {
		return nil, fmt.Errorf("%w: JSON with over %d values", reason.ResourceLimit, maxValues)
	}
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: JSON nested over %d levels", reason.ResourceLimit, MaxDepth)
	}
	if p.at >= len(p.in) {
		return nil, p.fail("ends early")
	}
	switch c := p.in[p.at]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.text()
	case p.word("null"):
		return nil, nil
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	case p.word("NaN"):
		return math.NaN(), nil
	case p.word("Infinity"):
		return math.Inf(1), nil
	case p.word("-Infinity"):
		return math.Inf(-1), nil
	}
	return p.number()
}

func (p *jsonParser) object(depth int) (any, error) {
	p.at++
	out := NewDict()
	p.space()
	if p.take('}') {
		return out, nil
	}
	for {
		p.space()
		if p.at >= len(p.in) || p.in[p.at] != '"' {
			return nil, p.fail("no key")
		}
		key, err := p.text()
		if err != nil {
			return nil, err
		}
		p.space()
		if !p.take(':') {
			return nil, p.fail("no colon")
		}
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if err := out.SetKey(key, v); err != nil {
			return nil, p.fail("bad key")
		}
		p.space()
		if p.take('}') {
			return out, nil
		}
		if !p.take(',') {
			return nil, p.fail("no comma")
		}
	}
}

func (p *jsonParser) array(depth int) (any, error) {
	p.at++
	out := []any{}
	p.space()
	if p.take(']') {
		return out, nil
	}
	for {
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		p.space()
		if p.take(']') {
			return out, nil
		}
		if !p.take(',') {
			return nil, p.fail("no comma")
		}
	}
}

func (p *jsonParser) text() (any, error) {
	p.at++
	var out []byte
	surrogates := false
	for {
		if p.at >= len(p.in) {
			return nil, p.fail("text without end")
		}
		switch c := p.in[p.at]; {
		case c == '"':
			p.at++
			if !surrogates {
				return string(out), nil
			}
			v, _ := FromWTF8(out) // joins the pairs
			return v, nil
		case c == '\\':
			p.at++
			r, err := p.escape()
			if err != nil {
				return nil, err
			}
			if utf16.IsSurrogate(r) {
				surrogates = true
				out = appendSurrogate(out, r)
			} else {
				out = utf8.AppendRune(out, r)
			}
		case c < 0x20:
			return nil, p.fail("control character in text")
		case c < utf8.RuneSelf:
			out = append(out, c)
			p.at++
		default:
			r, n := utf8.DecodeRune(p.in[p.at:])
			if r == utf8.RuneError && n <= 1 {
				return nil, p.fail("not UTF-8")
			}
			out = append(out, p.in[p.at:p.at+n]...)
			p.at += n
		}
	}
}

func (p *jsonParser) escape() (rune, error) {
	if p.at >= len(p.in) {
		return 0, p.fail("text without end")
	}
	c := p.in[p.at]
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		if len(p.in)-p.at < 4 {
			return 0, p.fail("short \\u escape")
		}
		var r rune
		for _, h := range p.in[p.at : p.at+4] {
			d := strings.IndexByte("0123456789abcdef", h|0x20)
			if d < 0 || h < '0' {
				return 0, p.fail("bad \\u escape")
			}
			r = r<<4 | rune(d)
		}
		p.at += 4
		return r, nil
	}
	return 0, p.fail("unknown escape")
}

func (p *jsonParser) digits() int {
	start := p.at
	for p.at < len(p.in) && p.in[p.at] >= '0' && p.in[p.at] <= '9' {
		p.at++
	}
	return p.at - start
}

func (p *jsonParser) number() (any, error) {
	start := p.at
	p.take('-')
	first := p.at
	n := p.digits()
	if n == 0 || n > 1 && p.in[first] == '0' {
		return nil, p.fail("not a value")
	}
	float := false
	if p.take('.') {
		float = true
		if p.digits() == 0 {
			return nil, p.fail("no digits after the point")
		}
	}
	if p.take('e') || p.take('E') {
		float = true
		if !p.take('+') {
			p.take('-')
		}
		if p.digits() == 0 {
			return nil, p.fail("no digits in the exponent")
		}
	}
	text := string(p.in[start:p.at])
	if float {
		f, _ := strconv.ParseFloat(text, 64) // out of range gives an infinity, as in Python
		return f, nil
	}
	return ParseInt(text)
}

// ParseInt reads a decimal integer of any size up to 10,000 digits: an int64
// where it fits, else a *big.Int. Only a sign and ASCII digits are accepted.
func ParseInt(text string) (any, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")
	if digits == "" || len(text)-len(digits) > 1 {
		return nil, fmt.Errorf("%w: not an integer", reason.Decode)
	}
	if len(digits) > maxDigits {
		return nil, fmt.Errorf("%w: integer of %d digits", reason.ResourceLimit, len(digits))
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return nil, fmt.Errorf("%w: not an integer", reason.Decode)
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return nil, fmt.Errorf("%w: not an integer", reason.Decode)
	}
	return n, nil
}

// JSON is a style of writing JSON. All styles write ASCII only, as Python does
// by default, and the bare words NaN and Infinity where a value has them.
type JSON struct {
	ItemSeparator string // between members; "," if empty
	KeySeparator  string // between key and value; ":" if empty
	EscapeSlash   bool   // writes </ as <\/, so that the text is safe in HTML
}

// PythonStyle returns the style of json.dumps without arguments.
func PythonStyle() JSON { return JSON{ItemSeparator: ", ", KeySeparator: ": "} }

// Marshal writes v. Tuples become arrays, and dictionary keys that are numbers,
// booleans or None become text, as in Python. It returns [ErrUnsupported] for
// values that JSON cannot hold: bytes, times, sets and objects, and for two
// keys that become the same text.
func (j JSON) Marshal(v any) ([]byte, error) {
	if j.ItemSeparator == "" {
		j.ItemSeparator = ","
	}
	if j.KeySeparator == "" {
		j.KeySeparator = ":"
	}
	return j.append(nil, v, 0)
}

func (j JSON) append(b []byte, v any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: nested too deeply", ErrUnsupported)
	}
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case *big.Int:
		return v.Append(b, 10), nil
	case float64:
		return appendFloat(b, v), nil
	case string:
		return j.appendText(b, v), nil
	case Surrogates:
		return j.appendText(b, string(v)), nil
	case []any:
		return j.appendArray(b, v, depth)
	case Tuple:
		return j.appendArray(b, v, depth)
	case *Dict:
		b = append(b, '{')
		first := true
		var others map[string]bool // the texts of keys that are not text
		for key, val := range v.All() {
			if !first {
				b = append(b, j.ItemSeparator...)
			}
			first = false
			text, err := keyText(key)
			if err != nil {
				return nil, err
			}
			if _, isText := TextOf(key); !isText {
				if _, taken := v.Lookup(text); taken || others[text] {
					return nil, fmt.Errorf("%w: two keys that are one in JSON", ErrUnsupported)
				}
				if others == nil {
					others = map[string]bool{}
				}
				others[text] = true
			}
			b = j.appendText(b, text)
			b = append(b, j.KeySeparator...)
			if b, err = j.append(b, val, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	converted, err := Of(v)
	if err != nil {
		return nil, err
	}
	switch converted.(type) {
	case nil, bool, int64, *big.Int, float64, string, []any, *Dict:
		return j.append(b, converted, depth)
	}
	return nil, fmt.Errorf("%w: %T in JSON", ErrUnsupported, v)
}

func (j JSON) appendArray(b []byte, items []any, depth int) ([]byte, error) {
	b = append(b, '[')
	for i, it := range items {
		if i > 0 {
			b = append(b, j.ItemSeparator...)
		}
		var err error
		if b, err = j.append(b, it, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// keyText formats a dictionary key like json.dumps.
func keyText(key any) (string, error) {
	switch key := key.(type) {
	case string:
		return key, nil
	case Surrogates:
		return string(key), nil
	case nil, bool, int64, *big.Int, float64:
		text, err := JSON{}.Marshal(key)
		return string(text), err
	}
	return "", fmt.Errorf("%w: %T as a key in JSON", ErrUnsupported, key)
}

// appendText writes a quoted text; s may hold encoded surrogates.
func (j JSON) appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		if r, ok := surrogateAt(s[i:]); ok {
			b = fmt.Appendf(b, `\u%04x`, r)
			i += 3
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '/' && j.EscapeSlash && i > 1 && s[i-2] == '<':
			b = append(b, '\\', '/')
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r < 0x20 || r > 0x7E && r <= 0xFFFF:
			b = fmt.Appendf(b, `\u%04x`, r)
		case r > 0xFFFF:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = append(b, byte(r))
		}
	}
	return append(b, '"')
}

// appendFloat writes a float like Python's repr: the shortest digits that read
// back the same, always recognizable as a float.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if !bytes.ContainsAny(b[start:], ".e") {
		b = append(b, ".0"...)
	}
	return b
}
