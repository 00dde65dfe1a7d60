package process

import (
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"
)

// Names of files in a workload's directory; process.go says what they mean.
const (
	fileRecord  = workload.FileRecord
	fileSpec    = wrapper.FileSpec
	fileWrapper = wrapper.FileRunning
	fileStop    = wrapper.FileStop
	fileExit    = wrapper.FileExit
	fileEnd     = workload.FileEnd
	fileOutput  = workload.Output
	dirGCS      = workload.DirGCS
	dirWork     = "work"
	dirTmp      = "tmp"
	dirVenv     = "venv"
	dirHook     = "hook" // below dirVenv

	// Of the runtime: what the next workload takes over. One that starts forgets them.
	dirLayers = ".layers"
	dirSpare  = ".spare"
	dirNest   = ".nest" // where a wrapper that waits builds / anew
)
