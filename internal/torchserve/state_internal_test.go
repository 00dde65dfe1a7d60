package torchserve

import (
	"bytes"
	"testing"
)

// FuzzState: a state that is read is written so that it is read the same again.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"m": {"1.0": {"defaultVersion": true, "marName": "m.mar", "minWorkers": 2}}}`))
	f.Add([]byte(`{"format": {"1.0": {"marName": "m.mar"}}}`))
	f.Add([]byte(`{"format": 2, "models": {}, "workflows": {"w": {"warName": "w.war", "responseTimeout": 3, "nodes": {"n": {"marName": ""}}}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		is, err := parseState(data)
		if err != nil {
			return
		}
		once, err := is.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if is, err = parseState(once); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := is.marshal(); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s, then %s, %v", once, twice, err)
		}
	})
}
