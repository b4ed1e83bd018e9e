package pickle_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// recorded is one pickle that a real Python wrote, or an attack on one.
type recorded struct {
	Name   string `json:"name"`
	Pickle string `json:"pickle_base64"`
	Expect struct {
		Valid  bool            `json:"valid"`
		Data   json.RawMessage `json:"data"`
		Reason reason.Reason   `json:"reason"`
	} `json:"expect"`
	Optional bool `json:"optional"`
}

func recordedPickles(t testing.TB) []recorded {
	t.Helper()
	raw, err := os.ReadFile("../testdata/pickles.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []recorded }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Cases
}

func (r recorded) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(r.Pickle)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordedPicklesDecodeToTheirDataOrAreRefused(t *testing.T) {
	for _, c := range recordedPickles(t) {
		t.Run(c.Name, func(t *testing.T) {
			got, err := pickle.Decode(c.bytes(t))
			if !c.Expect.Valid {
				if err == nil {
					if c.Optional {
						return
					}
					t.Fatalf("accepted as %s, want %s", value.MarshalTagged(got), c.Expect.Reason)
				}
				if !errors.Is(err, c.Expect.Reason) {
					t.Errorf("refused with %q, want %s", err, c.Expect.Reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want, err := value.ParseTagged(c.Expect.Data)
			if err != nil {
				t.Fatal(err)
			}
			again, err := value.ParseTagged(value.MarshalTagged(got))
			if err != nil {
				t.Fatal(err)
			}
			if !value.Equal(again, want) {
				t.Errorf("got  %s\nwant %s", value.MarshalTagged(got), c.Expect.Data)
			}
		})
	}
	pwned, err := filepath.Glob(filepath.Join(os.TempDir(), "vec_pwned_*"))
	if err != nil || len(pwned) != 0 {
		t.Errorf("a hostile pickle was executed: %v %v", pwned, err)
	}
}

func TestWhatWasDecodedSurvivesWritingAndReading(t *testing.T) {
	for _, c := range recordedPickles(t) {
		if !c.Expect.Valid {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			first, err := pickle.Decode(c.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			written, err := pickle.Encode(first)
			if err != nil {
				t.Fatal(err)
			}
			second, err := pickle.Decode(written)
			if err != nil {
				t.Fatal(err)
			}
			if !value.Equal(first, second) {
				t.Errorf("wrote %s\nread  %s", value.MarshalTagged(first), value.MarshalTagged(second))
			}
		})
	}
}
