package gcs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
)

// get asks for JSON and reads it into a map.
func (s *server) get(method, url, body string, status int) map[string]any {
	s.t.Helper()
	w := s.do(method, url, strings.NewReader(body))
	if w.Code != status {
		s.t.Fatalf("%s %s = %d %s, want %d", method, url, w.Code, w.Body, status)
	}
	var m map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			s.t.Fatal(err)
		}
	}
	return m
}

const bucketURL = "/storage/v1/b/bucket"

// generations lists name#deleted of everything that a list gives, page by page.
func (s *server) generations(query string) (out []string) {
	s.t.Helper()
	for token := ""; ; {
		page := s.get("GET", bucketURL+"/o?maxResults=2&"+query+"&pageToken="+token, "", 200)
		items, _ := page["items"].([]any)
		for _, item := range items {
			o, _ := item.(map[string]any)
			text, _ := o["name"].(string)
			if o["timeDeleted"] != nil {
				text += "-old"
			}
			out = append(out, text)
		}
		if token, _ = page["nextPageToken"].(string); token == "" {
			return out
		}
	}
}

func TestVersioning(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.get("PATCH", bucketURL, `{"versioning":{"enabled":true}}`, 200)
	for _, name := range []string{"a", "x", "x", "x", "x0", "b"} {
		s.put(name, "data of "+name)
	}
	if got, want := s.generations("versions=true"), []string{"a", "b", "x-old", "x-old", "x", "x0"}; !slices.Equal(got, want) {
		t.Errorf("versions = %q, want %q", got, want)
	}
	if got, want := s.generations(""), []string{"a", "b", "x", "x0"}; !slices.Equal(got, want) {
		t.Errorf("live = %q, want %q", got, want)
	}
	live, _ := s.get("GET", objects+"x", "", 200)["generation"].(string)
	s.get("DELETE", objects+"x", "", 204)
	s.get("GET", objects+"x", "", 404)
	if old := s.get("GET", objects+"x?generation="+live, "", 200); old["timeDeleted"] == nil {
		t.Errorf("a deleted generation without a time: %v", old)
	}
	w := s.do("GET", objects+"x?alt=media&generation="+live, nil)
	if w.Code != 200 || w.Body.String() != "data of x" {
		t.Errorf("old bytes = %d %q", w.Code, w.Body)
	}
	// A bucket with noncurrent generations is not empty.
	s.get("DELETE", objects+"a", "", 204)
	s.get("DELETE", bucketURL, "", 409)
	// A copy of an old generation brings it back; a generation that is named goes for good.
	s.get("POST", objects+"x/copyTo/b/bucket/o/x?sourceGeneration="+live, "", 200)
	s.checkData("x", "data of x")
	s.get("DELETE", objects+"x?generation="+live, "", 204)
	s.get("GET", objects+"x?generation="+live, "", 404)
	if got, want := s.generations("versions=true&prefix=x"), []string{"x-old", "x-old", "x", "x0"}; !slices.Equal(got, want) {
		t.Errorf("after all = %q, want %q", got, want)
	}
}

func TestSoftDeleteAndRestore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.get("PATCH", bucketURL, `{"softDeletePolicy":{"retentionDurationSeconds":"604800"}}`, 200)
	s.put("x", "one")
	s.put("x", "two")
	s.get("DELETE", objects+"x", "", 204)
	if got := s.generations(""); len(got) > 0 {
		t.Errorf("live = %q", got)
	}
	page := s.get("GET", bucketURL+"/o?softDeleted=true", "", 200)
	items, _ := page["items"].([]any)
	if len(items) != 2 {
		t.Fatalf("soft-deleted = %v", page)
	}
	first, _ := items[0].(map[string]any)
	generation, _ := first["generation"].(string)
	if first["softDeleteTime"] == nil || first["hardDeleteTime"] == nil {
		t.Errorf("soft-deleted without times: %v", first)
	}
	s.get("GET", objects+"x?generation="+generation, "", 404)
	s.get("GET", objects+"x?softDeleted=true&generation="+generation, "", 200)
	s.get("POST", objects+"x/restore?ifGenerationMatch=5&generation="+generation, "", 412)
	restored := s.get("POST", objects+"x/restore?ifGenerationMatch=0&generation="+generation, "", 200)
	if restored["generation"] == generation || restored["softDeleteTime"] != nil {
		t.Errorf("restored = %v", restored)
	}
	s.checkData("x", "one")
	s.get("POST", objects+"x/restore?generation="+generation, "", 404)
}

func TestHoldsAndRetention(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "1")
	s.get("PATCH", objects+"x", `{"temporaryHold":true}`, 200)
	s.get("DELETE", objects+"x", "", 403)
	if w := s.do("POST", uploads+"media&name=x", strings.NewReader("2")); w.Code != 403 {
		t.Errorf("a held object was overwritten: %d", w.Code)
	}
	s.checkData("x", "1")
	s.get("PATCH", objects+"x", `{"temporaryHold":false}`, 200)
	s.put("x", "2")

	b := s.get("PATCH", bucketURL, `{"retentionPolicy":{"retentionPeriod":"3600"}}`, 200)
	if o := s.get("GET", objects+"x", "", 200); o["retentionExpirationTime"] == nil {
		t.Errorf("no expiration: %v", o)
	}
	s.get("DELETE", objects+"x", "", 403)
	s.get("POST", objects+"x/moveTo/o/y", "", 403)
	metageneration, _ := b["metageneration"].(string)
	s.get("POST", bucketURL+"/lockRetentionPolicy?ifMetagenerationMatch="+metageneration, "", 200)
	s.get("PATCH", bucketURL, `{"retentionPolicy":{"retentionPeriod":"60"}}`, 403)
	s.get("PATCH", bucketURL, `{"retentionPolicy":null}`, 403)
	s.get("PUT", bucketURL, `{}`, 403)
	if b = s.get("PATCH", bucketURL, `{"retentionPolicy":{"retentionPeriod":"7200"}}`, 200); b["retentionPolicy"].(map[string]any)["isLocked"] != true { //nolint:forcetypeassert // a failed assertion fails the test
		t.Errorf("the lock is gone: %v", b)
	}
}

func TestObjectRetention(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.get("POST", "/storage/v1/b?project=p&enableObjectRetention=true", `{"name":"kept"}`, 200)
	const x = "/storage/v1/b/kept/o/x"
	if w := s.do("POST", "/upload/storage/v1/b/kept/o?uploadType=media&name=x", strings.NewReader("1")); w.Code != 200 {
		t.Fatal(w.Body)
	}
	until := func(d time.Duration, mode string) string {
		return `{"retention":{"mode":"` + mode + `","retainUntilTime":"` + time.Now().Add(d).UTC().Format(time.RFC3339) + `"}}`
	}
	s.get("PATCH", x, until(-time.Hour, "Unlocked"), 400)
	s.get("PATCH", x, until(2*time.Hour, "Unlocked"), 200)
	s.get("DELETE", x, "", 403)
	s.get("PATCH", x, until(time.Hour, "Unlocked"), 403)
	s.get("PATCH", x+"?overrideUnlockedRetention=true", until(time.Hour, "Unlocked"), 200)
	s.get("PATCH", x, until(3*time.Hour, "Locked"), 200)
	s.get("PATCH", x+"?overrideUnlockedRetention=true", `{"retention":null}`, 403)
	s.get("PATCH", x, until(4*time.Hour, "Locked"), 200)
}

func TestRulesAreGivenBack(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const rules = `{"versioning":{"enabled":true},"defaultEventBasedHold":true,
		"lifecycle":{"rule":[{"action":{"type":"Delete"},"condition":{"age":3,"isLive":false}}]},
		"cors":[{"origin":["https://a.example"],"method":["GET"],"responseHeader":["X-A"],"maxAgeSeconds":5}]}`
	s.get("PATCH", bucketURL, rules, 200)
	s.get("PATCH", bucketURL, `{"cors":[{"origin":["*"]}],"labels":{"a":"b"}}`, 200)
	b := s.get("GET", bucketURL, "", 200)
	var want map[string]any
	if err := json.Unmarshal([]byte(rules), &want); err != nil {
		t.Fatal(err)
	}
	want["cors"], want["labels"] = []any{map[string]any{"origin": []any{"*"}}}, map[string]any{"a": "b"}
	for field, value := range want {
		got, err1 := json.Marshal(b[field])
		wanted, err2 := json.Marshal(value)
		if err1 != nil || err2 != nil || string(got) != string(wanted) {
			t.Errorf("%s = %s, want %s", field, got, wanted)
		}
	}
	b = s.get("PUT", bucketURL, `{}`, 200)
	for field := range want {
		if b[field] != nil {
			t.Errorf("a PUT of nothing kept %s = %v", field, b[field])
		}
	}
}

func TestNotificationsAndEvents(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const configs = bucketURL + "/notificationConfigs"
	one := s.get("POST", configs, `{"topic":"//pubsub.googleapis.com/projects/p/topics/t","object_name_prefix":"a/","custom_attributes":{"k":"v"}}`, 200)
	two := s.get("POST", configs, `{"topic":"projects/p/topics/u","event_types":["OBJECT_DELETE"],"payload_format":"NONE"}`, 200)
	if one["id"] != "1" || two["id"] != "2" || two["topic"] != "//pubsub.googleapis.com/projects/p/topics/u" || one["payload_format"] != "JSON_API_V1" {
		t.Errorf("%v %v", one, two)
	}
	if got, _ := s.get("GET", configs, "", 200)["items"].([]any); len(got) != 2 {
		t.Errorf("configurations = %v", got)
	}
	s.put("a/x", "1")
	s.put("a/x", "2")
	s.get("PATCH", objects+"a%2Fx", `{"metadata":{"k":"v"}}`, 200)
	s.put("b", "3")
	s.get("DELETE", objects+"b", "", 204)
	events, err := s.blobs.Events(t.Context(), "bucket", 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, e.Notification+" "+e.Type+" "+e.Object.Name)
	}
	slices.Sort(got) // those of one change are of one moment
	want := []string{
		"1 OBJECT_DELETE a/x", "1 OBJECT_FINALIZE a/x", "1 OBJECT_FINALIZE a/x", "1 OBJECT_METADATA_UPDATE a/x",
		"2 OBJECT_DELETE a/x", "2 OBJECT_DELETE b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("events = %q, want %q", got, want)
	}
	s.get("DELETE", configs+"/1", "", 204)
	s.get("GET", configs+"/1", "", 404)
	if three := s.get("POST", configs, `{"topic":"projects/p/topics/t"}`, 200); three["id"] != "3" {
		t.Errorf("an id was given twice: %v", three)
	}
	if b := s.get("GET", bucketURL, "", 200); b["metageneration"] != "1" {
		t.Errorf("configurations count as changes of the bucket: %v", b)
	}
}

func TestMoveAndComposeDeletingSources(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "1")
	s.put("y", "2")
	s.get("POST", objects+"x/moveTo/o/z?ifSourceMetagenerationMatch=9", "", 412)
	s.get("POST", objects+"x/moveTo/o/z?ifGenerationMatch=0", "", 200)
	s.get("GET", objects+"x", "", 404)
	s.get("POST", objects+"all/compose", `{"sourceObjects":[{"name":"z"},{"name":"y"},{"name":"z"}],"deleteSourceObjects":true}`, 200)
	s.checkData("all", "121")
	if got := s.generations(""); !slices.Equal(got, []string{"all"}) {
		t.Errorf("left = %q", got)
	}
}

func TestPartialAnswersAndGlobs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range []string{"l/1/f", "l/2/f", "l/3/f", "m"} {
		s.put(name, "x")
	}
	page := s.get("GET", bucketURL+"/o?fields=items(name,size),nextPageToken&matchGlob=l/[12]/*", "", 200)
	data, err := json.Marshal(page)
	if err != nil || string(data) != `{"items":[{"name":"l/1/f","size":"1"},{"name":"l/2/f","size":"1"}]}` {
		t.Errorf("%s, %v", data, err)
	}
	if got := s.get("GET", objects+"m?fields=name", "", 200); len(got) != 1 || got["name"] != "m" {
		t.Errorf("one field = %v", got)
	}
}

// TestDamagedContentIsNotServed: a client must not take it for the object.
func TestDamagedContentIsNotServed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "whole")
	o, err := s.blobs.Stat(t.Context(), "bucket", "x", 0, blob.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	o.CRC32C++ // as if the disk had changed a bit
	r, err := s.blobs.Open(t.Context(), o, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	buf := make([]byte, 100)
	if n, err := r.Read(buf); n != 0 || err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Read = %d, %v", n, err)
	}
	if w := s.do("GET", objects+"x?alt=media", nil); w.Code != http.StatusOK || w.Body.String() != "whole" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestBodiesAndVerbsOfJava: its client compresses JSON, and its HTTP library has no PATCH.
func TestBodiesAndVerbsOfJava(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	zip := func(text string) *bytes.Buffer {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(text))
		if err = errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	if w := s.do("POST", bucketURL, strings.NewReader(`{"labels":{"c":"d"}}`), "X-HTTP-Method-Override", "PATCH"); w.Code != 200 {
		t.Errorf("PATCH by a header = %d %s", w.Code, w.Body)
	}
	for _, tt := range []struct {
		method, url string
		body        *bytes.Buffer
		status      int
	}{
		{"PATCH", bucketURL, zip(`{"labels":{"a":"b"}}`), 200},
		{"POST", uploads + "resumable", zip(`{"name":"r"}`), 200},
		{"PATCH", bucketURL, bytes.NewBufferString(`{"labels":{}}`), 400},
		{"PATCH", bucketURL, bytes.NewBuffer(zip(`{"labels":{}}`).Bytes()[:20]), 400},
		{"PATCH", bucketURL, zip(`{"labels":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`), 400},
	} {
		if w := s.do(tt.method, tt.url, tt.body, "Content-Encoding", "gzip"); w.Code != tt.status {
			t.Errorf("%s %s = %d %s, want %d", tt.method, tt.url, w.Code, w.Body, tt.status)
		}
	}
}
