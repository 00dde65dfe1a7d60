package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tategu/internal/resource"
)

// State is what a running server tells the commands on its machine, in
// DATA/run/server.json (readable by the operator only).
type State struct {
	PID         int    `json:"pid"`
	Address     string `json:"address"` // HOST:PORT of the one port
	Public      string `json:"public"`  // HOST:PORT as clients reach it
	Project     string `json:"project"`
	Location    string `json:"location"`
	CA          string `json:"ca"`          // our CA certificate, PEM
	Bundle      string `json:"bundle"`      // our CA and the system's roots, PEM
	Credentials string `json:"credentials"` // for default mode: tokens come from our /token
	Intercept   string `json:"intercept"`   // for intercept mode: tokens come from oauth2.googleapis.com, which is us
}

func runDir(data string) string    { return filepath.Join(data, "run") }
func statePath(data string) string { return filepath.Join(runDir(data), "server.json") }

// ReadState finds the server of a data directory.
func ReadState(data string) (State, error) {
	b, err := os.ReadFile(statePath(data))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, resource.NotFound(data).WithHint("no server runs on this data directory: start one with `tategu serve`, or name another with --data")
	}
	if err != nil {
		return State{}, fmt.Errorf("read server state: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("read server state %s: %w", statePath(data), err)
	}
	return s, nil
}

func writeState(data string, s State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write server state: %w", err)
	}
	if err := writeFile(statePath(data), append(b, '\n')); err != nil {
		return fmt.Errorf("write server state: %w", err)
	}
	// Scripts read the bare address without a JSON parser.
	return writeFile(filepath.Join(runDir(data), "address"), []byte(s.Address+"\n"))
}

// writeFile replaces a private file in one step.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Variable is one environment variable; an empty Value means unset it.
type Variable struct{ Name, Value string }

// DefaultEnv points clients at the server that name it in their code
// (api_endpoint) and storage clients at once.
func (s State) DefaultEnv() []Variable {
	return append(s.trust(),
		Variable{"GOOGLE_CLOUD_PROJECT", s.Project},
		Variable{"GOOGLE_APPLICATION_CREDENTIALS", s.Credentials},
		Variable{"STORAGE_EMULATOR_HOST", "http://" + s.Address},
		Variable{"TATEGU_ENDPOINT", s.Public},
	)
}

// InterceptEnv makes clients with no change in code reach the server: it is
// their proxy, and the Google hosts it implements end there.
func (s State) InterceptEnv() []Variable {
	proxy := "http://" + s.Address
	return append(s.trust(),
		Variable{"GOOGLE_CLOUD_PROJECT", s.Project},
		Variable{"GOOGLE_APPLICATION_CREDENTIALS", s.Intercept},
		Variable{"HTTPS_PROXY", proxy},
		Variable{"https_proxy", proxy}, // gRPC reads the lower-case name only
		// Clients of metadata servers on loopback must reach them directly; Node's
		// proxy support sends plain http through HTTPS_PROXY otherwise.
		Variable{"NO_PROXY", "127.0.0.1,localhost"},
		Variable{"no_proxy", "127.0.0.1,localhost"},
		Variable{"STORAGE_EMULATOR_HOST", ""},
		Variable{"TATEGU_ENDPOINT", s.Public},
	)
}

// taskEnv is the part of the intercept mode that tasks get: their credentials
// come from their own metadata server.
func (s State) taskEnv() map[string]string {
	env := map[string]string{}
	for _, v := range s.InterceptEnv() {
		if v.Value != "" && v.Name != "GOOGLE_APPLICATION_CREDENTIALS" && !strings.HasPrefix(v.Name, "GOOGLE_CLOUD") {
			env[v.Name] = v.Value
		}
	}
	return env
}

func (s State) trust() []Variable {
	return []Variable{
		{"REQUESTS_CA_BUNDLE", s.Bundle},
		{"SSL_CERT_FILE", s.Bundle},
		{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", s.Bundle},
		{"NODE_EXTRA_CA_CERTS", s.CA},
	}
}
