package value

import (
	"fmt"
	"time"
)

// DateTime is a point on the calendar with microseconds. Without Aware it has
// no time zone, as in nearly all sessions; these applications ran on UTC.
type DateTime struct {
	Year, Month, Day                  int
	Hour, Minute, Second, Microsecond int
	Fold                              bool           // the second of two equal wall-clock times
	Aware                             bool           // Offset is set
	Offset                            time.Duration  // from UTC; whole microseconds
	Zone                              *time.Location // the time zone if it has an IANA name, and Aware is set; else nil
}

// Date is a calendar day.
type Date struct{ Year, Month, Day int }

// Time is a time of day, mostly without a time zone.
type Time struct {
	Hour, Minute, Second, Microsecond int
	Fold                              bool
	Aware                             bool          // Offset is set
	Offset                            time.Duration // from UTC; whole microseconds
	// Zone is the time zone if it has an IANA name. Its offset depends on the
	// day, so Aware is not set then.
	Zone *time.Location
}

// TimeDelta is a span of time, normalized as Python does it: Seconds is 0 to
// 86399 and Microseconds 0 to 999999; only Days may be negative.
type TimeDelta struct{ Days, Seconds, Microseconds int64 }

// DateTimeOf returns t in UTC as a naive DateTime, truncated to microseconds.
func DateTimeOf(t time.Time) DateTime {
	t = t.UTC()
	return DateTime{
		Year: t.Year(), Month: int(t.Month()), Day: t.Day(),
		Hour: t.Hour(), Minute: t.Minute(), Second: t.Second(), Microsecond: t.Nanosecond() / 1000,
	}
}

// Time returns the instant; a naive DateTime is taken as UTC.
func (d DateTime) Time() time.Time {
	t := time.Date(d.Year, time.Month(d.Month), d.Day, d.Hour, d.Minute, d.Second, d.Microsecond*1000, time.UTC)
	if d.Aware {
		return t.Add(-d.Offset)
	}
	return t
}

// Valid reports whether all parts are in range and the day exists.
func (d DateTime) Valid() bool {
	return Date{d.Year, d.Month, d.Day}.Valid() && d.clock().Valid()
}

// String returns the ISO 8601 form that Python's isoformat gives.
func (d DateTime) String() string {
	return Date{d.Year, d.Month, d.Day}.String() + "T" + d.clock().String()
}

func (d DateTime) clock() Time {
	return Time{
		Hour: d.Hour, Minute: d.Minute, Second: d.Second, Microsecond: d.Microsecond,
		Fold: d.Fold, Aware: d.Aware, Offset: d.Offset,
	}
}

// Valid reports whether the day exists in years 1 to 9999.
func (d Date) Valid() bool {
	if d.Year < 1 || d.Year > 9999 || d.Month < 1 || d.Month > 12 || d.Day < 1 {
		return false
	}
	return time.Date(d.Year, time.Month(d.Month), d.Day, 0, 0, 0, 0, time.UTC).Day() == d.Day
}

// String returns the day as YYYY-MM-DD.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// Valid reports whether all parts are in range.
func (t Time) Valid() bool {
	return t.Hour >= 0 && t.Hour < 24 && t.Minute >= 0 && t.Minute < 60 && t.Second >= 0 && t.Second < 60 &&
		t.Microsecond >= 0 && t.Microsecond < 1_000_000 &&
		(!t.Aware || t.Offset > -24*time.Hour && t.Offset < 24*time.Hour && t.Offset%time.Microsecond == 0)
}

// String returns HH:MM:SS, with microseconds if there are any, and with the offset
// if it is known.
func (t Time) String() string {
	s := fmt.Sprintf("%02d:%02d:%02d", t.Hour, t.Minute, t.Second)
	if t.Microsecond != 0 {
		s += fmt.Sprintf(".%06d", t.Microsecond)
	}
	if !t.Aware {
		return s
	}
	off, sign := t.Offset.Microseconds(), "+"
	if off < 0 {
		off, sign = -off, "-"
	}
	sec, us := off/1_000_000, off%1_000_000
	s += fmt.Sprintf("%s%02d:%02d", sign, sec/3600, sec/60%60)
	if sec%60 != 0 || us != 0 {
		s += fmt.Sprintf(":%02d", sec%60)
	}
	if us != 0 {
		s += fmt.Sprintf(".%06d", us)
	}
	return s
}

// maxDays is the range of Python's timedelta.
const maxDays = 999_999_999

// NewTimeDelta returns the normalized span, and whether it is in the range of
// Python's timedelta.
func NewTimeDelta(days, seconds, microseconds int64) (TimeDelta, bool) {
	const limit = 1 << 60 // keeps the carries below from overflowing
	for _, n := range []int64{days, seconds, microseconds} {
		if n > limit || n < -limit {
			return TimeDelta{}, false
		}
	}
	carry, us := floorDiv(microseconds, 1_000_000)
	carry, s := floorDiv(seconds+carry, 86_400)
	days += carry
	return TimeDelta{days, s, us}, days >= -maxDays && days <= maxDays
}

// TimeDeltaOf returns d truncated to microseconds.
func TimeDeltaOf(d time.Duration) TimeDelta {
	td, _ := NewTimeDelta(0, 0, d.Microseconds())
	return td
}

// Duration returns the span, and false if it does not fit (292 years).
func (d TimeDelta) Duration() (time.Duration, bool) {
	const limit = int64(time.Duration(1<<63-1) / (24 * time.Hour))
	if d.Days >= limit || d.Days <= -limit {
		return 0, false
	}
	return time.Duration(d.Days)*24*time.Hour + time.Duration(d.Seconds)*time.Second + time.Duration(d.Microseconds)*time.Microsecond, true
}

// String returns the span as Python's str does, such as "-1 day, 23:59:59.000001".
func (d TimeDelta) String() string {
	s := fmt.Sprintf("%d:%02d:%02d", d.Seconds/3600, d.Seconds/60%60, d.Seconds%60)
	if d.Microseconds != 0 {
		s += fmt.Sprintf(".%06d", d.Microseconds)
	}
	switch d.Days {
	case 0:
		return s
	case 1, -1:
		return fmt.Sprintf("%d day, %s", d.Days, s)
	}
	return fmt.Sprintf("%d days, %s", d.Days, s)
}

// floorDiv divides towards minus infinity; the rest is never negative.
func floorDiv(a, b int64) (q, r int64) {
	q, r = a/b, a%b
	if r < 0 {
		q, r = q-1, r+b
	}
	return q, r
}

// In returns a naive DateTime as one in a time zone that has an IANA name. Of
// two instants with that wall-clock time, Fold chooses; a skipped time has the
// offset before the change, or with Fold the one after it (PEP 495).
func (d DateTime) In(zone *time.Location) DateTime {
	const day = 24 * 60 * 60
	wall := time.Date(d.Year, time.Month(d.Month), d.Day, d.Hour, d.Minute, d.Second, 0, time.UTC).Unix()
	offset := func(unix int64) int64 {
		_, off := time.Unix(unix, 0).In(zone).Zone()
		return int64(off)
	}
	before, after := offset(wall-day), offset(wall+day)
	off := before
	isBefore, isAfter := offset(wall-before) == before, offset(wall-after) == after
	if isAfter && !isBefore || isAfter == isBefore && d.Fold {
		off = after
	}
	d.Aware, d.Offset, d.Zone = true, time.Duration(off)*time.Second, zone
	return d
}
