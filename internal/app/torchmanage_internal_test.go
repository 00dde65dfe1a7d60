package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"tategu/internal/modelformat"
)

// TestQuestionsDoNotWaitForChanges: while a model is being registered the others can be
// looked at; without the server's key there is no management at all.
func TestQuestionsDoNotWaitForChanges(t *testing.T) {
	t.Parallel()
	m := &torchManager{key: "secret", api: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
	})}
	h := m.beside(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	m.mu.Lock() // a change goes on
	defer m.mu.Unlock()
	for key, want := range map[string]int{"secret": http.StatusOK, "": http.StatusTeapot, "other": http.StatusTeapot} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, modelformat.TorchManagement+"/models", nil)
		r.Header.Set(modelformat.TorchKeyHeader, key)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Fatalf("key %q: %d %s", key, w.Code, w.Body)
		}
		if want != http.StatusOK {
			continue
		}
		var got modelformat.TorchAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status != http.StatusAccepted || got.ContentType != "text/x" || string(got.Body) != "GET /models" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
