package load

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func sample() *Result {
	return &Result{
		Alone: Alone{Requests: 100, P50: 900 * time.Microsecond, P99: 1500 * time.Microsecond}, Limit: 6500 * time.Microsecond,
		Knee: 400, Beyond: 412, Confirmed: true,
		Steps: []Step{
			{Purpose: Climb, Rate: 200, Sent: 600, Answered: 600, Good: 600, P50: time.Millisecond, P99: 2 * time.Millisecond, Max: 3 * time.Millisecond, Replicas: 2},
			{Purpose: Climb, Rate: 800, Sent: 100, Answered: 90, Good: 50, P50: 9 * time.Millisecond, P99: 120 * time.Millisecond, Failed: map[string]int{"429": 8, "timeout": 2}, Failure: "busy <now>", Cut: true, Why: "10 of 100 failed"},
			{Purpose: Confirm, Rate: 400, Sent: 1200, Answered: 1200, Good: 1198, P50: time.Millisecond, P99: 4 * time.Millisecond, Replicas: 2},
		},
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	r := sample()
	for i, want := range []string{
		"       200        200   1.00ms   2.00ms        0        2  yes",
		"       800        400   9.00ms    120ms    10.0%        -  no: 10 of 100 failed, ended early",
		"       400        399   1.00ms   4.00ms        0        2  yes, again",
	} {
		if got := Line(r.Steps[i]); got != want {
			t.Errorf("line %d is\n%s, want\n%s", i, got, want)
		}
	}
	got := strings.Join(r.Conclude(), "\n")
	const want = `A caller who is alone waits 900µs (p50), 1.50ms (p99). The limit is a p99 of 6.50ms.
The knee is at 400 requests a second; 412 did not hold.
Failed: 8 x 429, 2 x timeout; first: busy <now>`
	if got != want {
		t.Errorf("it concludes\n%s\nwant\n%s", got, want)
	}
	r.At = &Step{Late: 4 * time.Millisecond}
	r.Stopped, r.Confirmed = "interrupted", false
	got = strings.Join(r.Conclude(), "\n")
	for _, want := range []string{"ended before it was over: interrupted.", "not confirmed", "This program was late itself (by 4.00ms, p99)"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	page := sample().HTML(Title{ID: "7", Name: "<a & b>"}, []string{"Replicas: 1 < 2"})
	if strings.Contains(page, "<a & b>") || !strings.Contains(page, "Replicas: 1 &lt; 2") || !strings.Contains(page, "busy &lt;now&gt;") || strings.Count(page, "<tr>") != 4 {
		t.Errorf("the page is\n%s", page)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Summarize(sample(), Advice{PerReplica: 140, Concurrency: 3}, []Size{{Instances: 2, Median: time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"knee_rate":400`, `"limit_ms":6.5`, `"p99_ms":120`, `"failed":{"429":8,"timeout":2}`, `"rate_per_replica":140`, `{"instances":2,"median_ms":1}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	var got []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Authorization")+" "+string(body))
		if len(got) == 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error": {"code": 429, "message": "too many at once"}}`)
		}
	}))
	defer s.Close()
	e, err := NewEndpoint(EndpointConfig{
		Address: s.Listener.Addr().String(), Path: "/v1/x:predict", Bodies: [][]byte{[]byte("a"), []byte("b")},
		TLS:   s.Client().Transport.(*http.Transport).TLSClientConfig, //nolint:forcetypeassert // httptest's own
		Token: func(context.Context) (string, error) { return "secret", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for n := range 2 {
		if failure, detail := e.Do(t.Context(), n); failure != "" {
			t.Fatalf("%s: %s", failure, detail)
		}
	}
	if failure, detail := e.Do(t.Context(), 2); failure != "429" || detail != "too many at once" {
		t.Errorf("a refusal is %q: %q", failure, detail)
	}
	if want := "POST /v1/x:predict application/json Bearer secret b"; got[1] != want {
		t.Errorf("it was sent %q, want %q", got[1], want)
	}
	s.Close()
	if failure, _ := e.Do(t.Context(), 3); failure != "connection" {
		t.Errorf("a server that is gone is %q", failure)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sizes, err := Sizes(t.Context(), time.Second, 64, func(ctx context.Context, n int) (failure, detail string) {
			if n > 16 {
				return "400", "at most 16"
			}
			_ = pause(ctx, 10*time.Millisecond+time.Duration(n)*time.Millisecond)
			return "", ""
		})
		if err != nil || len(sizes) != 6 || sizes[4] != (Size{Instances: 16, Median: 26 * time.Millisecond}) || sizes[5].Failure != "400: at most 16" {
			t.Errorf("%+v, %v", sizes, err)
		}
		if n := bestSize(sizes, time.Second); n != 16 {
			t.Errorf("best is %d", n)
		}
		if n := bestSize(sizes, 20*time.Millisecond); n != 8 {
			t.Errorf("best within 20 ms is %d", n)
		}
	})
}

func TestReadInstances(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want, parameters, fails string }{
		{text: "[1,2]\n[3,4]\n", want: "[1,2] [3,4]"},
		{text: "[[1,2],[3,4]]", want: "[1,2] [3,4]"},
		{text: "[1,2]", want: "[1,2]"},
		{text: `{"a":1}{"a":2}`, want: `{"a":1} {"a":2}`},
		{text: `{"a":1}`, want: `{"a":1}`},
		{text: `{"instances":[[1],[2]],"parameters":{"k":3}}`, want: "[1] [2]", parameters: `{"k":3}`},
		{text: "", fails: "rows holds no instance"},
		{text: `{"instances":[]}`, fails: "rows holds no instance"},
		{text: "1,2\n", fails: "rows: value 2 is no JSON: invalid character ',' looking for beginning of value; want JSON"},
	} {
		values, parameters, err := ReadInstances("rows", strings.NewReader(tt.text))
		if tt.fails != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.fails) {
				t.Errorf("%q: %v, want %s", tt.text, err, tt.fails)
			}
			continue
		}
		words := make([]string, len(values))
		for i, v := range values {
			words[i] = string(v)
		}
		if got := strings.Join(words, " "); err != nil || got != tt.want || string(parameters) != tt.parameters {
			t.Errorf("%q gives %s with %s, %v", tt.text, got, parameters, err)
		}
	}
	body := PredictBody([]json.RawMessage{[]byte("1"), []byte("2"), []byte("3")}, []byte(`{"k":1}`), 2, 2)
	if want := `{"instances":[3,1],"parameters":{"k":1}}`; string(body) != want {
		t.Errorf("%s, want %s", body, want)
	}
}

func FuzzReadInstances(f *testing.F) {
	for _, s := range []string{"[1,2]\n[3]", `{"instances":[1,{"b":"x"}],"parameters":{}}`, "[]", "[[", "nul", `"a"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, parameters, err := ReadInstances("rows", strings.NewReader(text))
		if err != nil {
			return
		}
		if len(values) == 0 {
			t.Fatal("no instance and no error")
		}
		if body := PredictBody(values, parameters, 0, len(values)); !json.Valid(body) {
			t.Fatalf("%q makes %s", text, body)
		}
	})
}
