package aiplatform

import (
	"context"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// maxBatch is the limit that the API documents for one batch request.
const maxBatch = 32

func checkBatch(parent string, names []string) error {
	switch {
	case len(names) == 0:
		return resource.Invalid("names", "names is empty")
	case len(names) > maxBatch:
		return resource.Invalid("names", "%d names; %d is the most", len(names), maxBatch)
	}
	for _, n := range names {
		if !strings.HasPrefix(n, parent+"/pipelineJobs/") {
			return resource.Invalid("names", "%q is not in %s", n, parent)
		}
	}
	return nil
}

// batchCancel asks for the end of several jobs, or of none if one does not exist.
// The operation is done once they are asked.
func (s *PipelineJobs) batchCancel(ctx context.Context, req *pb.BatchCancelPipelineJobsRequest) (*longrunningpb.Operation, error) {
	return s.batch(ctx, req.GetParent(), req.GetNames(), "BatchCancelPipelineJobsOperationMetadata", s.askCancel,
		func(jobs []*pb.PipelineJob) proto.Message {
			return &pb.BatchCancelPipelineJobsResponse{PipelineJobs: jobs}
		})
}

// batchDelete removes several jobs, or none if one of them runs.
func (s *PipelineJobs) batchDelete(ctx context.Context, req *pb.BatchDeletePipelineJobsRequest) (*longrunningpb.Operation, error) {
	remove := func(ctx context.Context, tx store.Tx, name string) (*pb.PipelineJob, error) {
		job := &pb.PipelineJob{}
		if err := s.std.Remove(ctx, tx, name, "", job); err != nil {
			return nil, err
		}
		return job, s.forget(ctx, tx, job)
	}
	return s.batch(ctx, req.GetParent(), req.GetNames(), "DeleteOperationMetadata", remove,
		func(jobs []*pb.PipelineJob) proto.Message {
			return &pb.BatchDeletePipelineJobsResponse{PipelineJobs: jobs}
		})
}

func (s *PipelineJobs) batch(
	ctx context.Context, parent string, names []string, metadata string,
	one func(context.Context, store.Tx, string) (*pb.PipelineJob, error), answer func([]*pb.PipelineJob) proto.Message,
) (*longrunningpb.Operation, error) {
	if err := checkBatch(parent, names); err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		var jobs []*pb.PipelineJob
		for _, n := range names {
			job, err := one(ctx, tx, n)
			if err != nil {
				return err
			}
			jobs = append(jobs, job)
		}
		var err error
		op, err = operation.Done(ctx, tx, parent, s.std.Metadata(metadata), answer(jobs))
		return err
	})
	if err != nil {
		return nil, err
	}
	return op, nil
}
