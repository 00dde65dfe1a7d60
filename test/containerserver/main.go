// Command containerserver is the one file of a FROM-scratch image: a model server
// by the rules of Vertex AI, or, with arguments, a task that writes its last one
// to the file that its first one names.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) > 1 {
		task(os.Args[1], os.Args[len(os.Args)-1])
		return
	}
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("POST /predict", predict)
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("AIP_HTTP_PORT"), nil); err != nil { //nolint:gosec // a test's own server
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func task(path, text string) {
	err := os.MkdirAll(filepath.Dir(path), 0o755) //nolint:gosec // the task is told where to write
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600) //nolint:gosec // as above
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, "first process but one:", os.Getpid() == 2)
}

// predict counts instances; a body that is none is answered with its length.
func predict(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var request struct{ Instances []any }
	if json.Unmarshal(body, &request) != nil {
		_, _ = fmt.Fprint(w, len(body))
		return
	}
	_, _ = fmt.Fprintf(w, `{"predictions": [%d]}`, len(request.Instances))
}
