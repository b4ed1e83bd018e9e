package pickle

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/legacy/value"
)

// maxIntBytes bounds binary integers like value.ParseInt bounds decimal ones.
const maxIntBytes = 4096

// machine runs the opcodes. It allocates a declared length only after checking
// that the input is long enough.
type machine struct {
	in    []byte
	at    int
	stack []slot
	marks []mark
	memo  map[uint64]*entry
	puts  []put
	// reused are the entries of an index that was used more than once.
	reused map[uint64][]put
	proto  int
	// op is the start of the current opcode. The value that it pushes is made
	// by the input from there, or from the start of its first operand.
	op, from int
	zones    map[string]*time.Location
	budget
}

// slot is a place on the stack. The input from start on makes its value.
type slot struct {
	v     any
	memo  *entry // that it was stored as, or fetched from
	start int32  // inputs are shorter than that
	got   bool   // the value was fetched from the memo
}

// mark is a MARK: the height of the stack there, and where it is in the input.
type mark struct{ height, at int }

// entry is an entry of the memo. The input between start and end makes its value.
type entry struct {
	v          any
	start, end int
	elsewhere  bool // and input outside of that has changed it
}

// put records which entry an opcode has stored.
type put struct {
	at int
	e  *entry
}

// run executes the pickle up to STOP and returns the remaining value.
func (m *machine) run() (any, error) {
	for {
		if m.at >= len(m.in) {
			return nil, broken("ends without STOP")
		}
		op := m.in[m.at]
		m.op, m.from = m.at, m.at
		m.at++
		if op == '.' {
			break
		}
		if err := m.step(op); err != nil {
			return nil, err
		}
	}
	if m.at != len(m.in) {
		return nil, broken("bytes after STOP")
	}
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return nil, broken("STOP without exactly one value")
	}
	return m.stack[0].v, nil
}

func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		b, err := m.take(1)
		if err != nil {
			return err
		}
		if b[0] > 5 {
			return broken("unknown protocol")
		}
		m.proto = int(b[0])
		return nil
	case 0x95: // FRAME
		n, err := m.length(8)
		if err != nil {
			return err
		}
		if n > len(m.in)-m.at {
			return broken("frame past the end")
		}
		return nil

	case '(':
		m.marks = append(m.marks, mark{len(m.stack), m.op})
		return nil
	case '0': // POP removes a mark where no value is above it
		if n := len(m.marks); n > 0 && m.marks[n-1].height == len(m.stack) {
			m.marks = m.marks[:n-1]
			return nil
		}
		_, err := m.pop()
		return err
	case '1':
		_, err := m.popMark()
		return err
	case '2':
		v, err := m.top()
		if err != nil {
			return err
		}
		return m.push(v)

	case 'N':
		return m.push(nil)
	case 0x88:
		return m.push(true)
	case 0x89:
		return m.push(false)
	case 'I', 'L', 'F', 'S', 'V':
		return m.textScalar(op)
	case 'J':
		b, err := m.take(4)
		if err != nil {
			return err
		}
		return m.push(int64(int32(binary.LittleEndian.Uint32(b))))
	case 'K':
		b, err := m.take(1)
		if err != nil {
			return err
		}
		return m.push(int64(b[0]))
	case 'M':
		b, err := m.take(2)
		if err != nil {
			return err
		}
		return m.push(int64(binary.LittleEndian.Uint16(b)))
	case 'G':
		b, err := m.take(8)
		if err != nil {
			return err
		}
		return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 0x8a, 0x8b: // LONG1, LONG4
		b, err := m.counted(lengthSize(op))
		if err != nil {
			return err
		}
		return m.pushLong(b)

	case 'U', 'T':
		b, err := m.counted(lengthSize(op))
		if err != nil {
			return err
		}
		return m.push(py2(b))
	case 'C', 'B', 0x8e, 0x96: // bytes and bytearray
		b, err := m.counted(lengthSize(op))
		if err != nil {
			return err
		}
		return m.push(bytes.Clone(b))
	case 0x8c, 'X', 0x8d:
		b, err := m.counted(lengthSize(op))
		if err != nil {
			return err
		}
		text, ok := value.FromWTF8(b)
		if !ok {
			return broken("text is not UTF-8")
		}
		return m.push(text)

	case ']':
		return m.push(&listNode{})
	case '}':
		return m.push(&dictNode{})
	case ')':
		return m.push(&tupleNode{})
	case 0x8f:
		return m.push(&setNode{})
	case 'l', 't', 'd', 0x91: // from the mark
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.pushContainer(op, items)
	case 0x85, 0x86, 0x87: // TUPLE1–3
		items, err := m.popN(int(op - 0x84))
		if err != nil {
			return err
		}
		return m.push(&tupleNode{items})
	case 'a', 'e', 's', 'u', 0x90:
		return m.extend(op)

	case 'p', 'q', 'r', 0x94, 'g', 'h', 'j':
		return m.memoOp(op)

	case 'c', 0x93, 'i', 'o', 'R', 'b', 0x81, 0x92:
		return m.objectOp(op)

	case 0x82, 0x83, 0x84:
		return hostile("an extension code")
	case 'P', 'Q':
		return hostile("a persistent identifier")
	case 0x97, 0x98:
		return hostile("an out-of-band buffer")
	}
	return broken("unknown opcode")
}

// lengthSize is how many bytes the length of a counted value has.
func lengthSize(op byte) int {
	switch op {
	case 'U', 'C', 0x8a, 0x8c:
		return 1
	case 0x8d, 0x8e, 0x96:
		return 8
	}
	return 4 // T, B, X, LONG4
}

// take consumes n bytes. They alias the input.
func (m *machine) take(n int) ([]byte, error) {
	if n > len(m.in)-m.at {
		return nil, broken("ends inside a value")
	}
	b := m.in[m.at : m.at+n : m.at+n]
	m.at += n
	return b, nil
}

// length reads a little-endian length of 1, 4 or 8 bytes. All lengths beyond
// the input return one that is too long.
func (m *machine) length(size int) (int, error) {
	b, err := m.take(size)
	if err != nil {
		return 0, err
	}
	var n uint64
	for i := size - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	// Negative signed lengths are far beyond the input.
	return int(min(n, uint64(len(m.in))+1)), nil
}

// counted reads a length of size bytes and that many bytes.
func (m *machine) counted(size int) ([]byte, error) {
	n, err := m.length(size)
	if err != nil {
		return nil, err
	}
	return m.take(n)
}

// line reads up to the next newline, which it drops.
func (m *machine) line() (string, error) {
	n := bytes.IndexByte(m.in[m.at:], '\n')
	if n < 0 {
		return "", broken("line without end")
	}
	s := string(m.in[m.at : m.at+n])
	m.at += n + 1
	return s, nil
}

func (m *machine) push(v any) error {
	if err := m.spend(1, 0); err != nil {
		return err
	}
	m.stack = append(m.stack, slot{v: v, start: int32(m.from)})
	return nil
}

// floor is the height of the stack that operations may not reach below.
func (m *machine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1].height
	}
	return 0
}

func (m *machine) top() (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, broken("stack is empty")
	}
	return m.stack[len(m.stack)-1].v, nil
}

func (m *machine) pop() (any, error) {
	v, err := m.top()
	if err != nil {
		return nil, err
	}
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// popN removes the upper n values and returns a copy of them, lowest first.
func (m *machine) popN(n int) ([]any, error) {
	at := len(m.stack) - n
	if at < m.floor() {
		return nil, broken("stack is empty")
	}
	items := make([]any, n)
	for i, s := range m.stack[at:] {
		items[i] = s.v
	}
	if n > 0 {
		m.from = min(m.from, int(m.stack[at].start))
	}
	clear(m.stack[at:])
	m.stack = m.stack[:at]
	return items, nil
}

// popMark removes the values above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, broken("no mark")
	}
	items, err := m.popN(len(m.stack) - m.floor())
	m.from = m.marks[len(m.marks)-1].at
	m.marks = m.marks[:len(m.marks)-1]
	return items, err
}

func (m *machine) textScalar(op byte) error {
	line, err := m.line()
	if err != nil {
		return err
	}
	switch op {
	case 'I':
		switch line {
		case "00":
			return m.push(false)
		case "01":
			return m.push(true)
		}
		return m.pushInt(line)
	case 'L':
		return m.pushInt(strings.TrimSuffix(line, "L"))
	case 'F':
		f, ok := parseFloat(line)
		if !ok {
			return broken("not a float")
		}
		return m.push(f)
	case 'S':
		b, ok := unquote(line)
		if !ok {
			return broken("badly quoted string")
		}
		return m.push(py2(b))
	default: // 'V'
		text, ok := rawUnicode(line)
		if !ok {
			return broken("bad unicode escape")
		}
		return m.push(text)
	}
}

func (m *machine) pushInt(text string) error {
	n, err := value.ParseInt(text)
	if err != nil {
		return err
	}
	return m.push(n)
}

// pushLong reads a little-endian two's complement number.
func (m *machine) pushLong(b []byte) error {
	if len(b) > maxIntBytes {
		return tooMuch("an integer of too many digits")
	}
	be := make([]byte, len(b))
	for i, c := range b {
		be[len(b)-1-i] = c
	}
	n := new(big.Int).SetBytes(be)
	if len(be) > 0 && be[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(be))))
	}
	if n.IsInt64() {
		return m.push(n.Int64())
	}
	return m.push(n)
}

// parseFloat accepts what Python's repr and str write for floats.
func parseFloat(s string) (float64, bool) {
	switch s {
	case "nan", "-nan":
		return math.NaN(), true
	case "inf":
		return math.Inf(1), true
	case "-inf":
		return math.Inf(-1), true
	}
	if s == "" || len(s) > 1000 || strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// unquote reads a Python 2 string literal without prefix.
func unquote(s string) ([]byte, bool) {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '\'' && s[0] != '"' || s[len(s)-1] != s[0] {
		return nil, false
	}
	quote := s[0]
	s = s[1 : len(s)-1]
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		c := s[i]
		i++
		if c == quote {
			return nil, false
		}
		if c != '\\' {
			out = append(out, c)
			continue
		}
		if i >= len(s) {
			return nil, false
		}
		c = s[i]
		i++
		switch {
		case strings.IndexByte(`\'"`, c) >= 0:
			out = append(out, c)
		case strings.IndexByte("abfnrtv", c) >= 0:
			out = append(out, "\a\b\f\n\r\t\v"[strings.IndexByte("abfnrtv", c)])
		case c == 'x':
			if len(s)-i < 2 {
				return nil, false
			}
			n, err := strconv.ParseUint(s[i:i+2], 16, 8)
			if err != nil {
				return nil, false
			}
			out = append(out, byte(n))
			i += 2
		case c >= '0' && c <= '7':
			n := int(c - '0')
			for k := 0; k < 2 && i < len(s) && s[i] >= '0' && s[i] <= '7'; k++ {
				n = n<<3 | int(s[i]-'0')
				i++
			}
			out = append(out, byte(n))
		default: // Python keeps unknown escapes
			out = append(out, '\\', c)
		}
	}
	return out, true
}

// rawUnicode reads Python's raw-unicode-escape: bytes are Latin-1, and \uXXXX
// or \UXXXXXXXX after an odd number of backslashes is a code point.
func rawUnicode(s string) (any, bool) {
	out := make([]byte, 0, len(s))
	backslashes := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c == '\\' {
			backslashes++
			out = append(out, c)
			i++
			continue
		}
		odd := backslashes%2 == 1
		backslashes = 0
		if !odd || c != 'u' && c != 'U' {
			out = utf8.AppendRune(out, rune(c))
			i++
			continue
		}
		digits := 4
		if c == 'U' {
			digits = 8
		}
		if len(s)-i-1 < digits {
			return nil, false
		}
		n, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
		if err != nil || n > utf8.MaxRune {
			return nil, false
		}
		out = value.AppendWTF8(out[:len(out)-1], rune(n)) // without the backslash
		i += 1 + digits
	}
	return value.FromWTF8(out)
}

func (m *machine) pushContainer(op byte, items []any) error {
	switch op {
	case 'l':
		return m.push(&listNode{items})
	case 't':
		return m.push(&tupleNode{items})
	case 0x91:
		return m.push(&setNode{items: items, frozen: true})
	}
	d := &dictNode{}
	if err := d.add(items); err != nil {
		return err
	}
	return m.push(d)
}

// add appends keys and values that alternate.
func (d *dictNode) add(items []any) error {
	if len(items)%2 != 0 {
		return broken("key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		d.items = append(d.items, value.Item{Key: items[i], Value: items[i+1]})
	}
	return nil
}

// extend adds values to the container below them.
func (m *machine) extend(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a':
		items, err = m.popN(1)
	case 's':
		items, err = m.popN(2)
	default:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	m.changed()
	if o, ok := target.(*objectNode); ok {
		return o.extend(op, items)
	}
	switch op {
	case 'a', 'e':
		if l, ok := target.(*listNode); ok {
			l.items = append(l.items, items...)
			return nil
		}
	case 's', 'u':
		if d, ok := target.(*dictNode); ok {
			return d.add(items)
		}
	default:
		if s, ok := target.(*setNode); ok && !s.frozen {
			s.items = append(s.items, items...)
			return nil
		}
	}
	return broken("values for something that is no such container")
}

// changed records that the current opcode has changed the top value.
func (m *machine) changed() {
	top := &m.stack[len(m.stack)-1]
	switch {
	case top.got:
		top.memo.elsewhere = true
	case top.memo != nil:
		top.memo.end = m.at
	}
	if o, ok := top.v.(*objectNode); ok {
		if int(top.start) == o.start {
			o.end = m.at
		} else {
			o.elsewhere = true
		}
	}
}

func (m *machine) memoOp(op byte) error {
	index, err := m.memoIndex(op)
	if err != nil {
		return err
	}
	switch op {
	case 'g', 'h', 'j':
		e, ok := m.memo[index]
		if !ok {
			return broken("unset memo entry")
		}
		if err := m.push(e.v); err != nil {
			return err
		}
		top := &m.stack[len(m.stack)-1]
		top.memo, top.got = e, true
		return nil
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	top := &m.stack[len(m.stack)-1]
	before, again := m.memo[index]
	e := &entry{v: v, start: int(top.start), end: m.at}
	if !top.got {
		top.memo = e
	}
	m.memo[index] = e
	m.puts = append(m.puts, put{m.op, e})
	if again {
		if m.reused == nil {
			m.reused = map[uint64][]put{}
		}
		if len(m.reused[index]) == 0 {
			m.reused[index] = []put{{-1, before}}
		}
		m.reused[index] = append(m.reused[index], put{m.op, e})
	}
	if o, ok := v.(*objectNode); ok && o.start == int(top.start) {
		o.end = m.at
	}
	return m.spend(1, 0)
}

// entryAt returns the memo's entry for an index at a position in the input.
func (m *machine) entryAt(index uint64, at int) *entry {
	all, ok := m.reused[index]
	if !ok {
		return m.memo[index]
	}
	return all[sort.Search(len(all), func(i int) bool { return all[i].at >= at })-1].e
}

// memoIndex reads the index of an opcode of the memo.
func (m *machine) memoIndex(op byte) (uint64, error) {
	switch op {
	case 'p', 'g':
		line, err := m.line()
		if err != nil {
			return 0, err
		}
		index, err := strconv.ParseUint(line, 10, 63)
		if err != nil {
			return 0, broken("bad memo index")
		}
		return index, nil
	case 'q', 'h':
		b, err := m.take(1)
		if err != nil {
			return 0, err
		}
		return uint64(b[0]), nil
	case 'r', 'j':
		b, err := m.take(4)
		if err != nil {
			return 0, err
		}
		return uint64(binary.LittleEndian.Uint32(b)), nil
	}
	return uint64(len(m.memo)), nil // MEMOIZE
}
