package cron

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func mustParse(tb testing.TB, text string) Cron {
	tb.Helper()
	c, err := Parse("cron", text)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// times gives the first n times after a time, as their zone's wall shows them.
func times(c Cron, after time.Time, n int) []string {
	var out []string
	for t := after; len(out) < n; {
		if t = c.Next(t); t.IsZero() {
			return append(out, "never")
		}
		out = append(out, t.In(c.zone).Format("02T15:04-0700"))
	}
	return out
}

func TestNextAcrossClockChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, cron, after, want string }{
		// Berlin skips 02:00-03:00 on March 29 and repeats it on October 25.
		{"skipped hour, fixed: at the end of the gap", "TZ=Europe/Berlin 30 2 * * *", "2026-03-27T12:00:00Z", "28T02:30+0100 29T03:00+0200 30T02:30+0200"},
		{"skipped hour, several times in it come together", "TZ=Europe/Berlin 0,30 2,3 * * *", "2026-03-28T12:00:00Z", "29T03:00+0200 29T03:30+0200 30T02:00+0200"},
		{"skipped hour, every hour", "TZ=Europe/Berlin 0 * * * *", "2026-03-28T23:30:00Z", "29T01:00+0100 29T03:00+0200 29T04:00+0200"},
		{"skipped hour, star in the minutes: not that day", "TZ=Europe/Berlin */30 2 * * *", "2026-03-28T12:00:00Z", "30T02:00+0200 30T02:30+0200"},
		{"repeated hour, fixed: once", "TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "25T02:30+0200 26T02:30+0100"},
		{"repeated hour, asked within its second time", "TZ=Europe/Berlin 30 2 * * *", "2026-10-25T01:10:00Z", "26T02:30+0100"},
		{"repeated hour, every hour: twice", "TZ=Europe/Berlin 0 * * * *", "2026-10-24T23:30:00Z", "25T02:00+0200 25T02:00+0100 25T03:00+0100"},
		{"repeated hour, star in the minutes: twice", "TZ=Europe/Berlin */30 2 * * *", "2026-10-24T12:00:00Z", "25T02:00+0200 25T02:30+0200 25T02:00+0100 25T02:30+0100 26T02:00+0100"},
		// New York, by the other prefix.
		{"New York in spring", "CRON_TZ=America/New_York 30 2 * * *", "2026-03-07T12:00:00Z", "08T03:00-0400 09T02:30-0400"},
		{"New York in autumn", "CRON_TZ=America/New_York 30 1 * * *", "2026-10-31T12:00:00Z", "01T01:30-0400 02T01:30-0500"},
		// Lord Howe moves by half an hour; Sao Paulo skipped midnight; Samoa skipped a day.
		{"half an hour skipped", "TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-02T00:00:00Z", "03T02:15+1030 04T02:30+1100 05T02:15+1100"},
		{"half an hour repeated", "TZ=Australia/Lord_Howe */15 1 * * *", "2026-04-04T13:50:00Z", "05T01:00+1100 05T01:15+1100 05T01:30+1100 05T01:45+1100 05T01:30+1030 05T01:45+1030 06T01:00+1030"},
		{"midnight skipped", "TZ=America/Sao_Paulo 0 0 * * *", "2018-11-02T12:00:00Z", "03T00:00-0300 04T01:00-0200 05T00:00-0200"},
		{"an hour after a skipped midnight on that day alone", "TZ=America/Sao_Paulo 0 1 4 11 *", "2018-11-03T12:00:00Z", "04T01:00-0200"},
		{"a whole day skipped", "TZ=Pacific/Apia 0 12 * * *", "2011-12-29T12:00:00Z", "29T12:00-1000 31T00:00+1400 31T12:00+1400"},
		{"midnight repeated by the day before", "TZ=America/Sao_Paulo 30 * * * *", "2018-02-18T01:00:00Z", "17T23:30-0200 17T23:30-0300 18T00:30-0300"},
		// No change of clocks.
		{"without a zone it is UTC", "30 2 * * *", "2026-03-28T12:00:00Z", "29T02:30+0000 30T02:30+0000"},
		{"Sunday is 0 and 7", "0 0 * * 5-7", "2026-11-26T00:00:00Z", "27T00:00+0000 28T00:00+0000 29T00:00+0000 04T00:00+0000"},
		{"either day field", "0 0 13 * fri", "2026-11-26T00:00:00Z", "27T00:00+0000 04T00:00+0000 11T00:00+0000 13T00:00+0000"},
		{"the rarest date", "0 0 29 2 *", "2096-03-01T00:00:00Z", "29T00:00+0000"},
		{"the rarest date in a zone", "TZ=Europe/Berlin * 0 29 2 *", "2096-03-01T00:00:00Z", "29T00:00+0100 29T00:01+0100"},
		{"@daily", "TZ=Asia/Kolkata @daily", "2026-11-26T00:00:00Z", "27T00:00+0530"},
		{"@hourly follows the wall", "TZ=Europe/Berlin @hourly", "2026-10-24T23:30:00Z", "25T02:00+0200 25T02:00+0100"},
		{"strictly after", "* * * * *", "2026-11-26T10:00:00Z", "26T10:01+0000"},
		{"after a part of a minute", "* * * * *", "2026-11-26T10:00:59.999Z", "26T10:01+0000"},
		{"no more time", "0 0 1 1 *", "9999-06-01T00:00:00Z", "never"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			after, err := time.Parse(time.RFC3339, tt.after)
			if err != nil {
				t.Fatal(err)
			}
			got := times(mustParse(t, tt.cron), after, len(strings.Fields(tt.want)))
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%s after %s:\n got %s\nwant %s", tt.cron, tt.after, strings.Join(got, " "), tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, part := range map[string]string{
		"": "empty", "* * * *": "5 fields", "* * * * * *": "5 fields", "60 * * * *": "60", "* * 0 * *": "0",
		"* * * * 8": "8", "@every 5m": "interval", "@reboot": "reboot", "0 0 30 2 *": "never comes", ", * * * *": "empty field",
		"TZ=UTC": "", "TZ= * * * * *": "time zone", "TZ=Local * * * * *": "Local", "TZ=../etc/passwd * * * * *": "time zone",
		"TZ=Mars/Base * * * * *": "Mars/Base", "CRON_TZ=UTC TZ=UTC * * * * *": "two time zones", "H * * * *": "h expressions",
		"TZ=UTC 0 0 L * *": "L", "*/0 * * * *": "positive", "5-x * * * *": "x",
	} {
		_, err := Parse("schedule.cron", text)
		if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v does not name %q", text, err, part)
		}
	}
}

// instants is the definition that Next must agree with, found by looking at
// every minute: when the wall shows a matching time, and for fixed expressions the
// first time only, and the end of the gap that holds a matching time.
func instants(c Cron, from, to time.Time) []time.Time {
	var out []time.Time
	seen := map[time.Time]bool{}
	matches := func(wall time.Time) bool {
		return c.onDay(wall) && has(c.spec.Hour, wall.Hour()) && has(c.spec.Minute, wall.Minute())
	}
	before := shows(from.Add(-48 * time.Hour).In(c.zone))
	for t := from.Add(-48 * time.Hour); t.Before(to); t = t.Add(time.Minute) {
		wall := shows(t.In(c.zone))
		due := matches(wall) && (!c.fixed || !seen[wall])
		for gone := before.Add(time.Minute); c.fixed && gone.Before(wall); gone = gone.Add(time.Minute) {
			due = due || matches(gone)
		}
		seen[wall], before = true, wall
		if due && t.After(from) {
			out = append(out, t)
		}
	}
	return out
}

func TestNextAgreesWithEveryMinute(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 11))
	changes := []struct{ zone, day string }{
		{"Europe/Berlin", "2026-03-29"},
		{"Europe/Berlin", "2026-10-25"},
		{"America/New_York", "2026-03-08"},
		{"America/New_York", "2026-11-01"},
		{"Australia/Lord_Howe", "2026-04-05"},
		{"Australia/Lord_Howe", "2026-10-04"},
		{"America/Sao_Paulo", "2018-11-04"},
		{"America/Sao_Paulo", "2018-02-18"},
		{"America/St_Johns", "2010-03-14"},
		{"America/St_Johns", "2010-11-07"},
		{"Pacific/Apia", "2011-12-30"},
		{"Africa/Casablanca", "2026-02-15"},
		{"Asia/Kathmandu", "2026-01-01"},
	}
	field := func(low, high int) string {
		switch random.IntN(5) {
		case 0:
			return "*"
		case 1:
			return fmt.Sprintf("*/%d", 1+random.IntN(high/2+1))
		case 2:
			a, b := low+random.IntN(high-low+1), low+random.IntN(high-low+1)
			return fmt.Sprintf("%d-%d", min(a, b), max(a, b))
		case 3:
			return fmt.Sprintf("%d,%d", low+random.IntN(high-low+1), low+random.IntN(high-low+1))
		default:
			return strconv.Itoa(low + random.IntN(high-low+1))
		}
	}
	for range 400 {
		change := changes[random.IntN(len(changes))]
		text := fmt.Sprintf("TZ=%s %s %s * * %s", change.zone, field(0, 59), field(0, 3), []string{"*", "*", "0-3", "1,6,7"}[random.IntN(4)])
		c := mustParse(t, text)
		day, err := time.Parse(time.DateOnly, change.day)
		if err != nil {
			t.Fatal(err)
		}
		from := day.Add(-36*time.Hour + time.Duration(random.IntN(3600))*time.Second).Truncate(time.Minute)
		to := day.Add(60 * time.Hour)
		var got []time.Time
		for at := c.Next(from); !at.IsZero() && at.Before(to); at = c.Next(at) {
			got = append(got, at.UTC())
		}
		want := instants(c, from, to)
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Fatalf("%s from %s:\n got %v\nwant %v", text, from, got, want)
		}
		if len(got) > 0 {
			if last := c.Latest(got[0], to.Add(-time.Nanosecond)); !last.Equal(got[len(got)-1]) {
				t.Fatalf("%s: Latest(%s, %s) = %s, want %s", text, got[0], to, last, got[len(got)-1])
			}
		}
	}
}

func TestLatestOverLongTimes(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 11, 26, 10, 30, 30, 0, time.UTC)
	for text, want := range map[string]string{
		"* * * * *": "2026-11-26T10:30:00Z", "30 10 * * *": "2026-11-26T10:30:00Z", "31 10 * * *": "2026-11-25T10:31:00Z",
		"0 0 1 1 *": "2026-01-01T00:00:00Z", "* * * 1 *": "2026-01-31T23:59:00Z", "0 0 29 2 *": "2024-02-29T00:00:00Z",
	} {
		c := mustParse(t, text)
		if got := c.Latest(c.Next(time.Date(1995, 1, 1, 0, 0, 0, 0, time.UTC)), until); got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s, want %s", text, got.Format(time.RFC3339), want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"30 2 * * 1-5", "TZ=Europe/Berlin */15 0-6 1,15 jan-mar ?", "CRON_TZ=America/New_York 1 * * * *", "@yearly", "@every 1h",
		"TZ=UTC", "TZ=Local 0 0 * * *", "0 0 31 2 *", ",,,, , , , ,", "TZ=Pacific/Apia 0 12 30 12 *",
	} {
		f.Add(text, int64(1_790_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		c, err := Parse("cron", text)
		if err != nil {
			if resource.CodeOf(err) != codes.InvalidArgument {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		const year = 366 * 24 * 3600
		at := time.Unix(unix%(8000*year), 0) // up to what a Timestamp holds
		for range 3 {
			next := c.Next(at)
			if next.IsZero() {
				if at.Year() < maxYear-9 {
					t.Fatalf("%q: nothing after %s", text, at)
				}
				return
			}
			if !next.After(at) {
				t.Fatalf("%q: %s is not after %s", text, next, at)
			}
			if wall := next.In(c.zone); wall.Nanosecond() != 0 || !c.fixed && (!has(c.spec.Minute, wall.Minute()) || !has(c.spec.Hour, wall.Hour()) || !c.onDay(wall)) {
				t.Fatalf("%q: the wall shows %s", text, wall)
			}
			at = next
		}
	})
}
