package cloud

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

// handle writes a handler's error in the cloud's envelope, once, here.
func (s *Service) handle(h func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		switch {
		case r.Context().Err() != nil:
			err = resource.Errorf(codes.Canceled, "the caller went away")
		case resource.CodeOf(err) == codes.Unknown:
			s.cfg.Log.ErrorContext(r.Context(), "request failed", slog.String("path", r.URL.Path), slog.Any("error", err))
			err = resource.Errorf(codes.Internal, "the request failed inside the server; its log has the cause").WithCause(resource.CausePlatform)
		}
		writeError(w, err)
	}
}

// writeError writes {"error": {code, message, status, details}}.
func writeError(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	answer := resource.HTTPStatus(st.Code())
	if errors.Is(err, syscall.ENOSPC) {
		answer = http.StatusInsufficientStorage
	}
	body := map[string]any{"code": answer, "message": st.Message(), "status": code.Code(st.Code()).String()}
	if details, err := protojson.Marshal(st.Proto()); err == nil {
		var p struct {
			Details []json.RawMessage `json:"details"`
		}
		if json.Unmarshal(details, &p) == nil && len(p.Details) > 0 {
			body["details"] = p.Details
		}
	}
	if answer == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tategu"`)
	}
	writeStatus(w, answer, map[string]any{"error": body})
}

// writeOAuthError is the form of RFC 6749, section 5.2, which OAuth clients read.
func writeOAuthError(w http.ResponseWriter, name, description string) error {
	writeStatus(w, http.StatusBadRequest, map[string]string{"error": name, "error_description": description})
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	writeStatus(w, http.StatusOK, v)
	return nil
}

func writeStatus(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}
