package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tategu": func() { os.Exit(Main(os.Args[1:])) },
	})
}

// TestScripts runs test/script/*.txtar, which read like a manual of the command line.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "../../test/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_DATA_HOME", env.WorkDir+"/data")
			env.Setenv("XDG_CACHE_HOME", env.WorkDir+"/cache")
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"waitready": waitReady,
			"damage":    damage,
			"call":      call,
			"waitstate": waitState,
			"waittext":  waitText,
			"waitfile":  waitFile,
		},
	})
}

// damage DATA flips a bit in each file that holds an object.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage DATA")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "objects", "[0-9a-f][0-9a-f]", "*"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no object is a file")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		ts.Check(err)
		text[len(text)/2] ^= 1
		ts.Check(os.WriteFile(file, text, 0o600))
	}
}

// waitReady DATA waits until the server of a data directory has written its state.
func waitReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitready DATA")
	}
	waitFor(ts, ts.MkAbs(args[0])+"/run/server.json")
}
