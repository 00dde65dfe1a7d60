package torchserve_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

func newServer(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// readKeys reads a key file as scripts do.
func readKeys(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]struct {
		Key     string     `json:"key"`
		Expires *time.Time `json:"expiration time"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for k, v := range file {
		if v.Key == "" || (v.Expires == nil) != (k == "API") {
			t.Errorf("the entry %s of the key file: %+v", k, v)
		}
		keys[k] = v.Key
	}
	return keys
}

func TestTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key_file.json")
	var passed atomic.Int64 // minutes
	began := time.Now()
	tokens, err := api.NewTokens(path, time.Hour, func() time.Time { return began.Add(time.Duration(passed.Load()) * time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v; want it to be its owner's alone", info.Mode(), err)
	}
	s := serve(t, func(_ *engine.Listen, d *api.Deps) { d.Tokens = tokens })
	status := func(url, header string) int {
		return ask(t, http.MethodGet, url, "", "", "Authorization", header).StatusCode
	}
	keys := readKeys(t, path)
	for _, tt := range []struct {
		url, header string
		want        int
	}{
		{s.inference.URL + "/ping", "", 400},
		{s.inference.URL + "/ping", "Bearer " + keys["inference"], 200},
		{s.inference.URL + "/ping", "Bearer " + keys["management"], 400},
		{s.inference.URL + "/nothing", "", 400},
		{s.management.URL + "/models", "Bearer " + keys["management"], 200},
		{s.management.URL + "/models", "bearer " + keys["management"], 200},
		{s.management.URL + "/models", keys["management"], 400},
		{s.management.URL + "/models", "Bearer", 400},
		{s.management.URL + "/models", "Bearer " + keys["inference"], 400},
		{s.management.URL + "/token?type=inference", "Bearer " + keys["management"], 400},
		{s.management.URL + "/token?type=API", "Bearer " + keys["API"], 400},
		{s.management.URL + "/token", "Bearer " + keys["API"], 400},
		{s.metric.URL + "/metrics", "", 200},
	} {
		if got := status(tt.url, tt.header); got != tt.want {
			t.Errorf("%s with %q: %d, want %d", tt.url, tt.header, got, tt.want)
		}
	}
	passed.Store(61)
	if got := status(s.inference.URL+"/ping", "Bearer "+keys["inference"]); got != 400 {
		t.Errorf("an expired token: %d", got)
	}
	if got := status(s.management.URL+"/token?type=inference", "Bearer "+keys["API"]); got != 200 {
		t.Errorf("another token: %d", got)
	}
	again := readKeys(t, path)
	if again["inference"] == keys["inference"] || again["management"] != keys["management"] || again["API"] != keys["API"] {
		t.Errorf("keys were %v, are %v: want one other", keys, again)
	}
	if got := status(s.inference.URL+"/ping", "Bearer "+again["inference"]); got != 200 {
		t.Errorf("the new token: %d", got)
	}
	if got := status(s.inference.URL+"/ping", "Bearer "+keys["inference"]); got != 400 {
		t.Errorf("the old token: %d", got)
	}
}

func TestKeyFileThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	if _, err := api.NewTokens(filepath.Join(t.TempDir(), "none", "key_file.json"), time.Hour, time.Now); err == nil {
		t.Error("a key file in no folder: no error")
	}
}
