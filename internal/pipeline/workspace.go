package pipeline

import (
	"context"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/store"
)

// dropWorkspace removes the directory that the tasks of a run shared.
func (e *Engine) dropWorkspace(ctx context.Context, number string) {
	if e.cfg.Volumes == nil {
		return
	}
	if err := e.cfg.Volumes.DropVolume(workspaceVolume(number)); err != nil {
		e.warn(ctx, "cannot remove the workspace of run "+number, err)
	}
}

// dropWorkspaces removes those of runs that ended while nobody could.
func (e *Engine) dropWorkspaces(ctx context.Context) {
	if e.cfg.Volumes == nil {
		return
	}
	names, err := e.cfg.Volumes.VolumeNames()
	if err != nil {
		e.warn(ctx, "cannot list volumes", err)
	}
	if len(names) == 0 {
		return
	}
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: kindJobs, States: unfinished()})
	if err != nil {
		e.warn(ctx, "cannot list unfinished runs", err)
		return
	}
	needed := map[string]bool{}
	for _, row := range rows {
		msg := &pb.PipelineJob{}
		if _, err := store.GetMessage(ctx, e.cfg.Store, kindJobs, row.Key, msg); err == nil {
			needed[msg.Labels[RunNumberLabel]] = true
		}
	}
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, workspacePrefix); ok && !needed[number] {
			e.dropWorkspace(ctx, number)
		}
	}
}
