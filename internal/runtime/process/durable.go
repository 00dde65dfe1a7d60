package process

import "tategu/internal/runtime/workload"

// Names of files in a workload's directory; process.go says what they mean.
const (
	fileRecord  = "record.json"
	fileSpec    = "spec.json"
	fileWrapper = "wrapper.json"
	fileStop    = "stop.json"
	fileExit    = "exit.json"
	fileEnd     = "end.json"
	fileOutput  = workload.Output
	fileLock    = "lock"
	dirGCS      = workload.DirGCS
	dirWork     = "work"
	dirTmp      = "tmp"
	dirVenv     = "venv"
	dirHook     = "hook"
)
