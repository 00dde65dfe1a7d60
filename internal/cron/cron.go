// Package cron says when an expression such as "TZ=Europe/Berlin 30 2 * * *"
// comes due. The five fields are those of crontab(5): lists, ranges, steps, names
// of months and days, 7 for Sunday, and a day that matches either of two
// restricted day fields. @hourly to @yearly stand for their expressions. Without
// a zone it is UTC, on every machine.
//
// When clocks change, the rule is that of Debian's and ISC's cron(8). An expression
// that names its hours and minutes comes due once a day: in the hour that is
// skipped, at the end of the gap; in the hour that is repeated, the first time
// only. One with a star in its minutes or hours follows the clock on the wall: what
// is skipped does not come, what is repeated comes twice.
package cron

import (
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // an expression that was accepted must mean the same on a machine without a zone database

	gocron "github.com/netresearch/go-cron"

	"tategu/internal/resource"
)

// Cron is a checked expression.
type Cron struct {
	spec  *gocron.SpecSchedule // its bit sets alone are read: its own Next knows other rules
	zone  *time.Location
	fixed bool // no star in minutes and hours
}

// horizon is how far a search goes. The rarest date, February 29, is at most
// eight years away.
const horizon = 10 * 366 * 24 * time.Hour

// maxYear is the last that a Timestamp can hold.
const maxYear = 9999

const hint = "want MINUTE HOUR DAY MONTH WEEKDAY such as 30 2 * * 1-5, after an optional TZ=ZONE with a name of the IANA time zone database"

// Parse checks an expression. The error is about the field named.
func Parse(field, text string) (Cron, error) {
	fields, zone, err := cutZone(field, text)
	if err != nil {
		return Cron{}, err
	}
	parser, err := gocron.TryNewParser(gocron.Minute | gocron.Hour | gocron.Dom | gocron.Month | gocron.Dow | gocron.Descriptor | gocron.DowOrDom)
	if err != nil {
		return Cron{}, err
	}
	parsed, err := parser.Parse(fields)
	if err != nil {
		return Cron{}, resource.Invalid(field, "%q is not a cron expression: %w", text, err).WithHint(hint)
	}
	spec, ok := parsed.(*gocron.SpecSchedule)
	if !ok {
		return Cron{}, resource.Invalid(field, "%q names an interval and no times", text).WithHint(hint)
	}
	if slices.Contains([]uint64{spec.Minute, spec.Hour, spec.Dom, spec.Month, spec.Dow}, 0) {
		return Cron{}, resource.Invalid(field, "%q has an empty field", text).WithHint(hint)
	}
	spec.Dow = gocron.NormalizeDOW(spec.Dow)
	c := Cron{spec: spec, zone: zone, fixed: fixed(fields)}
	if c.Next(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, resource.Invalid(field, "%q names a date that never comes", text)
	}
	return c, nil
}

// cutZone takes the zone off an expression. The library would take "Local" too.
func cutZone(field, text string) (fields string, zone *time.Location, err error) {
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, "CRON_TZ=")
	if !ok {
		rest, ok = strings.CutPrefix(text, "TZ=")
	}
	if !ok {
		return text, time.UTC, nil
	}
	name, fields := rest, ""
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		name, fields = rest[:i], strings.TrimSpace(rest[i:])
	}
	if strings.Contains(fields, "TZ=") {
		return "", nil, resource.Invalid(field, "%q names two time zones", text).WithHint(hint)
	}
	if name == "" || name == "Local" {
		return "", nil, resource.Invalid(field, "%q is not a time zone", name).WithHint(hint)
	}
	if zone, err = time.LoadLocation(name); err != nil {
		return "", nil, resource.Invalid(field, "time zone %q: %w", name, err).WithHint(hint)
	}
	return fields, zone, nil
}

func fixed(fields string) bool {
	if strings.HasPrefix(fields, "@") {
		return fields != "@hourly"
	}
	f := strings.Fields(fields)
	return !strings.ContainsAny(f[0]+f[1], "*?")
}

// Next gives the first time after a time, or zero when none comes any more.
func (c Cron) Next(after time.Time) time.Time {
	next := c.nextWild
	if c.fixed {
		next = c.nextFixed
	}
	t := next(after)
	if t.Year() > maxYear {
		return time.Time{}
	}
	return t
}

// Latest gives the last time that is not after until. first is a time of c and
// not after until.
func (c Cron) Latest(first, until time.Time) time.Time {
	span := until.Sub(first)
	for back := time.Minute; back > 0 && back < span; back *= 2 {
		if t := c.Next(until.Add(-back)); !t.IsZero() && !t.After(until) {
			first = t
			break
		}
	}
	for {
		t := c.Next(first)
		if t.IsZero() || t.After(until) {
			return first
		}
		first = t
	}
}

// star is set in the bits of a day field that restricts nothing.
const star = 1 << 63

func (c Cron) onDay(t time.Time) bool {
	if !has(c.spec.Month, int(t.Month())) {
		return false
	}
	dom, dow := has(c.spec.Dom, t.Day()), has(c.spec.Dow, int(t.Weekday()))
	if (c.spec.Dom|c.spec.Dow)&star != 0 {
		return dom && dow
	}
	return dom || dow
}

func has(bits uint64, n int) bool { return bits>>n&1 != 0 }

// nextWild walks along the clock on the wall, over what cannot match.
func (c Cron) nextWild(after time.Time) time.Time {
	t := minute(after.In(c.zone).Truncate(time.Second).Add(time.Second))
	for end := t.Add(horizon); t.Before(end); {
		past := time.Duration(t.Minute()) * time.Minute
		switch {
		case !c.onDay(t):
			t = skip(t, 24*time.Hour-time.Duration(t.Hour())*time.Hour-past)
		case !has(c.spec.Hour, t.Hour()):
			t = skip(t, time.Hour-past)
		case !has(c.spec.Minute, t.Minute()):
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// skip moves on, at most to where the clock is changed: the wall may show there
// again what lies behind. On the last day of leap years after 2037 ZoneBounds gives
// an end that is past (go1.26).
func skip(t time.Time, d time.Duration) time.Time {
	to := t.Add(d)
	if _, change := t.ZoneBounds(); change.After(t) && to.After(change) {
		return minute(change)
	}
	return to
}

// minute rounds up: zones of long ago were changed within minutes.
func minute(t time.Time) time.Time {
	if s := t.Second(); s != 0 {
		return t.Add(time.Duration(60-s) * time.Second)
	}
	return t
}

// nextFixed goes through the days and their times as the calendar has them.
func (c Cron) nextFixed(after time.Time) time.Time {
	y, m, d := after.In(c.zone).Date()
	day := time.Date(y, m, d-1, 0, 0, 0, 0, time.UTC)
	for end := day.Add(horizon); day.Before(end); day = day.AddDate(0, 0, 1) {
		if !c.onDay(day) {
			continue
		}
		for h := range 24 {
			for i := 0; has(c.spec.Hour, h) && i < 60; i++ {
				if !has(c.spec.Minute, i) {
					continue
				}
				if t := c.instant(day.Add(time.Duration(h)*time.Hour + time.Duration(i)*time.Minute)); t.After(after) {
					return t
				}
			}
		}
	}
	return time.Time{}
}

// instant is when the wall shows a time, which is given as if it were UTC: the
// first of two, and the end of the gap for one that is skipped.
func (c Cron) instant(wall time.Time) time.Time {
	y, m, d := wall.Date()
	t := time.Date(y, m, d, wall.Hour(), wall.Minute(), 0, 0, c.zone)
	start, end := t.ZoneBounds()
	if shows(t).Equal(wall) {
		if first := wall.Add(-offset(start.Add(-1))); !start.IsZero() && first.Before(start) {
			return first.In(c.zone)
		}
		return t
	}
	for _, change := range []time.Time{start, end} {
		if !change.IsZero() && !wall.Before(change.Add(offset(change.Add(-1)))) && wall.Before(shows(change)) {
			return change
		}
	}
	return t
}

// shows is what the wall shows, as if it were UTC.
func shows(t time.Time) time.Time { return t.Add(offset(t)).UTC() }

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}
