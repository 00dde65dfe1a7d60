package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tategu/internal/app"
)

// waitFor polls for a file: the server is another process, so there is no event to wait for.
func waitFor(ts *testscript.TestScript, path string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s did not appear in 30 s", path)
		}
	}
}

// waitFile FILE TEXT waits until a file holds a text.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfile FILE TEXT")
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(text), args[1]) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s did not hold %q within 30 s: %q, %v", args[0], args[1], text, err)
		}
	}
}

// request sends one to the server of $TATEGU_DATA.
func request(ts *testscript.TestScript, method, path string, body []byte) string {
	state, err := app.ReadState(ts.Getenv("TATEGU_DATA"))
	ts.Check(err)
	req, err := http.NewRequest(method, "http://"+state.Address+path, bytes.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	ts.Check(err)
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(resp.Body.Close())
	if resp.StatusCode >= http.StatusMultipleChoices {
		ts.Fatalf("%s %s: %s", method, path, text)
	}
	var compact bytes.Buffer // protobuf's JSON has spaces or not, as the build will have it
	if json.Compact(&compact, text) == nil {
		return compact.String()
	}
	return string(text)
}

// call METHOD PATH FILE sends a file's content to the API.
func call(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: call METHOD PATH FILE")
	}
	request(ts, args[0], args[1], []byte(ts.ReadFile(args[2])))
}

// waitState KIND STATE waits until a job of the kind is in a state.
func waitState(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitstate KIND STATE")
	}
	waitAnswer(ts, "/v1/projects/tategu/locations/us-central1/"+args[0], "STATE_"+args[1])
}

// waitText PATH TEXT waits until the answer of the API at a path holds a text.
func waitText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waittext PATH TEXT")
	}
	waitAnswer(ts, args[0], args[1])
}

func waitAnswer(ts *testscript.TestScript, path, text string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		last := request(ts, http.MethodGet, path, nil)
		if strings.Contains(last, text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s did not come in 30 s at %s: %s", text, path, last)
		}
	}
}
