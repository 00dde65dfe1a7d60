package pipeline

import (
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Components of google-cloud-pipeline-components make jobs, models and endpoints
// through the API of the cloud, whose host is written in them. Their containers are
// not started: our own binary does the same through our API, as a program with the
// rights of the task (package launch).

// maxLost is how often a launcher that was killed is started again for nothing: what
// it made runs on, and the next one finds it.
const maxLost = 3

// launch makes a workload that runs a module of google-cloud-pipeline-components.
func (j *job) launch(w *runtime.Workload, n *node) error {
	if j.cfg.Launcher == "" {
		return resource.Errorf(codes.FailedPrecondition, "there is no launcher for %s", n.def.launcher)
	}
	w.Image, w.Literal = "", true
	w.Fetch = nil                     // the job that it makes fetches its inputs
	w.Resources = runtime.Resources{} // and asks for its own
	w.Command = []string{
		j.cfg.Launcher, "launch", "--task", taskRow(j.m.run.name, n.ID), "--attempt", strconv.Itoa(n.Attempt), n.def.launcher,
	}
	return nil
}

// lost reports that the launcher was killed from outside, or is gone, which says
// nothing of what it launched.
func (m *machine) lost(n *node, o outcome) bool {
	gone := o.exit.Signal == "SIGKILL" || o.exit.Cause == resource.CausePlatform
	return n.def.launcher != "" && gone && o.fault == nil && n.Lost < maxLost && !m.halted(n)
}

// badLaunch is the failure of a launcher by its own words.
func badLaunch(f *gcpc.Fault) *Failure {
	return &Failure{Message: f.Message, Hint: f.Hint, Cause: f.Cause, Reason: f.Reason, ExitCode: f.ExitCode, Tail: f.Tail}
}
