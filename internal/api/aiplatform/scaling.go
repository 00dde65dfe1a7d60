package aiplatform

import (
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// Bounds of the periods of a scale_to_zero_spec. The cloud's least is five minutes;
// ours is a second, since a start is short here.
const (
	leastPeriod = time.Second
	mostPeriod  = 8 * time.Hour
)

// checkScaling wants counts, periods and metrics that make sense together, and fills
// in a missing maximum.
func checkScaling(d *pb.DedicatedResources) error {
	const field = "deployed_model.dedicated_resources"
	if err := checkReplicas(field, &d.MinReplicaCount, &d.MaxReplicaCount); err != nil {
		return err
	}
	if n := d.GetRequiredReplicaCount(); n < 0 || n > d.GetMinReplicaCount() {
		return resource.Invalid(field+".required_replica_count", "required_replica_count is %d, and min_replica_count %d", n, d.GetMinReplicaCount())
	}
	switch n := d.GetInitialReplicaCount(); {
	case n < 0 || n > d.GetMaxReplicaCount():
		return resource.Invalid(field+".initial_replica_count", "initial_replica_count is %d, and max_replica_count %d", n, d.GetMaxReplicaCount())
	case n > 0 && d.GetMinReplicaCount() > 0:
		return resource.Invalid(field+".initial_replica_count", "initial_replica_count goes with min_replica_count 0, which is %d", d.GetMinReplicaCount())
	}
	if spec := d.GetScaleToZeroSpec(); spec != nil {
		if d.GetMinReplicaCount() > 0 {
			return resource.Invalid(field+".scale_to_zero_spec", "scale_to_zero_spec goes with min_replica_count 0, which is %d", d.GetMinReplicaCount())
		}
		for name, period := range map[string]*durationpb.Duration{"min_scaleup_period": spec.GetMinScaleupPeriod(), "idle_scaledown_period": spec.GetIdleScaledownPeriod()} {
			if p := period.AsDuration(); period != nil && (p < leastPeriod || p > mostPeriod) {
				return resource.Invalid(field+".scale_to_zero_spec."+name, "%s is %v: want %v to %v", name, p, leastPeriod, mostPeriod)
			}
		}
	}
	return checkMetrics(field+".autoscaling_metric_specs", d.GetAutoscalingMetricSpecs(), d.GetMachineSpec().GetAcceleratorCount() > 0)
}

func checkMetrics(field string, specs []*pb.AutoscalingMetricSpec, accelerated bool) error {
	seen := map[string]bool{}
	for _, m := range specs {
		name := m.GetMetricName()
		switch {
		case name != serving.MetricCPU && name != serving.MetricGPU && name != serving.MetricRequests:
			return resource.Unimplemented("scaling by the metric "+name).
				WithHint("requests at a time are scaled by in any case; of the others %s, %s and %s are known", serving.MetricCPU, serving.MetricGPU, serving.MetricRequests)
		case seen[name]:
			return resource.Invalid(field, "%s is there twice", name)
		case name == serving.MetricRequests && m.GetTarget() < 1:
			return resource.Invalid(field, "the target of %s is %d: want how many requests a replica is to get in a minute", name, m.GetTarget())
		case name == serving.MetricGPU && !accelerated:
			return resource.Invalid(field, "%s is of GPUs, and machine_spec.accelerator_count is 0", name)
		case name != serving.MetricRequests && (m.GetTarget() < 0 || m.GetTarget() > 100):
			return resource.Invalid(field, "the target of %s is %d: want a percentage", name, m.GetTarget())
		case len(m.GetMonitoredResourceLabels()) > 0:
			return resource.Unimplemented(field + ".monitored_resource_labels")
		}
		seen[name] = true
	}
	return nil
}

// Replicas tells of the replicas of a deployed model; serving.Engine does.
type Replicas interface {
	// Replicas is nil when the model is not served.
	Replicas(deployment string) *pb.DeployedModel_Status
}

// show adds to a stored endpoint what is not stored: its address, and how many
// replicas each model has and why.
func (s *Endpoints) show(e *pb.Endpoint) {
	s.dedicate(e)
	if s.replicas == nil {
		return
	}
	for _, d := range e.GetDeployedModels() {
		d.Status = s.replicas.Replicas(resource.DeploymentKey(e.GetName(), d.GetId()))
		if d.Status != nil {
			d.Status.Message = strings.ToValidUTF8(d.Status.GetMessage(), "?")
		}
	}
}
