package serving_test

import (
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
)

// TestModelFilesAreReadAsTheAccount: a model is not served by whom may not read it,
// in this process either.
func TestModelFilesAreReadAsTheAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	op := w.deploy("1", "native", func(req *pb.DeployModelRequest) { req.DeployedModel.ServiceAccount = blind })
	if codes.Code(op.GetError().GetCode()) != codes.PermissionDenied || !strings.Contains(op.GetError().GetMessage(), blind) {
		t.Errorf("operation %v", op)
	}
	if op := w.deploy("2", "native", nil); op.GetError() != nil {
		t.Errorf("as the default account: %v", op.GetError())
	}
}
