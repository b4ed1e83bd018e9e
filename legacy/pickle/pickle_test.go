package pickle_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

func decode(t *testing.T, p string) any {
	t.Helper()
	v, err := pickle.Decode([]byte(p))
	if err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	return v
}

func TestEveryOpcodeGivesItsValue(t *testing.T) {
	ten, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for _, c := range []struct {
		name, pickle string
		want         any
	}{
		{"None", "N.", nil},
		{"INT", "I-5\n.", int64(-5)},
		{"INT as bool", "(I01\nI00\nt.", value.Tuple{true, false}},
		{"LONG", "L123456789012345678901234567890L\n.", ten},
		{"FLOAT without a dot", "F1400000000\n.", 1.4e9},
		{"FLOAT inf", "F-inf\n.", math.Inf(-1)},
		{"STRING with escapes", `S'a\x41\n\t\r\\\'\"\101\0z\q'` + "\n.", "aA\n\t\r\\'\"A\x00z\\q"},
		{"STRING in double quotes", "S\"it's\"\n.", "it's"},
		{"STRING that is not text", `S'\xff'` + "\n.", []byte{0xFF}},
		{"UNICODE", "Vcaf\xe9 \\u20ac \\U0001f600 \\\\u0041 \\q\n.", "café € 😀 \\\\u0041 \\q"},
		{"UNICODE that ends with a carriage return", "Va\r\n.", "a\r"},
		{"UNICODE with a pair", "V\\ud83d\\ude00\n.", "😀"},
		{"UNICODE with a lone surrogate", "V\\ud83d\n.", value.Surrogates("\xed\xa0\xbd")},
		{"BININT", "\x80\x02J\xff\xff\xff\xff.", int64(-1)},
		{"BININT1 and 2", "\x80\x02K\xffM\xff\xff\x86.", value.Tuple{int64(255), int64(65535)}},
		{"LONG1", "\x80\x02\x8a\x00\x8a\x01\xff\x8a\x02\x80\x00\x87.", value.Tuple{int64(0), int64(-1), int64(128)}},
		{"LONG4", "\x80\x02\x8b\x02\x00\x00\x00\x00\x80.", int64(-32768)},
		{"BINFLOAT", "\x80\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00.", 1.5},
		{"SHORT_BINSTRING and BINSTRING", "\x80\x02U\x01aT\x01\x00\x00\x00b\x86.", value.Tuple{"a", "b"}},
		{"bytes", "\x80\x04C\x01aB\x01\x00\x00\x00b\x8e\x01\x00\x00\x00\x00\x00\x00\x00c\x87.", value.Tuple{[]byte("a"), []byte("b"), []byte("c")}},
		{"BYTEARRAY8", "\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00c.", []byte("c")},
		{"text", "\x80\x04\x8c\x01aX\x01\x00\x00\x00b\x8d\x01\x00\x00\x00\x00\x00\x00\x00c\x87.", value.Tuple{"a", "b", "c"}},
		{"LIST and APPEND", "(lI1\naI2\na.", []any{int64(1), int64(2)}},
		{"APPENDS", "](K\x01K\x02e.", []any{int64(1), int64(2)}},
		{"DICT and SETITEM", "(I1\nI2\ndI3\nI4\ns.", dict(t, int64(1), int64(2), int64(3), int64(4))},
		{"SETITEMS", "}(K\x01K\x02u.", dict(t, int64(1), int64(2))},
		{"sets", "\x80\x04\x8f(K\x01K\x01K\x02\x90(K\x03\x91\x86.", value.Tuple{value.Set{Items: []any{int64(1), int64(2)}}, value.Set{Items: []any{int64(3)}, Frozen: true}}},
		{"tuples", ")K\x01\x85K\x02K\x03\x86(K\x04t\x87.", nil},
		{"POP", "NK\x010.", nil},
		{"POP of a mark", "N(0.", nil},
		{"POP_MARK", "N(K\x01K\x021.", nil},
		{"DUP", "K\x012\x86.", value.Tuple{int64(1), int64(1)}},
		{"memo in text", "]p7\ng7\n\x86.", value.Tuple{[]any{}, []any{}}},
		{"memo in binary", "]q\x07h\x07r\x00\x00\x01\x00j\x00\x00\x01\x00\x87.", nil},
		{"MEMOIZE counts", "]\x94}\x94h\x00h\x01\x86\x86\x85.", nil},
		{"a shared list grows everywhere", "]q\x00h\x00K\x01a\x86.", value.Tuple{[]any{int64(1)}, []any{int64(1)}}},
		{"FRAME", "\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N..", nil},
		{"py2 and py3 names of one key", "}(U\x01aK\x01X\x01\x00\x00\x00aK\x02u.", dict(t, "a", int64(2))},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch c.name {
			case "tuples":
				want := value.Tuple{value.Tuple{int64(1)}, value.Tuple{int64(2), int64(3)}, value.Tuple{int64(4)}}
				if got := decode(t, "K\x01\x85K\x02K\x03\x86(K\x04t\x87."); !value.Equal(got, want) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
				if got := decode(t, ")."); !value.Equal(got, value.Tuple{}) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
			case "memo in binary":
				if got := decode(t, "]q\x07h\x07r\x00\x00\x01\x00\x86."); !value.Equal(got, value.Tuple{[]any{}, []any{}}) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
				if got := decode(t, "]r\x00\x00\x01\x00j\x00\x00\x01\x00\x86."); !value.Equal(got, value.Tuple{[]any{}, []any{}}) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
			case "MEMOIZE counts":
				if got := decode(t, "]\x94}\x94h\x00h\x01\x86\x87."); !value.Equal(got, value.Tuple{[]any{}, value.NewDict(), value.Tuple{[]any{}, value.NewDict()}}) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
			case "FRAME":
				if got := decode(t, "\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N."); got != nil {
					t.Errorf("got %v", got)
				}
			default:
				if got := decode(t, c.pickle); !value.Equal(got, c.want) {
					t.Errorf("got %s", value.MarshalTagged(got))
				}
			}
		})
	}
}

func dict(t testing.TB, pairs ...any) *value.Dict {
	t.Helper()
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		if err := d.SetKey(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestPicklesAreRefusedForTheRightReason(t *testing.T) {
	u32 := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	for _, c := range []struct {
		name, pickle string
		want         reason.Reason
	}{
		{"two values left", "NN.", reason.Decode},
		{"a mark left", "N(.", reason.Decode},
		{"bytes after STOP", "N.N", reason.Decode},
		{"append to a tuple", ")K\x01a.", reason.Decode},
		{"set item on a list", "]K\x01K\x02s.", reason.Decode},
		{"add to a frozen set", "(\x91(K\x01\x90.", reason.Decode},
		{"list in a set", "\x8f(]\x90.", reason.Decode},
		{"dictionary as a key", "}}Ns.", reason.Decode},
		{"call of a number", "K\x01)R.", reason.Decode},
		{"state for a list", "]}b.", reason.Decode},
		{"UUID without state", "cuuid\nUUID\n)\x81.", reason.Decode},
		{"UUID with a negative number", "cuuid\nUUID\n)\x81}X\x03\x00\x00\x00intI-1\nsb.", reason.Decode},
		{"UUID too large", "cuuid\nUUID\n)\x81}X\x03\x00\x00\x00int\x8a\x12" + strings.Repeat("\x7f", 18) + "sb.", reason.Decode},
		{"month 13", "cdatetime\ndatetime\nU\x0a\x07\xde\x0d\x01\x00\x00\x00\x00\x00\x00\x85R.", reason.Decode},
		{"short datetime", "cdatetime\ndatetime\nU\x01a\x85R.", reason.Decode},
		{"datetime with a foreign zone", "cdatetime\ndatetime\nU\x0a\x07\xde\x01\x01\x00\x00\x00\x00\x00\x00K\x01\x86R.", reason.Decode},
		{"zone of two days", "cdatetime\ntimezone\ncdatetime\ntimedelta\nK\x02\x85R\x85R.", reason.Decode},
		{"decimal that is none", "cdecimal\nDecimal\nX\x03\x00\x00\x001e+\x85R.", reason.Decode},
		{"text beyond Latin-1 as bytes", "c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R.", reason.Decode},
		{"short bad unicode escape", "V\\u12\n.", reason.Decode},
		{"unicode beyond the last", "V\\U00110000\n.", reason.Decode},
		{"hexadecimal float", "F0x1p5\n.", reason.Decode},
		{"integer with spaces", "I 5\n.", reason.Decode},
		{"time zone of two days inside a time", "cdatetime\ntime\nU\x06\x01\x02\x03\x00\x00\x00cdatetime\ntimezone\ncdatetime\ntimedelta\nK\x02\x85R\x85R\x86R.", reason.Decode},
		{"time with a foreign zone", "cdatetime\ntime\nU\x06\x01\x02\x03\x00\x00\x00K\x01\x86R.", reason.Decode},

		{"a global that is named and dropped", "cos\nsystem\n0N.", reason.HostilePickle},
		{"NEWOBJ_EX of a UUID with arguments", "cuuid\nUUID\n)}K\x01K\x02s\x92.", reason.HostilePickle},
		{"a program to be run, as data", "csubprocess\nPopen\n.", reason.HostilePickle},
		{"a way into Python's own objects", "c__builtin__\ngetattr\ncapp\nCart\nX\x0b\x00\x00\x00__globals__\x86R.", reason.HostilePickle},
		{"a dotted way into them", "\x80\x04\x8c\x03app\x8c\x10Cart.__globals__\x93.", reason.HostilePickle},
		{"a module that a harmless one has loaded", "ccollections\nsys.exit\n.", reason.HostilePickle},
		{"a function that is to be called later", "cfunctools\npartial\ncapp\nCart\n\x85R.", reason.HostilePickle},
		{"a class made of text", "ccollections\nnamedtuple\nX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86R.", reason.HostilePickle},
		{"a class made of parts", "c__builtin__\ntype\nX\x01\x00\x00\x00a)}\x87R.", reason.HostilePickle},
		{"an allowed class made by INST", "(idatetime\ndatetime\n.", reason.HostilePickle},
		{"reconstruction of a dictionary", "ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.", reason.HostilePickle},
		{"NEWOBJ of a date", "cdatetime\ndate\n)\x81.", reason.HostilePickle},
		{"builtins under a made-up module", "cbuiltins.x\nset\n]\x85R.", reason.HostilePickle},
		{"out-of-band buffer", "\x80\x05\x97.", reason.HostilePickle},
		{"the codec that runs anything", "c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", reason.HostilePickle},

		{"long integer of a megabyte", "\x8b" + u32(1<<20) + strings.Repeat("\x7f", 1<<20) + ".", reason.ResourceLimit},
		{"decimal integer of a megabyte", "L" + strings.Repeat("9", 1<<20) + "L\n.", reason.ResourceLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v, err := pickle.Decode([]byte(c.pickle)); !errors.Is(err, c.want) {
				t.Errorf("%s, %v; want %s", value.MarshalTagged(v), err, c.want)
			}
		})
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestBombsAreRefusedWithoutSpendingMuch(t *testing.T) {
	// Each level refers twice to the one below.
	doubling := func(levels int, leaf, open, shut string) string {
		var b strings.Builder
		b.WriteString(leaf + "q\x000")
		for i := range levels {
			b.WriteString(open)
			b.WriteString("h" + string(rune(i)) + "h" + string(rune(i)))
			b.WriteString(shut + "q" + string(rune(i+1)) + "0")
		}
		b.WriteString("h" + string(rune(levels)) + ".")
		return b.String()
	}
	sized := func(op string, n int) string {
		return op + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) + strings.Repeat("7", n)
	}
	text := func(n int) string { return sized("X", n) }
	py2 := func(n int) string { return sized("T", n) }
	shared := func(value string) string { return value + "q\x000" }
	megabyte := "X\x00\x00\x10\x00" + strings.Repeat("x", 1<<20)
	for name, bomb := range map[string]string{
		"lists that double":             doubling(100, "]", "](", "e"),
		"tuples that double":            doubling(100, ")", "", "\x86"),
		"tuples that double, as a key":  "}" + strings.TrimSuffix(doubling(100, ")", "", "\x86"), ".") + "Ns.",
		"frozen sets in each other":     "}" + strings.TrimSuffix(doubling(100, "K\x01", "(", "\x91"), ".") + "Ns.",
		"a long text used again":        megabyte + "q\x000](" + strings.Repeat("h\x00", 100) + "e.",
		"a deep list":                   strings.Repeat("]", 100_000) + strings.Repeat("a", 99_999) + ".",
		"deep tuples":                   ")" + strings.Repeat("\x85", 100_000) + ".",
		"a list in itself":              "]q\x00h\x00h\x00\x86a.",
		"a dictionary in itself":        "}q\x00K\x01h\x00s.",
		"a million values":              "](" + strings.Repeat("N", 1_000_000) + "e.",
		"a million containers":          "](" + strings.Repeat("}", 1_000_000) + "e.",
		"a million memo entries":        "N" + strings.Repeat("\x94", 1_000_000) + ".",
		"a million copies":              "N" + strings.Repeat("2", 1_000_000) + ".",
		"a long list made a set, often": "](" + strings.Repeat("K\x01", 50_000) + "eq\x000(" + strings.Repeat("c__builtin__\nset\nh\x00\x85R", 5000) + "t.",
		"bytes made bytes, often":       megabyte + "q\x000(" + strings.Repeat("c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R", 5000) + "t.",
		"bytearrays, often":             "B\x00\x00\x10\x00" + strings.Repeat("x", 1<<20) + "q\x000(" + strings.Repeat("c__builtin__\nbytearray\nh\x00\x85R", 5000) + "t.",
		"ordered dictionaries, often":   "](" + strings.Repeat("]K\x01aK\x01a", 20_000) + "eq\x000(" + strings.Repeat("ccollections\nOrderedDict\nh\x00\x85R", 5000) + "t.",
		"one UUID's state, often":       shared("}("+py2(5000)+strings.Repeat("q\x02Nh\x02", 500)+"Nu") + "cuuid\nUUID\n)\x81" + strings.Repeat("h\x00b", 2500) + ".",
		"one UUID's number, often": shared("}("+strings.Repeat("X\x03\x00\x00\x00intK\x01", 2000)+"u") + "cuuid\nUUID\n)\x81" +
			strings.Repeat("h\x00b", 20_000) + ".",
		"decimals of one Python 2 string": shared(py2(9999)) + "](" + strings.Repeat("cdecimal\nDecimal\nh\x00\x85R", 20_000) + "e.",
		"decimals of one text":            shared(text(9999)) + "](" + strings.Repeat("cdecimal\nDecimal\nh\x00\x85R", 20_000) + "e.",
		"decimals that are dropped":       shared(text(9999)) + "cdecimal\nDecimal\nq\x01" + strings.Repeat("h\x01h\x00\x85R0", 20_000) + ".",
		"entities of one state": shared(py2(1<<20)) + "](" +
			strings.Repeat("(igoogle.appengine.datastore.entity_pb\nEntityProto\nh\x00b", 10_000) + "e.",
		"a long text in sets in each other": "}" + strings.Repeat("(", 15) + text(3<<20) + strings.Repeat("\x91", 15) + "Ns.",
		"one large integer as a key, often": shared("\x8b\x00\x10\x00\x00"+strings.Repeat("\x7f", 4096)) + "}(" + strings.Repeat("h\x00N", 50_000) + "u.",
		"too long":                          strings.Repeat("N0", 3<<20) + "N.",
	} {
		t.Run(name, func(t *testing.T) {
			input := []byte(bomb)
			var err error
			spent := allocated(func() { _, err = pickle.Decode(input) })
			if !errors.Is(err, reason.ResourceLimit) {
				t.Errorf("got %v", err)
			}
			if spent > 64<<20 {
				t.Errorf("allocated %d MiB for %d KiB", spent>>20, len(input)>>10)
			}
			t.Logf("%d KiB of input, %d KiB allocated", len(input)>>10, spent>>10)
		})
	}
}

func TestADeclaredLengthIsNotBelieved(t *testing.T) {
	for _, p := range []string{
		"X\xff\xff\xff\x7f", "T\xff\xff\xff\x7f", "B\xff\xff\xff\x7f", "\x8b\xff\xff\xff\x7f",
		"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", "\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "\x96\x00\x00\x00\x00\x01\x00\x00\x00",
		"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		var err error
		if spent := allocated(func() { _, err = pickle.Decode([]byte(p + "abc.")) }); spent > 1<<20 || !errors.Is(err, reason.Decode) {
			t.Errorf("%q: %v with %d bytes allocated", p, err, spent)
		}
	}
}

func TestLimitsCanBeSet(t *testing.T) {
	nested := []byte("]]K\x01aa.")
	for _, c := range []struct {
		limits pickle.Limits
		ok     bool
	}{
		{pickle.Limits{}, true},
		{pickle.Limits{Depth: 2, Nodes: 3, Bytes: 7}, true},
		{pickle.Limits{Depth: 1}, false},
		{pickle.Limits{Nodes: 2}, false},
		{pickle.Limits{Bytes: 6}, false},
	} {
		if _, err := c.limits.Decode(nested); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.limits, err)
		}
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	huge := new(big.Int).Lsh(big.NewInt(1), 3000)
	for _, v := range []any{
		nil, true, false, "", "é😀", value.Surrogates("\xed\xa0\xbd"),
		[]byte{},
		[]byte{0, 127, 128, 255},
		int64(0), int64(255), int64(256), int64(65535), int64(65536), int64(-1), int64(math.MinInt32), int64(math.MaxInt32) + 1,
		int64(math.MinInt64), int64(math.MaxInt64), huge, new(big.Int).Neg(huge), big.NewInt(math.MaxInt64),
		0.0, math.Copysign(0, -1), math.Inf(1), math.NaN(), 1.5e300,
		[]any{},
		[]any{int64(1), []any{nil}},
		value.Tuple{},
		value.Tuple{"a"},
		value.Tuple{"a", "b"},
		value.Tuple{"a", "b", "c"},
		value.Tuple{"a", "b", "c", "d"},
		value.NewDict(), dict(t, "a", nil, int64(2), "b", value.Tuple{int64(1)}, true),
		value.Set{},
		value.Set{Items: []any{"x", int64(1)}},
		value.Set{Items: []any{nil}, Frozen: true},
		value.DateTime{Year: 2014, Month: 12, Day: 31, Hour: 23, Minute: 59, Second: 58, Microsecond: 999_999},
		value.DateTime{Year: 2014, Month: 1, Day: 1, Aware: true, Offset: -90 * time.Minute},
		value.Date{Year: 9999, Month: 12, Day: 31},
		value.Time{Hour: 23, Microsecond: 65536},
		value.TimeDelta{Days: -1, Seconds: 86399, Microseconds: 999_999},
		value.Decimal("-1.5E+7"), value.Decimal("NaN"),
		value.UUID{},
		value.UUID{0xff, 15: 1},
		complex(1, -2.5),
		value.Object{Class: value.EntityProto, State: []byte{1, 255}},
	} {
		b, err := pickle.Encode(v)
		if err != nil {
			t.Errorf("%#v: %v", v, err)
			continue
		}
		got, err := pickle.Decode(b)
		if err != nil || !value.Equal(got, mustOf(t, v)) {
			t.Errorf("%#v is read back as %#v, %v", v, got, err)
		}
	}
}

func mustOf(t *testing.T, v any) any {
	t.Helper()
	out, err := value.Of(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatPythonCouldNotReadIsNotWritten(t *testing.T) {
	loop := []any{nil}
	loop[0] = loop
	for _, v := range []any{
		"\xff", make(chan int), loop,
		value.Date{Year: 0, Month: 1, Day: 1},
		value.Time{Hour: 24},
		value.DateTime{},
		value.DateTime{Year: 2014, Month: 1, Day: 1, Aware: true, Offset: 24 * time.Hour},
		value.Decimal("one"),
		value.Object{Class: "os.system"},
		dict(t, "k", make(chan int)),
		value.Tuple{make(chan int)},
		value.Set{Items: []any{make(chan int)}},
	} {
		if b, err := pickle.Encode(v); !errors.Is(err, value.ErrUnsupported) {
			t.Errorf("%#v is written as %q, %v", v, b, err)
		}
	}
}

func TestNativeTextIsStrInEitherPython(t *testing.T) {
	got, err := pickle.Encode([]any{pickle.Native("abc")})
	if err != nil || string(got) != "\x80\x02](T\x03\x00\x00\x00abce." {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := pickle.Encode(pickle.Native("é")); !errors.Is(err, value.ErrUnsupported) {
		t.Errorf("beyond ASCII: %v", err)
	}
}

func TestTheWritersFormIsStable(t *testing.T) {
	// What is shared with Python processes must not change by accident.
	d := dict(t, "user", "é", "n", []any{int64(1), int64(300), int64(-1), 1.5, true, nil}, "raw", []byte{0xFF})
	want := "\x80\x02}(X\x04\x00\x00\x00userX\x02\x00\x00\x00\xc3\xa9" +
		"X\x01\x00\x00\x00n](K\x01M,\x01J\xff\xff\xff\xffG\x3f\xf8\x00\x00\x00\x00\x00\x00\x88Ne" +
		"X\x03\x00\x00\x00rawc_codecs\nencode\nX\x02\x00\x00\x00\xc3\xbfX\x06\x00\x00\x00latin1\x86Ru."
	got, err := pickle.Encode(d)
	if err != nil || string(got) != want {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
}
