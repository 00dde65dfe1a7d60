package mar

import "fmt"

// Kind of an error, by the name of TorchServe's exception for it.
type Kind string

// Why an archive is not opened.
const (
	NotFound        Kind = "ModelNotFoundException"
	Invalid         Kind = "InvalidModelException"
	InvalidURL      Kind = "InvalidArchiveURLException"
	InvalidWorkflow Kind = "InvalidWorkflowException"
	Download        Kind = "DownloadArchiveException"
)

// Error says why an archive is not opened.
type Error struct {
	Kind    Kind
	Message string
	Err     error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

func errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Kind: kind, Message: err.Error()}
	if u, ok := err.(interface{ Unwrap() error }); ok {
		e.Err = u.Unwrap()
	}
	return e
}
