package torchserve

import (
	"fmt"
	"net/http"
)

// Error is an answer that is no success, as TorchServe words it: the API writes
// {"code": Code, "type": Type, "message": Message}.
type Error struct {
	Code    int    // HTTP status
	Type    string // name of TorchServe's exception
	Message string
	Err     error // why; for the log
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// The exceptions of TorchServe, by what they are of.
const (
	ModelNotFound         = "ModelNotFoundException"
	ModelVersionNotFound  = "ModelVersionNotFoundException"
	WorkflowNotFound      = "WorkflowNotFoundException"
	ResourceNotFound      = "ResourceNotFoundException"
	BadRequest            = "BadRequestException"
	InvalidModel          = "InvalidModelException"
	InvalidWorkflow       = "InvalidWorkflowException"
	DownloadArchive       = "DownloadArchiveException"
	Conflict              = "ConflictStatusException"
	InvalidArgument       = "IllegalArgumentException"
	InvalidVersion        = "InvalidModelVersionException"
	RequestTimeout        = "RequestTimeoutException"
	ServiceUnavailable    = "ServiceUnavailableException"
	InternalServer        = "InternalServerException"
	OutOfMemory           = "OutOfMemoryError"
	WorkerInitialization  = "WorkerInitializationException"
	InvalidSnapshot       = "InvalidSnapshotException"
	statusWorkerOutMemory = 507
)

func errorf(code int, kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Type: kind, Message: err.Error()}
	if u, ok := err.(interface{ Unwrap() error }); ok {
		e.Err = u.Unwrap()
	}
	return e
}

func modelNotFound(name string) *Error {
	return errorf(http.StatusNotFound, ModelNotFound, "Model not found: %s", name)
}

func versionNotFound(name, version string) *Error {
	return errorf(http.StatusNotFound, ModelVersionNotFound, "Model version: %s does not exist for model: %s", version, name)
}
