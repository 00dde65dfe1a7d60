package serving

import (
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Replicas tells how many replicas a deployment has and why; nil when it takes no
// requests (yet).
func (e *Engine) Replicas(key string) *pb.DeployedModel_Status {
	e.mu.RLock()
	d := e.running[key]
	e.mu.RUnlock()
	if d == nil {
		return nil
	}
	if d.scale == nil {
		status := &pb.DeployedModel_Status{Message: "served in process: it needs no replica", AvailableReplicaCount: 1}
		if told := e.told(key); told != "" {
			status.Message += ". " + told
		}
		return status
	}
	message, ready, since := d.scale.status()
	if told := e.told(key); told != "" {
		message += " " + told
	}
	return &pb.DeployedModel_Status{Message: message, AvailableReplicaCount: int32(min(ready, 1<<20)), LastUpdateTime: timestamppb.New(since)}
}

// told is what there is to say of a deployed model besides its replicas.
func (e *Engine) told(key string) string {
	return strings.TrimSpace(e.onRollout(key) + " " + e.onFollow(key))
}
