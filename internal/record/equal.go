package record

import "bytes"

// Equal reports whether two records have the same fields among those that keep
// selects: the same names, flags, expiry and values. Values that the records
// share are not opened. A damaged value equals only itself.
func Equal(a, b *Record, keep func(f *Field) bool) bool {
	left, right := a.Frames(), b.Frames()
	for {
		left, right = skip(left, keep), skip(right, keep)
		if len(left) == 0 || len(right) == 0 {
			return len(left) == len(right)
		}
		f, g := &left[0], &right[0]
		if f.Name != g.Name || f.Flags != g.Flags || f.Expiry != g.Expiry || !sameValue(a, f, b, g) {
			return false
		}
		left, right = left[1:], right[1:]
	}
}

// skip returns the fields from the first one on that is selected.
func skip(fields []Field, keep func(f *Field) bool) []Field {
	for len(fields) > 0 && !keep(&fields[0]) {
		fields = fields[1:]
	}
	return fields
}

func sameValue(a *Record, f *Field, b *Record, g *Field) bool {
	if a.isLate(f) && b.isLate(g) && a.late == b.late && f.at == g.at {
		return true
	}
	v, w := a.value(f), b.value(g)
	damaged := v == nil && a.isLate(f) || w == nil && b.isLate(g)
	return !damaged && bytes.Equal(v, w)
}
