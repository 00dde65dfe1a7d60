package aiplatform

import (
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

func TestCheckScaling(t *testing.T) {
	t.Parallel()
	zero := func(idle, up time.Duration) *pb.DedicatedResources_ScaleToZeroSpec {
		return &pb.DedicatedResources_ScaleToZeroSpec{IdleScaledownPeriod: durationpb.New(idle), MinScaleupPeriod: durationpb.New(up)}
	}
	metric := func(name string, target int32) []*pb.AutoscalingMetricSpec {
		return []*pb.AutoscalingMetricSpec{{MetricName: name, Target: target}}
	}
	for name, tc := range map[string]struct {
		d    *pb.DedicatedResources
		code codes.Code
		most int32
	}{
		"nothing":                   {&pb.DedicatedResources{}, codes.OK, 1},
		"minimum alone":             {&pb.DedicatedResources{MinReplicaCount: 3}, codes.OK, 3},
		"to zero":                   {&pb.DedicatedResources{MaxReplicaCount: 4, InitialReplicaCount: 2, ScaleToZeroSpec: zero(time.Second, time.Second)}, codes.OK, 4},
		"to zero after a day":       {&pb.DedicatedResources{ScaleToZeroSpec: zero(24*time.Hour, time.Second)}, codes.InvalidArgument, 0},
		"to zero at once":           {&pb.DedicatedResources{ScaleToZeroSpec: zero(time.Second, 0)}, codes.InvalidArgument, 0},
		"to zero with one":          {&pb.DedicatedResources{MinReplicaCount: 1, ScaleToZeroSpec: &pb.DedicatedResources_ScaleToZeroSpec{}}, codes.InvalidArgument, 0},
		"required":                  {&pb.DedicatedResources{MinReplicaCount: 2, RequiredReplicaCount: 1}, codes.OK, 2},
		"required beyond the least": {&pb.DedicatedResources{MinReplicaCount: 1, RequiredReplicaCount: 2}, codes.InvalidArgument, 0},
		"initial with one":          {&pb.DedicatedResources{MinReplicaCount: 1, InitialReplicaCount: 1}, codes.InvalidArgument, 0},
		"initial beyond the most":   {&pb.DedicatedResources{MaxReplicaCount: 1, InitialReplicaCount: 2}, codes.InvalidArgument, 0},
		"initial below nothing":     {&pb.DedicatedResources{InitialReplicaCount: -1}, codes.InvalidArgument, 0},
		"CPU":                       {&pb.DedicatedResources{MinReplicaCount: 1, AutoscalingMetricSpecs: metric(serving.MetricCPU, 70)}, codes.OK, 1},
		"so many requests a minute": {&pb.DedicatedResources{MinReplicaCount: 1, AutoscalingMetricSpecs: append(metric(serving.MetricRequests, 600), metric(serving.MetricCPU, 0)...)}, codes.OK, 1},
		"duty cycle of GPUs":        {&pb.DedicatedResources{MinReplicaCount: 1, MachineSpec: &pb.MachineSpec{AcceleratorCount: 1}, AutoscalingMetricSpecs: metric(serving.MetricGPU, 80)}, codes.OK, 1},
		"duty cycle of no GPU":      {&pb.DedicatedResources{MinReplicaCount: 1, AutoscalingMetricSpecs: metric(serving.MetricGPU, 80)}, codes.InvalidArgument, 0},
		"requests without a target": {&pb.DedicatedResources{MinReplicaCount: 1, AutoscalingMetricSpecs: metric(serving.MetricRequests, 0)}, codes.InvalidArgument, 0},
		"CPU of 101 percent":        {&pb.DedicatedResources{MinReplicaCount: 1, AutoscalingMetricSpecs: metric(serving.MetricCPU, 101)}, codes.InvalidArgument, 0},
		"CPU twice":                 {&pb.DedicatedResources{AutoscalingMetricSpecs: append(metric(serving.MetricCPU, 1), metric(serving.MetricCPU, 2)...)}, codes.InvalidArgument, 0},
		"a metric we do not have":   {&pb.DedicatedResources{AutoscalingMetricSpecs: metric("aiplatform.googleapis.com/prediction/online/replicas", 1)}, codes.Unimplemented, 0},
		"a metric nobody ever had":  {&pb.DedicatedResources{AutoscalingMetricSpecs: metric("", 1)}, codes.Unimplemented, 0},
		"a range that is none":      {&pb.DedicatedResources{MinReplicaCount: 3, MaxReplicaCount: 2}, codes.InvalidArgument, 0},
		"less than no replicas":     {&pb.DedicatedResources{MinReplicaCount: -1}, codes.InvalidArgument, 0},
		"less than no replicas too": {&pb.DedicatedResources{MaxReplicaCount: -1}, codes.InvalidArgument, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := checkScaling(tc.d)
			if tc.code == codes.OK {
				if err != nil || tc.d.MaxReplicaCount != tc.most {
					t.Errorf("at most %d, %v", tc.d.MaxReplicaCount, err)
				}
				return
			}
			if resource.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestRolloutOptionsAreRefused: what is not done is not taken in silence.
func TestRolloutOptionsAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	req := deployRequest(createEndpoint(t, s, "e"), upload(t, s, "m", "", &pb.Model{}).Model, "d1", nil)
	req.DeployedModel.RolloutOptions = &pb.RolloutOptions{PreviousDeployedModel: "1"}
	refuse(t, s, "DeployModel", req, codes.Unimplemented, "rollout_options")
}
