// Command program misbehaves in the way that its first argument names. It runs as
// a program of the machine and as the one file of an image.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: program serve|sleep|memory|exit")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "serve":
		serve()
	case "sleep":
		_, _ = fmt.Fprintln(os.Stdout, "I do not listen")
		<-time.After(time.Hour)
	case "memory":
		memory()
	case "exit":
		_, _ = fmt.Fprintln(os.Stdout, "no weights here")
		os.Exit(5)
	}
}

// serve is a model server whose health route is /health, with the status of
// $HEALTH, and whose predict route is /predict.
func serve() {
	http.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("HEALTH") == "bad" {
			http.Error(w, "the model is not loaded", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("POST /predict", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"predictions": [1]}`) })
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("AIP_HTTP_PORT"), nil); err != nil { //nolint:gosec // a test's own server
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// memory uses more and more of it.
func memory() {
	const most = 200
	all := make([][]byte, 0, most)
	for range most {
		block := make([]byte, 8<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		all = append(all, block)
	}
	_, _ = fmt.Fprintln(os.Stdout, "there was room for", len(all), "blocks")
}
