package local

import (
	"fmt"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/vector/ann"
)

// noVector begins Extra of a row whose datapoint has a sparse embedding alone; its
// vector is zeros and never compared.
const (
	hasVector = 0
	noVector  = 1
)

// toRow gives the row of a datapoint.
func toRow(p *pb.IndexDatapoint, dimensions int) (ann.Row, error) {
	r := ann.Row{ID: p.GetDatapointId(), Vector: p.GetFeatureVector(), Crowding: p.GetCrowdingTag().GetCrowdingAttribute()}
	for _, x := range p.GetRestricts() {
		r.Restricts = append(r.Restricts, ann.Restrict{Namespace: x.GetNamespace(), Allow: x.GetAllowList(), Deny: x.GetDenyList()})
	}
	for _, x := range p.GetNumericRestricts() {
		r.Numerics = append(r.Numerics, ann.Numeric{Namespace: x.GetNamespace(), Number: toNumber(x)})
	}
	flag := byte(hasVector)
	if len(r.Vector) == 0 {
		r.Vector, flag = make([]float32, dimensions), noVector
	}
	if flag == hasVector && p.GetSparseEmbedding() == nil && p.GetEmbeddingMetadata() == nil {
		return r, nil
	}
	extra, err := proto.MarshalOptions{}.MarshalAppend([]byte{flag}, &pb.IndexDatapoint{SparseEmbedding: p.GetSparseEmbedding(), EmbeddingMetadata: p.GetEmbeddingMetadata()})
	if err != nil {
		return r, fmt.Errorf("datapoint %s: %w", r.ID, err)
	}
	r.Extra = extra
	return r, nil
}

func toNumber(x *pb.IndexDatapoint_NumericRestriction) ann.Number {
	switch v := x.GetValue().(type) {
	case *pb.IndexDatapoint_NumericRestriction_ValueFloat:
		return ann.Number{Kind: ann.Float, Float: float64(v.ValueFloat)}
	case *pb.IndexDatapoint_NumericRestriction_ValueDouble:
		return ann.Number{Kind: ann.Double, Float: v.ValueDouble}
	default:
		return ann.Number{Kind: ann.Int, Int: x.GetValueInt()}
	}
}

// toPoint gives the datapoint of a row; nothing of it is shared with a segment.
func toPoint(r ann.Row) (*pb.IndexDatapoint, error) {
	p := &pb.IndexDatapoint{}
	flag := byte(hasVector)
	if len(r.Extra) > 0 {
		flag = r.Extra[0]
		if err := proto.Unmarshal(r.Extra[1:], p); err != nil {
			return nil, fmt.Errorf("datapoint %s: %w", r.ID, err)
		}
	}
	p.DatapointId = r.ID
	if flag == hasVector {
		p.FeatureVector = append([]float32(nil), r.Vector...)
	}
	for _, x := range r.Restricts {
		p.Restricts = append(p.Restricts, &pb.IndexDatapoint_Restriction{Namespace: x.Namespace, AllowList: x.Allow, DenyList: x.Deny})
	}
	for _, x := range r.Numerics {
		p.NumericRestricts = append(p.NumericRestricts, fromNumeric(x))
	}
	p.CrowdingTag = tagOf(r)
	return p, nil
}

func tagOf(r ann.Row) *pb.IndexDatapoint_CrowdingTag {
	if r.Crowding == "" {
		return nil
	}
	return &pb.IndexDatapoint_CrowdingTag{CrowdingAttribute: r.Crowding}
}

func fromNumeric(x ann.Numeric) *pb.IndexDatapoint_NumericRestriction {
	n := &pb.IndexDatapoint_NumericRestriction{Namespace: x.Namespace}
	switch x.Kind {
	case ann.Float:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: float32(x.Float)}
	case ann.Double:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: x.Float}
	default:
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: x.Int}
	}
	return n
}

// toFilter gives what a query restricts.
func toFilter(p *pb.IndexDatapoint) ann.Filter {
	var f ann.Filter
	for _, x := range p.GetRestricts() {
		f.Restricts = append(f.Restricts, ann.Restrict{Namespace: x.GetNamespace(), Allow: x.GetAllowList(), Deny: x.GetDenyList()})
	}
	for _, x := range p.GetNumericRestricts() {
		f.Tests = append(f.Tests, ann.Test{Namespace: x.GetNamespace(), Operator: ann.Operator(x.GetOp()), Number: toNumber(x)})
	}
	return f
}

// sparseOf gives the sparse embedding of a row, nil where it has none, and whether it
// has a vector.
func sparseOf(r ann.Row) (*pb.IndexDatapoint_SparseEmbedding, bool, error) {
	if len(r.Extra) == 0 {
		return nil, true, nil
	}
	p := &pb.IndexDatapoint{}
	if err := proto.Unmarshal(r.Extra[1:], p); err != nil {
		return nil, false, fmt.Errorf("datapoint %s: %w", r.ID, err)
	}
	return p.GetSparseEmbedding(), r.Extra[0] == hasVector, nil
}
