package launch

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// apiStatus is google.rpc.Status as JSON: the error of an answer, of a job or of an
// operation, with the details that tategu gives (resource.Error).
type apiStatus struct {
	Code    int    `json:"code"`
	Status  string `json:"status"` // of answers: the code's name, Code is that of HTTP
	Message string `json:"message"`
	Details []struct {
		Reason   string            `json:"reason"`
		Metadata map[string]string `json:"metadata"`
		Links    []struct {
			Description string `json:"description"`
		} `json:"links"`
	} `json:"details"`
}

// answerError reads the body of an answer that is an error.
func answerError(status int, body []byte) error {
	var envelope struct {
		Error apiStatus `json:"error"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil || envelope.Error.Message == "" {
		return resource.Errorf(codeOf(status, ""), "the server answered %s: %.300s", http.StatusText(status), body)
	}
	return envelope.Error.err(codeOf(status, envelope.Error.Status))
}

// codeOf gives the code by its name, or what a status of HTTP comes from.
func codeOf(status int, name string) codes.Code {
	var c codes.Code
	if name != "" && c.UnmarshalJSON([]byte(strconv.Quote(name))) == nil {
		return c
	}
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

// err is the error again that resource.Error.GRPCStatus made a text of: its message
// without the facts, the next step and the last lines, which are fields of their own.
func (s apiStatus) err(code codes.Code) *resource.Error {
	e := &resource.Error{Code: code, Program: nil}
	exit := ""
	for _, d := range s.Details {
		if d.Reason != "" && d.Reason != code.String() {
			e.Reason = d.Reason
		}
		e.Cause = resource.Cause(first(string(e.Cause), d.Metadata["cause"]))
		e.Resource = first(e.Resource, d.Metadata["resource"])
		exit = first(exit, d.Metadata["exitCode"])
		for _, l := range d.Links {
			e.Hint = first(e.Hint, l.Description)
		}
	}
	message, tail, _ := strings.Cut(s.Message, "\nlast lines of its output:\n")
	if e.Hint != "" {
		message = strings.TrimSuffix(message, "; "+e.Hint)
	}
	e.Message = regexp.MustCompile(` \([^()]*cause: [^()]*\)$`).ReplaceAllString(message, "")
	if n, err := strconv.Atoi(exit); err == nil || tail != "" {
		p := &resource.Program{ExitCode: n}
		if err != nil {
			p.ExitCode = resource.NeverStarted
		}
		if tail != "" {
			p.Tail = strings.Split(tail, "\n")
		}
		e.Program = p
	}
	return e
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// failed says what has failed in front of its error.
func failed(what string, s apiStatus) error {
	e := s.err(codes.Code(s.Code))
	e.Message = what + ": " + e.Message
	return e
}
